"""Images in any form give the same pixels, or a clear error."""

import collections
import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from tf_metalstm.data.sources import pixels as reading
from tf_metalstm.serving.given_images import take_images

GRAY, COLOR = (16, 16, 1), (16, 16, 3)


def arrays(number=3, shape=COLOR, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, [number, *shape]).astype(np.uint8)


def as_file(array):
    file = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(file, format="PNG")
    return file.getvalue()


class Column:
    """A column of a table as in pandas and polars. Only its `to_numpy` is used."""

    def __init__(self, values):
        self._values = np.empty(len(values), object)
        self._values[:] = values

    def to_numpy(self):
        return self._values


class Tensor:
    """An object that converts itself to an array, as tensors of other libraries do."""

    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array


def paths(folder, images):
    found = [folder / f"{number}.png" for number in range(len(images))]
    for path, image in zip(found, images, strict=True):
        path.write_bytes(as_file(image))
    return found


# Forms of the same images, [B, 16, 16, 3] of bytes. Each gets a folder for its files.
WAYS = {
    "paths": paths,
    "texts": lambda folder, images: [str(path) for path in paths(folder, images)],
    "tuple": lambda folder, images: tuple(paths(folder, images)),
    "generator": lambda folder, images: (path for path in paths(folder, images)),
    "deque": lambda folder, images: collections.deque(paths(folder, images)),
    "array of texts": lambda folder, images: np.array([str(p) for p in paths(folder, images)]),
    "array of objects": lambda folder, images: Column(paths(folder, images)).to_numpy(),
    "column": lambda folder, images: Column(paths(folder, images)),
    "column of texts": lambda folder, images: Column([str(p) for p in paths(folder, images)]),
    "table of one column": lambda folder, images: np.array(
        [[str(path)] for path in paths(folder, images)], object
    ),
    "contents": lambda folder, images: [as_file(image) for image in images],
    "column of contents": lambda folder, images: Column([as_file(image) for image in images]),
    "pictures": lambda folder, images: [Image.fromarray(image) for image in images],
    "column of pictures": lambda folder, images: Column([Image.fromarray(i) for i in images]),
    "open files": lambda folder, images: [Image.open(path) for path in paths(folder, images)],
    "uint8": lambda folder, images: images,
    "int64": lambda folder, images: images.astype(np.int64),
    "float32": lambda folder, images: images.astype(np.float32),
    "float64": lambda folder, images: images.astype(np.float64),
    "tensor": lambda folder, images: Tensor(images.astype(np.float32)),
    "list of arrays": lambda folder, images: list(images),
    "list of tensors": lambda folder, images: [Tensor(image) for image in images],
    "nested lists": lambda folder, images: images.tolist(),
    "with opacity": lambda folder, images: np.insert(images, 3, 255, axis=-1),
    "mixed": lambda folder, images: [
        paths(folder, images)[0],
        Image.fromarray(images[1]),
        images[2].astype(np.float32),
    ],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [COLOR, GRAY, (9, 12, 3)])
def test_every_way_gives_the_same_pixels(way, shape, tmp_path):
    images = arrays()
    expected = np.stack([reading.pixels(as_file(image), shape, "x") for image in images])
    found = take_images(WAYS[way](tmp_path, images), shape)
    np.testing.assert_array_equal(found.pixels, expected)
    assert found.places.tolist() == [0, 1, 2]
    assert found.number == 3
    assert found.skipped == []
    named = "paths" in way or "texts" in way or way in ("tuple", "generator", "deque", "column")
    names = [f"{tmp_path}/{i}.png" for i in range(3)] if named else [f"image {i}" for i in range(3)]
    if way not in ("mixed", "array of objects", "table of one column"):
        assert found.names == names


@pytest.mark.parametrize("kind", ["paths", "texts", "contents"])
def test_columns_of_pandas(kind, tmp_path):
    pandas = pytest.importorskip("pandas")
    images = arrays()
    files = paths(tmp_path, images)
    values = {"paths": files, "texts": [str(file) for file in files]}
    values["contents"] = [file.read_bytes() for file in files]
    table = pandas.DataFrame({"file": values[kind], "label": ["a", "b", "a"]}, index=[7, 3, 5])
    expected = np.stack([reading.pixels(as_file(image), COLOR, "x") for image in images])
    for column in (table["file"], table[["file"]], table.query("label != ''")["file"]):
        np.testing.assert_array_equal(take_images(column, COLOR).pixels, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_arrays_of_any_size(dtype):
    """Arrays of any size give the same as files, together or one by one; also gray ones."""
    large = arrays(2, (40, 23, 3))
    wide, tall = arrays(1, (5, 31, 1), 1)[0], arrays(1, (31, 5, 3), 2)[0]
    for shape in (COLOR, GRAY):
        expected = [reading.pixels(as_file(one), shape, "x") for one in (*large, wide, tall)]
        together = take_images(large.astype(dtype), shape).pixels
        np.testing.assert_array_equal(together, expected[:2])
        one_by_one = [one.astype(dtype) for one in (*large, wide, tall, wide[..., 0])]
        found = take_images(one_by_one, shape).pixels
        np.testing.assert_array_equal(found, [*expected, expected[2]])


@pytest.mark.parametrize("shape", [COLOR, GRAY])
def test_gray_arrays_need_no_last_axis(shape):
    gray = arrays(4, GRAY)
    whole = take_images(gray, shape).pixels
    assert whole.shape == (4, *shape)
    np.testing.assert_array_equal(take_images(gray[..., 0], shape).pixels, whole)
    np.testing.assert_array_equal(whole[..., :1], gray)


def test_numbers_that_are_not_whole_stay_as_they_are_in_the_size_of_the_model():
    found = take_images(arrays() + 0.25 * (arrays() < 255), COLOR).pixels
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, arrays() + np.float32(0.25) * (arrays() < 255))


def test_pixels_that_are_transparent_lie_on_white():
    images = np.insert(arrays(2, (16, 16, 3)), 3, 0, axis=-1)
    np.testing.assert_array_equal(take_images(images, COLOR).pixels, 255)


def test_all_black_is_black_and_one_dark_image_is_taken():
    assert take_images(np.zeros([2, *GRAY]), GRAY).pixels.max() == 0
    assert take_images([np.ones((9, 9)), np.full((8, 8), 200.0)], GRAY).pixels[0].max() == 1


IMAGE = Image.new("L", (16, 16), 9)
ARRAY = np.full((20, 20), 9, np.uint8)
# Wrong images and the errors. The files do not exist.
REFUSED = {
    "text": ("photo.png", "Expected a list of images, got a single one: give [image]."),
    "path": (pathlib.Path("photo.png"), "got a single one"),
    "contents": (b"\x89PNG", "got a single one"),
    "picture": (IMAGE, "got a single one"),
    "nothing": (None, "Expected a list or an array of images, got NoneType: see the help of"),
    "number": (7, "Expected a list or an array of images, got int"),
    "dict": ({"a.png": 1}, "Expected a list or an array of images, got dict"),
    "set": ({"a.png"}, "Expected a list or an array of images, got set"),
    "no images": ([], "There are no images."),
    "no rows": (np.zeros([0, 16, 16, 3]), "There are no images."),
    "no pixels": (np.zeros([2, 0, 16, 3]), "got float64 [2, 0, 16, 3]"),
    "one number": (np.float32(3), "Expected one image a row, got float32 []"),
    "one color image": (ARRAY[..., np.newaxis].repeat(3, -1), "[20, 20, 3]. That is one image"),
    "one gray image": (ARRAY, "Expected numbers [B, 16, 16, 3]"),
    "rows of a table": (ARRAY.reshape(1, -1), "got uint8 [1, 400]."),
    "channels first": (np.zeros([2, 3, 16, 16]), "got float64 [2, 3, 16, 16]."),
    "truths": (np.ones([2, 16, 16, 3], bool), "got bool [2, 16, 16, 3]."),
    "complex": (np.ones([2, 16, 16, 3], complex), "got complex128"),
    "a table": (np.array([["a", "b"]], object), "Expected one image a row, got object [1, 2]"),
    "a list of numbers": ([1, 2], "got int64 [2]"),
    "a list of nothing": ([None, None], "got object [2]."),
    "0 to 1": (np.full([1, 16, 16, 3], 0.5), "Pixels go from 0 to 255, these from 0.5 to 0.5"),
    "0 to 1, one by one": ([np.ones((8, 8)), np.zeros((9, 9))], "these from 0 to 1: give them"),
    "minus": (np.full([1, 16, 16, 3], -1), "these from -1 to -1"),
    "12 bits": (np.full([1, 16, 16, 3], 4095, np.uint16), "these from 4095 to 4095"),
    "12 bits, tensors": ([Tensor(np.full((8, 8), 4095)), ARRAY], "these from 4095 to 4095"),
    "12 bits, one by one": ([np.full((8, 8), 4095), ARRAY], "these from 4095 to 4095"),
    "not a number": (np.full([1, 16, 16, 3], np.nan), "these from nan to nan"),
    "infinite": (np.full([1, 16, 16, 3], np.inf), "these from inf to inf"),
    "a missing value": ([IMAGE, None], "image 1 of the list is neither a file, nor a picture of"),
    "a missing number": ([IMAGE, float("nan")], "or [h, w, 4], but float."),
    "a number": ([IMAGE, 7], "[h, w, 1], [h, w, 3] or [h, w, 4], but int."),
    "two channels": ([IMAGE, np.zeros((8, 8, 2))], "but float64 [8, 8, 2]."),
    "an empty array": ([IMAGE, np.zeros((0, 8))], "but float64 [0, 8]."),
    "an array of texts": ([IMAGE, np.array(["a"])], "but <U1 [1]."),
    "floating point picture": ([Image.new("F", (8, 8))], "image 0 of the list cannot be read (its"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused_with_a_sentence(case):
    given, said = REFUSED[case]
    with pytest.raises(ValueError) as caught:
        take_images(given, COLOR)
    assert said in str(caught.value)


@pytest.fixture
def some_bad(tmp_path):
    """Returns five files: the second is damaged, the fourth is empty, the fifth does not exist."""
    files = paths(tmp_path, arrays(5))
    files[1].write_bytes(files[1].read_bytes()[:60])
    files[3].write_bytes(b"")
    files[4].unlink()
    return files


def reasons(files):
    return [
        f"{files[1]} is not a readable image (",
        f"{files[3]} is not a readable image (the file is empty)",
        f"{files[4]} cannot be read (No such file or directory)",
    ]


def test_each_bad_file_is_named_with_its_reason(some_bad):
    with pytest.raises(ValueError) as caught:
        take_images(some_bad, COLOR)
    text = str(caught.value)
    assert text.startswith(f"3 of 5 images cannot be read: {some_bad[1]}")
    assert all(reason in text for reason in reasons(some_bad))
    assert text.endswith("Leave such files out with skip_corrupt=True.")


def test_bad_files_are_left_out_where_that_is_wanted(some_bad):
    found = take_images(some_bad, COLOR, skip_corrupt=True)
    assert found.places.tolist() == [0, 2]
    assert found.names == [str(some_bad[0]), str(some_bad[2])]
    assert found.number == 5
    np.testing.assert_array_equal(found.pixels, arrays(5)[[0, 2]])
    for said, reason in zip(found.skipped, reasons(some_bad), strict=True):
        assert said.startswith(reason)


@pytest.mark.parametrize("skip_corrupt", [False, True])
def test_when_no_file_can_be_read(some_bad, skip_corrupt):
    with pytest.raises(ValueError, match=r"None of the 3 images can be read: .*; .*; ") as caught:
        take_images([some_bad[i] for i in (1, 3, 4)], COLOR, skip_corrupt)
    assert "skip_corrupt" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"4\.png cannot be read \(No such file"):
        take_images([some_bad[4]], COLOR, skip_corrupt)


@pytest.mark.parametrize("given", [["~nobody-here/0.png"], ["a\0b.png"], [""], ["/"]])
def test_odd_paths(given):
    with pytest.raises(ValueError, match=r"is no path|cannot be read"):
        take_images(given, COLOR)


def test_at_most_ten_bad_files_are_named(tmp_path):
    images = [as_file(arrays(1)[0]), *[b"text"] * 14]
    with pytest.raises(ValueError, match=r"14 of 15 images cannot be read: .*; and 4 more\. Leave"):
        take_images(images, COLOR)


def test_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    paths(tmp_path, arrays(1))
    assert take_images(["~/0.png"], COLOR).names == ["~/0.png"]

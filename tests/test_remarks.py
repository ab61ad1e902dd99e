"""Pictures that make answers unreliable cause warnings with their names; others cause none."""

import io
import re

import numpy as np
import pytest
from export_client import FOLDER
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from tf_metalstm.data.sources.decoding import squeeze
from tf_metalstm.serving import remarks
from tf_metalstm.serving.remarks import look_at, of_queries, of_support

SIZE = 16


def stroke(seed, ground=255, ink=0, size=SIZE):
    """Returns a character: some strokes on a plain ground, [size, size, 1]."""
    generator = np.random.default_rng(seed)
    pixels = np.full((size, size, 1), ground, np.uint8)
    for _ in range(3):
        row, column = generator.integers(2, size - 3, 2)
        pixels[row, 2 : 2 + generator.integers(3, size - 4)] = ink
        pixels[2 : 2 + generator.integers(3, size - 4), column] = ink
    return pixels


def noise(seed, low=0, high=256, channels=3):
    generator = np.random.default_rng(seed)
    return generator.integers(low, high, (SIZE, SIZE, channels)).astype(np.uint8)


def level(value, spread=0):
    pixels = np.full((SIZE, SIZE, 1), value, np.uint8)
    pixels[3, 5] = value + spread
    return pixels


def looks(pictures, label=None):
    """Returns looks at pictures. Their names are the letter of the class and a number."""
    return [look_at(f"{label or 'query'} {i}", label, one) for i, one in enumerate(pictures)]


def support(**classes):
    return [look for label, pictures in classes.items() for look in looks(pictures, label)]


def two_classes(number=3, **how):
    return support(
        a=[stroke(k, **how) for k in range(number)],
        b=[stroke(50 + k, **how) for k in range(number)],
    )


def test_ordinary_support_sets_and_queries_are_passed_over():
    for known in (two_classes(), two_classes(ground=0, ink=255), two_classes(number=1)):
        assert of_support(known) == []
    queries = looks([stroke(100 + k) for k in range(4)])
    assert of_queries(two_classes(), queries) == []


@pytest.mark.parametrize(
    "blank",
    [
        level(0),
        level(255),
        level(128),
        level(0, 1),
        level(100, 16),
        np.full((SIZE, SIZE, 3), (200, 30, 90), np.uint8)[..., :1],
        level(40).astype(np.float32),
        np.zeros((SIZE, SIZE, 1), np.float32),
        noise(3, 0, 16, 1),  # 12 bits in a file of 16
        noise(4, 240, 256, 1),
    ],
)
def test_blank_pictures(blank):
    known = support(a=[stroke(1), blank], b=[stroke(2), stroke(3)])
    said = "1 support picture is blank, or nearly so (no two pixels differ by more than 16"
    [found] = of_support(known)
    assert found.startswith(said)
    assert "levels): a 1 (a). The model can" in found
    [found] = of_queries(two_classes(), looks([stroke(9), blank, blank]))
    assert found.startswith("2 query pictures are blank")
    assert "query 1; query 2. The model can" in found


def test_pale_pictures_are_not_blank():
    assert of_support(support(a=[level(100, 17), stroke(1)], b=[stroke(2), stroke(3)])) == []


def again(pixels, how):
    """Saves a picture in another format, and reads it again in the size of the model."""
    picture, file = Image.fromarray(pixels), io.BytesIO()
    if how == "larger":
        picture = picture.resize((200, 150), Image.Resampling.BICUBIC)
    if how == "smaller":
        picture = picture.resize((60, 70), Image.Resampling.BICUBIC)
    if how.startswith("jpeg"):
        picture.save(file, format="JPEG", quality=int(how[4:]))
    else:
        picture.save(file, format="PNG" if how.endswith("er") else how)
    return squeeze(Image.open(file).convert("RGB"), pixels.shape)


def photograph(number):
    """Returns one of thirty parts of two photographs, [84, 84, 3]."""
    image = load_sample_image(("china.jpg", "flower.jpg")[number % 2])
    row, column = number // 2 // 5 * 120, number // 2 % 5 * 120
    return squeeze(Image.fromarray(image[row : row + 120, column : column + 120]), (84, 84, 3))


SAVED = ["png", "bmp", "gif", "tiff", "webp", "jpeg95", "jpeg75", "larger", "smaller"]


@pytest.mark.parametrize("how", SAVED)
def test_the_same_picture_in_two_classes(how):
    picture = photograph(1)
    known = support(
        a=[photograph(2), picture], b=[photograph(3), photograph(4)], c=[again(picture, how)]
    )
    [found] = of_support(known)
    assert found.startswith("The same picture is in two classes: c 0 (c) and a 1 (a). The model")


@pytest.mark.parametrize("how", SAVED)
def test_the_same_picture_twice_in_a_class(how):
    picture = photograph(5)
    known = support(
        a=[photograph(2), photograph(3)], b=[picture, photograph(4), again(picture, how)]
    )
    [found] = of_support(known)
    assert found.startswith("The same picture is in a class more than once: b 2 (b) is b 0. It")


@pytest.mark.parametrize("how", SAVED)
def test_queries_that_are_among_the_support_pictures(how):
    picture = photograph(6)
    known = support(a=[photograph(2), photograph(3)], b=[photograph(4), picture])
    queries = looks([photograph(7), again(picture, how), photograph(8)])
    [found] = of_queries(known, queries)
    said = "1 query picture is among the support pictures: query 1 is b 1 (b). An accuracy"
    assert found.startswith(said)


def test_each_is_said_once_and_in_few_words():
    same = [stroke(1)] * 40
    [twice, in_two] = [len(s) for s in sorted(of_support(support(a=same, b=same)))][:2]
    assert max(twice, in_two) < 400
    found = of_support(support(a=same, b=same))
    assert [re.search("in two|more than once", one)[0] for one in found] == [
        "in two",
        "more than once",
    ]
    assert "a 1 (a) is a 0; a 2 (a) is a 0" in found[1]
    assert "; and 73 more. It counts" in found[1]  # 39 of each class; five are named


def test_pictures_that_are_alike_are_not_the_same():
    """Strokes at other places, a pale picture of other things, and blank pictures differ."""
    pale = [noise(k, 120, 140, 1) for k in range(4)]
    shifted = [np.roll(stroke(1), k, axis=0) for k in (0, 1, 2)]
    assert of_support(support(a=[*pale, *shifted], b=[stroke(k) for k in range(2, 7)])) == []
    known = support(a=[level(0), level(0)], b=[level(0), stroke(1)])
    assert all("same" not in said for said in of_support(known))


@pytest.mark.parametrize("size", [1, 2, 7, 15, 16, 17, 84])
@pytest.mark.parametrize("channels", [1, 3])
def test_thumbnails_have_the_mean_of_their_parts(size, channels):
    generator = np.random.default_rng(size)
    pixels = generator.integers(0, 256, (size, size + 3, channels)).astype(np.uint8)
    found = look_at("x", None, pixels).thumbnail
    rows, columns = min(16, size), min(16, size + 3)
    assert found.shape == (rows, columns, channels)
    for i, j in ((0, 0), (rows - 1, columns - 1), (rows // 2, columns // 3)):
        part = pixels[
            i * size // rows : (i + 1) * size // rows,
            j * (size + 3) // columns : (j + 1) * (size + 3) // columns,
        ]
        np.testing.assert_allclose(found[i, j], part.mean((0, 1)), atol=0.501)


INVERTED = [
    # ground and ink of the support set, and of the queries
    ((255, 0), (0, 255), "darker", "lighter"),
    ((0, 255), (255, 0), "lighter", "darker"),
    ((255, 0), (90, 200), "darker", "lighter"),
    ((200, 60), (0, 255), "darker", "lighter"),
    ((170, 40), (60, 180), "darker", "lighter"),
    ((20, 90), (240, 200), "lighter", "darker"),
    ((255, 200), (0, 55), "darker", "lighter"),
]


@pytest.mark.parametrize(("ours", "theirs", "first", "then"), INVERTED)
@pytest.mark.parametrize("number", [1, 8])
def test_queries_that_are_inverted(ours, theirs, first, then, number):
    known = two_classes(ground=ours[0], ink=ours[1])
    queries = looks([stroke(100 + k, *theirs) for k in range(number)])
    [found] = of_queries(known, queries)
    assert (
        f"support pictures are {first} than their ground, those of {number} of {number} " in found
    )
    assert f"query pictures {then}: query 0" in found


def test_a_query_that_is_the_negative_of_a_support_picture():
    picture = Image.fromarray(stroke(1)[..., 0])
    inverted = np.asarray(ImageOps.invert(picture))[..., np.newaxis]
    [found] = of_queries(two_classes(), looks([inverted]))
    assert "invert one of the two" in found


def test_some_that_are_lighter_are_no_inversion():
    queries = [stroke(100 + k) for k in range(3)] + [stroke(200 + k, 0, 255) for k in range(8)]
    assert of_queries(two_classes(), looks(queries[2:-2])) != []
    assert of_queries(two_classes(), looks(queries)) == []
    mixed = support(a=[stroke(1), stroke(2)], b=[stroke(3, 0, 255), stroke(4, 0, 255)])
    assert of_queries(mixed, looks([stroke(9)])) == of_queries(mixed, looks([stroke(9, 0, 255)]))


def test_photographs_are_neither_inverted_nor_the_same():
    parts = [photograph(k) for k in range(30)]
    known = support(a=parts[:15:2], b=parts[1:15:2])
    assert of_support(known) == []
    assert of_queries(known, looks(parts[15:])) == []
    negatives = [255 - part for part in parts[15:]]
    assert of_queries(known, looks(negatives)) == []  # only a person can see this


@pytest.mark.parametrize(
    ("few", "many", "said"),
    [(1, 50, True), (1, 5, True), (2, 10, True), (1, 4, False), (3, 14, False), (5, 5, False)],
)
def test_classes_of_different_sizes(few, many, said):
    known = support(a=[stroke(k) for k in range(few)], b=[stroke(90 + k) for k in range(many)])
    found = of_support(known)
    assert bool(found) is said
    if said:
        expected = f"a has {few} of the support pictures, b has {many}. The answers may lean"
        assert expected in found[0]


def test_one_class():
    assert of_support(support(a=[stroke(1), stroke(2)])) == [
        "a is the only class: every picture gets this answer."
    ]


def test_thousands_of_pictures_are_compared_in_parts(monkeypatch):
    known = support(a=[noise(k) for k in range(6)], b=[noise(50 + k) for k in range(6)])
    queries = looks([noise(100), noise(3), noise(101), noise(55), noise(102)])
    whole = of_queries(known, queries)
    monkeypatch.setattr(remarks, "_ROWS", 2)
    assert of_queries(known, queries) == whole
    assert "query 1 is a 3 (a); query 3 is b 5 (b)" in whole[0]


def test_clients_look_by_the_same_file():
    """export/ works without the package, so it has a copy of this file."""
    with open(remarks.__file__, encoding="utf-8") as file:
        assert (FOLDER / "remarks.py").read_text(encoding="utf-8") == file.read()

"""Every kind of file gives the same pixels in all clients, or the same clear error."""

import io
import re

import numpy as np
import pytest
import tensorflow as tf
import toy
import toy_images
from export_client import FOLDER
from export_client import images as client_images
from odd_pictures import NAMES, PICTURES, SHAPE, check
from PIL import Image

from tf_metalstm.classifier import FewShotClassifier
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.data.sources import decoding, pixels
from tf_metalstm.data.sources.base import CorruptImageError
from tf_metalstm.methods.pixel_nearest_neighbor import PixelNearestNeighbor
from tf_metalstm.serving.pictures import picture_decoder
from tf_metalstm.serving.served import ServedMethod

every_picture = pytest.mark.parametrize("picture", PICTURES, ids=NAMES)
GRAY, COLOR = (*SHAPE, 1), (*SHAPE, 3)
LEVELS = 1  # TensorFlow's filters and mixtures may differ by this


def refused(picture):
    """Returns the complete error: the file, then the reason."""
    return rf"^(odd|.*/odd) is not a readable image \(.*{re.escape(picture.refused)}"


@every_picture
@pytest.mark.parametrize("shape", [GRAY, COLOR])
def test_training(picture, shape):
    if picture.refused is not None:
        with pytest.raises(CorruptImageError, match=refused(picture)):
            pixels.pixels(picture.encoded, shape, "odd")
    else:
        found = pixels.pixels(picture.encoded, shape, "odd")
        assert found.dtype == np.uint8
        check(picture, found)


@every_picture
def test_sources(picture):
    """The stored form of a color image decodes to the pixels of the prepared data."""
    if picture.refused is not None:
        pytest.skip("as in training")
    found, stored = pixels.color_pixels(picture.encoded, 32, "odd")
    decoded = tf.io.decode_jpeg(stored, 3, dct_method="INTEGER_ACCURATE").numpy().astype(int)
    middle = slice(3, None, 11)
    assert np.abs(found[middle, middle] - decoded[middle, middle]).max() <= 12
    np.testing.assert_array_equal(
        pixels.gray_pixels(picture.encoded, 32, "odd"),
        pixels.pixels(picture.encoded, (32, 32, 1), "odd"),
    )


def served(read):
    """Returns the pictures that a signature reads, or those that it refuses."""
    return [picture for picture in PICTURES if (picture.not_served is None) is read]


# One test has all pictures, because compiled functions are lost between tests.
@pytest.mark.parametrize(
    "shape",
    [COLOR, *(pytest.param(s, marks=pytest.mark.slow) for s in (GRAY, (9, 9, 3), (84, 84, 1)))],
)
def test_in_the_graph(shape):
    def decode(files):
        return picture_decoder(shape)(files, tf.constant("support_images"))

    found = decode(tf.constant([picture.encoded for picture in served(True)])).numpy()
    np.testing.assert_array_equal(found, np.round(found))
    for picture, each in zip(served(True), found, strict=True):
        if shape[:2] == SHAPE:
            check(picture, each, LEVELS)
        as_trained = pixels.pixels(picture.encoded, shape, "odd")
        np.testing.assert_allclose(each, as_trained, atol=2, err_msg=picture.name)
    good = PICTURES[0].encoded
    for picture in served(False):
        said = rf"support_images\[1\]: {re.escape(picture.not_served)}"
        with pytest.raises(tf.errors.InvalidArgumentError, match=said):
            decode(tf.constant([good, picture.encoded, good]))


@every_picture
@pytest.mark.parametrize("shape", [GRAY, COLOR])
def test_the_python_client(picture, shape, tmp_path):
    (tmp_path / "odd").write_bytes(picture.encoded)
    if picture.refused is not None:
        with pytest.raises(ValueError, match=refused(picture)):
            client_images.read_image(tmp_path / "odd", shape)
    else:
        found = client_images.read_image(tmp_path / "odd", shape)
        check(picture, found)
        np.testing.assert_array_equal(found, pixels.pixels(picture.encoded, shape, "odd"))


def test_clients_decode_by_the_same_file():
    """export/ works without the package, so it has a copy of this file."""
    with open(decoding.__file__, encoding="utf-8") as file:
        assert (FOLDER / "decoding.py").read_text(encoding="utf-8") == file.read()


def test_ordinary_files_are_read_as_ever():
    """No level may change: prepared data and recorded results depend on these pixels.

    This was checked once on all 32,460 drawings of Omniglot and 60,000 images of mini-ImageNet.
    """

    def plain(encoded, mode, size):
        image = Image.open(io.BytesIO(encoded)).convert(mode)
        return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))

    for encoded in toy_images.omniglot_files().values():
        found = pixels.gray_pixels(encoded, 28, "drawing")[..., 0]
        np.testing.assert_array_equal(found, plain(encoded, "L", 28))
    gray = np.arange(84 * 84).reshape(84, 84).astype(np.uint8)
    for encoded in [*toy_images.mini_imagenet_files().values(), toy_images.encode(gray, "JPEG")]:
        found, stored = pixels.color_pixels(encoded, 84, "photograph")
        np.testing.assert_array_equal(found, plain(encoded, "RGB", 84))
        assert stored is encoded


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Returns a model that keeps the scaled pixels of its support set, so that they can be read."""
    folder = tmp_path_factory.mktemp("run") / "saved_model"
    method = PixelNearestNeighbor()
    toy.save(ServedMethod(method, Normalization((0.0,) * 3, (1.0,) * 3), COLOR, None), folder)
    return folder


def check_kept(picture, features, tolerance=0):
    """Compares the features that the model keeps, of length 1, with the pixels of a picture."""
    if picture.pixels is None:
        return
    expected = picture.pixels.astype(float)
    features = np.asarray(features).reshape(COLOR)
    length = np.sum(expected * features) / np.sum(features * features)
    check(picture, features * length, tolerance + 0.01)


def test_the_classifier(model, tmp_path):
    path = tmp_path / "odd"
    read = [picture for picture in PICTURES if picture.refused is None]
    for picture in read:
        (tmp_path / picture.name.replace("/", " ")).write_bytes(picture.encoded)
    paths = [tmp_path / picture.name.replace("/", " ") for picture in read]
    for files in (paths, [picture.encoded for picture in read]):
        kept = FewShotClassifier(model).fit(files, ["a", "b", *"c" * (len(files) - 2)])
        for picture, features in zip(read, kept._state["features"], strict=True):
            check_kept(picture, features)
    for picture in PICTURES:
        if picture.refused is None:
            continue
        path.write_bytes(picture.encoded)
        for given, name in ((path, str(path)), (picture.encoded, "image 1 of the list")):
            said = rf"^{re.escape(name)} is not a readable image \(.*{re.escape(picture.refused)}"
            with pytest.raises(ValueError, match=said):
                FewShotClassifier(model).fit([PICTURES[0].encoded, given], ["a", "b"])


@pytest.fixture(scope="module")
def signatures(model):
    return tf.saved_model.load(str(model)).signatures


@pytest.mark.parametrize(
    "ending", [pytest.param("_encoded", marks=pytest.mark.slow), "_encoded_named"]
)
def test_signatures(signatures, ending):
    adapt = signatures[f"adapt{ending}"]
    labels = tf.constant(["a", "b", "c"] if ending == "_encoded_named" else [0, 1, 2])

    def kept(*files):
        return adapt(support_images=tf.constant(files), support_labels=labels)["features"]

    good = PICTURES[0].encoded
    for picture in served(True):
        check_kept(picture, kept(good, picture.encoded, good)[1], LEVELS)
    for picture in served(False):
        said = rf"support_images\[1\]: {re.escape(picture.not_served)}"
        with pytest.raises(tf.errors.InvalidArgumentError, match=said):
            kept(good, picture.encoded, good)


def test_queries_have_a_name_of_their_own(signatures):
    adapted = signatures["adapt_encoded_named"](
        support_images=tf.constant([PICTURES[0].encoded]), support_labels=tf.constant(["a"])
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"query_images\[0\]: the file is"):
        signatures["predict_encoded_named"](query_images=tf.constant([b""]), **adapted)

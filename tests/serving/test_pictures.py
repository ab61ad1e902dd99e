"""Images decoded inside the graph equal those that Pillow reads, to about a level."""

import io

import numpy as np
import pytest
import tensorflow as tf
from export_client import images as client_images
from PIL import Image

from tf_metalstm.serving.pictures import picture_decoder

SHAPES = [(28, 28, 1), (84, 84, 3)]


def decode(shape, files):
    return picture_decoder(shape)(files, tf.constant("images"))


def photo(mode, size=(130, 97)):
    """Returns smooth colours with an edge, as photographs have."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    red = 255 * x
    green = 255 * y
    blue = 255 * ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1)
    alpha = 255 * (x > 0.3)
    return Image.fromarray(np.stack([red, green, blue, alpha], -1).astype(np.uint8)).convert(mode)


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("mode", "options", "tolerance"),
    [
        ("RGB", {"format": "PNG"}, 2),
        ("L", {"format": "PNG"}, 2),
        ("RGBA", {"format": "PNG"}, 2),
        ("LA", {"format": "PNG"}, 2),
        ("P", {"format": "PNG"}, 2),
        ("RGB", {"format": "BMP"}, 2),
        ("P", {"format": "GIF"}, 2),
        ("RGB", {"format": "JPEG", "quality": 95}, 2),
        ("L", {"format": "JPEG", "quality": 95}, 2),
    ],
)
def test_as_pillow_reads_them(tmp_path, shape, mode, options, tolerance):
    file = encoded(photo(mode), **options)
    (tmp_path / "image").write_bytes(file)
    expected = client_images.read_image(tmp_path / "image", shape)
    decoded = decode(shape, tf.constant([file, file]))
    assert decoded.shape == (2, *shape)
    np.testing.assert_array_equal(decoded[0], np.round(decoded[0]))
    np.testing.assert_allclose(decoded[1], expected, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_lost_at_the_right_size(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    file = tf.io.encode_png(pixels)
    np.testing.assert_array_equal(decode(shape, file[tf.newaxis])[0], pixels)


def test_the_first_frame_of_an_animation():
    frames = [photo("P"), photo("P", size=(130, 97)).rotate(180)]
    moving = encoded(frames[0], format="GIF", save_all=True, append_images=frames[1:], disposal=2)
    still = encoded(frames[0], format="GIF")
    decoded = decode((28, 28, 1), tf.constant([moving, still]))
    np.testing.assert_array_equal(decoded[0], decoded[1])


def gif_with_mask():
    return encoded(photo("RGB").quantize(8), format="GIF", transparency=0)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (encoded(photo("P"), format="BMP"), "BMP file of other than 24 bits"),
        (encoded(photo("RGBA"), format="BMP"), "BMP file of other than 24 bits"),
        (encoded(photo("1"), format="BMP"), "BMP file of other than 24 bits"),
        (gif_with_mask(), "GIF file with a transparent color"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(file, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode((28, 28, 1), tf.constant([file]))


def test_a_palette_with_transparency_is_read(tmp_path):
    file = encoded(photo("RGB").quantize(8), format="PNG", transparency=0)
    (tmp_path / "image").write_bytes(file)
    expected = client_images.read_image(tmp_path / "image", (28, 28, 1))
    decoded = decode((28, 28, 1), tf.constant([file]))
    np.testing.assert_allclose(decoded[0], expected, atol=2)


@pytest.mark.parametrize("file", [b"", b"no image", encoded(photo("RGB"), format="PNG")[:200]])
def test_what_is_no_image_is_refused(file):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"images\[0\]: "):
        decode((28, 28, 1), tf.constant([file]))

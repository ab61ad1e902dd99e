"""export/adapt.py reads an image as the training data were read, whatever the kind of file."""

import numpy as np
import pytest
from export_client import images as client
from PIL import Image

from tf_metalstm.data.sources.pixels import color_pixels, gray_pixels


def saved(tmp_path, image, **options):
    image.save(tmp_path / "image.png", **options)
    return tmp_path / "image.png"


def ramp(size=(6, 4)):
    return np.linspace(0, 255, size[0] * size[1]).round().astype(np.uint8).reshape(size[::-1])


def test_transparent_is_white(tmp_path):
    pixels = np.zeros([4, 6, 4], np.uint8)
    pixels[0, 0, 3] = 255
    image = client.read_image(saved(tmp_path, Image.fromarray(pixels)), (4, 6, 1))[..., 0]
    assert image[0, 0] == 0
    assert np.all(image.ravel()[1:] == 255)


def test_transparent_color_of_a_palette_is_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 200, 10, 0])
    path = saved(tmp_path, image, transparency=0)
    assert client.read_image(path, (1, 2, 3)).tolist() == [[[255, 255, 255], [200, 10, 0]]]


def test_sixteen_bits_become_eight(tmp_path):
    path = saved(tmp_path, Image.fromarray(ramp().astype(np.uint16) * 257))
    np.testing.assert_array_equal(client.read_image(path, (4, 6, 1))[..., 0], ramp())


def test_exif_turns_images_upright(tmp_path):
    image = Image.fromarray(ramp())
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    path = saved(tmp_path, image, exif=exif)
    turned = np.rot90(ramp(), -1)
    np.testing.assert_array_equal(client.read_image(path, (6, 4, 1))[..., 0], turned)


def test_floating_point_pixels_are_refused(tmp_path):
    path = tmp_path / "image.tiff"
    Image.fromarray(ramp().astype(np.float32)).save(path)
    with pytest.raises(ValueError, match="floating point"):
        client.read_image(path, (4, 6, 1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_pixels_are_those_of_the_training_data(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, [30, 40, 3]).astype(np.uint8)
    path = tmp_path / "image.tiff"
    Image.fromarray(pixels).convert(mode).save(path)
    encoded = path.read_bytes()
    gray = gray_pixels(encoded, 20, "image")
    color, _ = color_pixels(encoded, 20, "image")
    np.testing.assert_array_equal(client.read_image(path, (20, 20, 1)), gray)
    np.testing.assert_array_equal(client.read_image(path, (20, 20, 3)), color)

"""HEIC files of phones are read if pillow-heif is installed. Else one sentence says so."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from tf_metalstm.data.sources import decoding
from tf_metalstm.data.sources.decoding import UnreadableImageError, decode_image

pillow_heif = pytest.importorskip("pillow_heif")


@pytest.fixture(scope="module")
def photo():
    """Returns a smooth picture, and a HEIC file of it that is stored on its side."""
    rows, columns = np.mgrid[0:48, 0:64]
    pixels = np.stack([4 * columns, 5 * rows, 255 - 3 * columns], axis=-1).clip(0, 255)
    picture = Image.fromarray(pixels.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    pillow_heif.from_pillow(turned).save(file, quality=95, exif=exif.tobytes())
    return picture, file.getvalue()


def test_a_photo_of_a_phone_is_read_upright(photo):
    picture, encoded = photo
    found = decode_image(encoded, "photo.heic")
    assert found.size == picture.size
    difference = np.asarray(found, float) - np.asarray(picture, float)
    assert np.abs(difference).mean() < 4


def test_half_of_one_is_refused(photo):
    with pytest.raises(UnreadableImageError, match=r"photo\.heic is not a readable image"):
        decode_image(photo[1][: len(photo[1]) // 2], "photo.heic")


def test_without_the_package_one_sentence_says_what_to_do(photo, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    with pytest.raises(UnreadableImageError, match=r"a HEIC picture.*pip install pillow-heif"):
        decode_image(photo[1], "photo.heic")
    assert not decoding._is_heif(b"\0\0\0\x1cftypavif")

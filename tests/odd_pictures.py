"""Image files of many kinds, each with its right pixels or the reason why it is refused.

All show one picture, six blocks of 16 x 16 in two rows. The right pixels follow from the blocks and
not from a decoder. Files that no library here can write are written byte by byte.
"""

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

SHAPE = (32, 48)  # of the picture, and of the model's images
BLOCK = 16
COLORS = np.array(
    [
        [[255, 0, 0], [0, 200, 0], [0, 0, 255]],
        [[250, 250, 0], [30, 60, 90], [255, 255, 255]],
    ],
    np.uint8,
)
# These levels are also whole numbers in 16 bits and in 4.
GRAYS = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)


class OddPicture(NamedTuple):
    """One file.

    name: what is odd about it.
    encoded: its bytes.
    pixels: its right pixels, uint8 [h, w, 3]; None if it is refused.
    exact: whether all pixels must be right; else those in the middle of the blocks, up to 3 levels.
    refused: the error of every client that has Pillow; None if it is read.
    not_served: the error of a signature, which reads fewer kinds; None if it is read.
    """

    name: str
    encoded: bytes
    pixels: np.ndarray | None
    exact: bool = True
    refused: str | None = None
    not_served: str | None = None


def blocks(values, size=BLOCK):
    """Returns [rows, columns, ...] values as blocks of pixels."""
    return values.repeat(size, axis=0).repeat(size, axis=1)


COLOR, GRAY = blocks(COLORS), blocks(GRAYS)


def gray_as_color(gray):
    return np.repeat(gray[..., np.newaxis], 3, axis=-1)


def luma(pixels):
    """Returns gray levels as defined by ITU-R 601, [h, w, 1]."""
    return np.round(pixels.astype(float) @ [0.299, 0.587, 0.114])[..., np.newaxis]


def encode(image, image_format, **options):
    file = io.BytesIO()
    image.save(file, format=image_format, **options)
    return file.getvalue()


def exif(orientation, order="II"):
    """Returns an EXIF entry with only the orientation, in one of the two byte orders."""
    mark = "<" if order == "II" else ">"
    entry = struct.pack(mark + "HHIHH", 0x0112, 3, 1, orientation, 0)
    table = struct.pack(mark + "H", 1) + entry + struct.pack(mark + "I", 0)
    return b"Exif\0\0" + order.encode() + struct.pack(mark + "HI", 42, 8) + table


def as_stored(pixels, orientation):
    """Returns the pixels as they are stored, so that turning them makes them upright."""
    turns = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: p.swapaxes(0, 1)[::-1],
        7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
        8: lambda p: p.swapaxes(0, 1)[:, ::-1],
    }
    return np.ascontiguousarray(turns[orientation](pixels))


def png(width, height, bits, kind, rows, *chunks, interlaced=False):
    """Returns a PNG file of unfiltered rows (bytes [..., n]), with further chunks before them."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    parts = [chunk(b"IHDR", header), *(chunk(*one) for one in chunks), chunk(b"IDAT", data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def packed(levels, bits):
    """Returns rows of numbers of a few bits, packed as in a PNG."""
    shifts = np.arange(bits)[::-1]
    return np.packbits((levels[..., np.newaxis] >> shifts) & 1).reshape(len(levels), -1)


def adam7(pixels):
    """Returns the rows of an interlaced PNG."""
    for y, x, dy, dx in (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):
        yield from (row.tobytes() for row in pixels[y::dy, x::dx])


def qoi(pixels):
    """Returns a QOI file that stores every pixel in full."""
    header = b"qoif" + struct.pack(">IIBB", pixels.shape[1], pixels.shape[0], 3, 0)
    body = b"".join(b"\xfe" + bytes(pixel) for pixel in pixels.reshape(-1, 3))
    return header + body + b"\0" * 7 + b"\1"


def half_transparent():
    """Returns the picture with an opacity for each block, and its pixels on white."""
    alpha = blocks(np.array([[255, 128, 0], [0, 255, 51]], np.uint8))
    share = alpha[..., np.newaxis] / 255.0
    return alpha, np.round(COLOR * share + 255 * (1 - share)).astype(np.uint8)


def with_white(pixels, where):
    """Returns a copy with white blocks."""
    pixels = pixels.copy()
    for row, column in where:
        pixels[BLOCK * row : BLOCK * (row + 1), BLOCK * column : BLOCK * (column + 1)] = 255
    return pixels


def commented(gif, number):
    """Returns a GIF file with so many comments of one letter before its frame."""
    frame = 13 + 3 * 2 ** (gif[10] % 8 + 1)  # after the color table
    return gif[:frame] + b"\x21\xfe\1a\0" * number + gif[frame:]


def animated(image_format, **options):
    frames = [Image.fromarray(frame) for frame in (COLOR, 255 - COLOR)]
    return encode(frames[0], image_format, save_all=True, append_images=frames[1:], **options)


def many_passes(number):
    """Returns a JPEG with many copies of its last pass."""
    whole = encode(Image.fromarray(COLOR), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * number + whole[-2:]


def _read_by_all():
    alpha, on_white = half_transparent()
    image = Image.fromarray(COLOR)
    gray_alpha = np.dstack([GRAY, alpha])
    gray_on_white = np.round(GRAY * (alpha / 255) + 255 - alpha).astype(np.uint8)
    indexes = blocks(np.arange(6, dtype=np.uint8).reshape(2, 3))
    palette = Image.fromarray(indexes)
    palette.putpalette(COLORS.reshape(-1).tolist())
    opacities = bytes([255, 128, 0, 0, 255, 51])
    wide = GRAY.astype(">u2") * 257
    twelve = blocks(np.array([[0, 1000, 2000], [3000, 4000, 4095]], ">u2"))
    nibbles = GRAY // 17
    width, height = image.size

    def from_rows(bits, kind, rows, *chunks, **options):
        return png(width, height, bits, kind, rows, *chunks, **options)

    gray = gray_as_color(GRAY)
    yield OddPicture("color", encode(image, "PNG"), COLOR)
    yield OddPicture("alpha", encode(Image.fromarray(np.dstack([COLOR, alpha])), "PNG"), on_white)
    yield OddPicture(
        "gray with alpha",
        encode(Image.fromarray(gray_alpha, "LA"), "PNG"),
        gray_as_color(gray_on_white),
    )
    yield OddPicture("palette", encode(palette, "PNG"), COLOR)
    yield OddPicture(
        "palette, one color transparent",
        encode(palette, "PNG", transparency=1),
        with_white(COLOR, [(0, 1)]),
    )
    yield OddPicture(
        "palette with opacities", encode(palette, "PNG", transparency=opacities), on_white
    )
    yield OddPicture(
        "one color transparent",
        encode(image, "PNG", transparency=(255, 0, 0)),
        with_white(COLOR, [(0, 0)]),
    )
    yield OddPicture(
        "one gray transparent",
        encode(Image.fromarray(GRAY), "PNG", transparency=102),
        with_white(gray, [(0, 2)]),
    )
    yield OddPicture("gray of 4 bits", from_rows(4, 0, packed(nibbles, 4)), gray)
    yield OddPicture(
        "gray of 4 bits, one transparent",
        from_rows(4, 0, packed(nibbles, 4), (b"tRNS", struct.pack(">H", 3))),
        with_white(gray, [(0, 1)]),
    )
    yield OddPicture("gray of 16 bits", from_rows(16, 0, map(bytes, wide)), gray)
    yield OddPicture(
        "12 bits in gray of 16",
        from_rows(16, 0, map(bytes, twelve)),
        gray_as_color(np.round(twelve / 257).astype(np.uint8)),
    )
    yield OddPicture(
        "color of 16 bits", from_rows(16, 2, map(bytes, COLOR * np.uint16(257))), COLOR
    )
    yield OddPicture(
        "1 bit",
        encode(Image.fromarray(GRAY > 100), "PNG"),
        gray_as_color(np.where(GRAY > 100, 255, 0).astype(np.uint8)),
    )
    yield OddPicture(
        "1 bit, black transparent",
        from_rows(1, 0, packed((GRAY > 100).astype(np.uint8), 1), (b"tRNS", b"\0\0")),
        np.full_like(COLOR, 255),
    )
    yield OddPicture("interlaced", from_rows(8, 2, adam7(COLOR), interlaced=True), COLOR)
    yield OddPicture("animated PNG", animated("PNG"), COLOR)
    for order, orientation in zip(["II", "MM"] * 4, range(1, 9), strict=True):
        lying = Image.fromarray(as_stored(COLOR, orientation))
        entry = exif(orientation, order)
        yield OddPicture(
            f"JPEG lying as {orientation} in EXIF",
            encode(lying, "JPEG", exif=entry, quality=95),
            COLOR,
            exact=False,
        )
        yield OddPicture(
            f"PNG lying as {orientation} in EXIF", encode(lying, "PNG", exif=entry), COLOR
        )
    yield OddPicture(
        "WebP lying as 6 in EXIF",
        encode(Image.fromarray(as_stored(COLOR, 6)), "WEBP", lossless=True, exif=exif(6)),
        COLOR,
    )
    yield OddPicture(
        "EXIF without sense", encode(image, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), COLOR
    )
    yield OddPicture("EXIF of 9", encode(image, "PNG", exif=exif(9)), COLOR)
    yield OddPicture("JPEG", encode(image, "JPEG", quality=95), COLOR, exact=False)
    yield OddPicture("JPEG, gray", encode(Image.fromarray(GRAY), "JPEG", quality=95), gray, False)
    yield OddPicture(
        "JPEG, progressive", encode(image, "JPEG", quality=95, progressive=True), COLOR, False
    )
    yield OddPicture("JPEG, CMYK", encode(image.convert("CMYK"), "JPEG", quality=100), COLOR, False)
    yield OddPicture(
        "several views",
        encode(image, "MPO", save_all=True, append_images=[Image.fromarray(255 - COLOR)]),
        COLOR,
        exact=False,
    )
    yield OddPicture("GIF", encode(palette, "GIF"), COLOR)
    yield OddPicture("animated GIF", animated("GIF"), COLOR)
    yield OddPicture("GIF of 4,999 comments", commented(encode(palette, "GIF"), 4_999), COLOR)
    yield OddPicture("BMP", encode(image, "BMP"), COLOR)
    yield OddPicture("BMP with something behind", encode(image, "BMP") + b"\0\0", COLOR)
    yield OddPicture("WebP", encode(image, "WEBP", lossless=True), COLOR)
    yield OddPicture(
        "WebP with alpha",
        encode(Image.fromarray(np.dstack([COLOR, alpha])), "WEBP", lossless=True, exact=True),
        on_white,
    )
    yield OddPicture(
        "one pixel",
        encode(Image.new("RGB", (1, 1), (10, 20, 30)), "PNG"),
        np.broadcast_to(np.array([10, 20, 30], np.uint8), COLOR.shape),
    )
    large = Image.fromarray(COLORS).resize((6000, 4000), Image.Resampling.NEAREST)
    yield OddPicture("6000 x 4000", encode(large, "JPEG", quality=90), COLOR, exact=False)
    thin = Image.new("RGB", (1, 65535), (10, 20, 30))
    yield OddPicture(
        "one column", encode(thin, "PNG"), np.full_like(COLOR, np.array([10, 20, 30], np.uint8))
    )


DAMAGED_GIF = "it is a damaged GIF file"
NO_KIND = "it is not a JPEG, PNG, GIF, BMP or WebP file"
OTHER_BMP = "it is a BMP file of other than 24 bits: save it as PNG"
OTHER_GIF = "it is a GIF file with a transparent color: save it as PNG with an alpha channel"


def _read_with_pillow():
    image = Image.fromarray(COLOR)
    palette = image.quantize(8)
    yield OddPicture("BMP of 8 bits", encode(palette, "BMP"), COLOR, not_served=OTHER_BMP)
    clear = palette.getpixel((0, 0))
    yield OddPicture(
        "GIF, one color transparent",
        encode(palette, "GIF", transparency=clear),
        with_white(COLOR, [(0, 0)]),
        not_served=OTHER_GIF,
    )
    small = bytearray(encode(palette, "GIF"))
    small[6:10] = struct.pack("<HH", 96, 64)  # a canvas of twice the size
    yield OddPicture(
        "GIF whose first frame is a corner",
        bytes(small),
        None,
        not_served="it is a GIF file whose first frame does not fill it: save it as PNG",
    )
    yield OddPicture(
        "animated WebP",
        animated("WEBP", lossless=True),
        COLOR,
        not_served="it is an animated WebP file: save its first frame as PNG",
    )
    yield OddPicture("AVIF", encode(image, "AVIF", quality=95), COLOR, False, not_served=NO_KIND)
    yield OddPicture("QOI", qoi(COLOR), COLOR, not_served=NO_KIND)
    yield OddPicture("TIFF", encode(image, "TIFF"), COLOR, not_served=NO_KIND)
    yield OddPicture(
        "TIFF lying as 8 in EXIF",
        encode(Image.fromarray(as_stored(COLOR, 8)), "TIFF", tiffinfo={274: 8}),
        COLOR,
        not_served=NO_KIND,
    )
    yield OddPicture(
        "TIFF, gray of 16 bits",
        encode(Image.fromarray(GRAY.astype(np.uint16) * 257), "TIFF"),
        gray_as_color(GRAY),
        not_served=NO_KIND,
    )


def _refused():
    whole_png, whole_jpeg = (encode(Image.fromarray(COLOR), kind) for kind in ("PNG", "JPEG"))
    gif = encode(Image.fromarray(GRAY), "GIF")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    avif = encode(Image.fromarray(noise), "AVIF")
    mp4 = b"\0\0\0\x18ftypisom\0\0\2\0isommp42" + b"\0\0\0\x08mdat"
    wide = GRAY.astype(">u2") * 257
    one_gray = (b"tRNS", struct.pack(">H", 257))
    one_color = (b"tRNS", struct.pack(">HHH", 257, 0, 0))
    deep = "it is a PNG file of 16 bits with a transparent color"
    damaged, large = "it cannot be decoded: it is damaged", "it has more than 100 million pixels"
    for name, encoded, refused, not_served in [
        ("empty", b"", "the file is empty", "the file is empty"),
        ("text", b"no image, but text\n" * 9, "it is damaged or no file of the kinds", NO_KIND),
        ("PDF", b"%PDF-1.7\n", "it is damaged or no file of the kinds", NO_KIND),
        ("MP4", mp4, "it is damaged or no file of the kinds", NO_KIND),
        ("half a PNG", whole_png[: len(whole_png) // 2], "", damaged),
        ("half a JPEG", whole_jpeg[: len(whole_jpeg) * 2 // 3], "runcated", damaged),
        ("the beginning of a JPEG", whole_jpeg[:30], "", "it is a damaged JPEG file"),
        ("the beginning of a PNG", whole_png[:20], "", "it is damaged"),
        ("the beginning of a GIF", b"GIF89a\1\0\1\0", "", DAMAGED_GIF),
        ("the beginning of a WebP", b"RIFF\0\0\0\0WEBPVP8 ", "", "it is damaged"),
        ("damaged QOI", qoi(COLOR)[:200], "", NO_KIND),
        ("damaged AVIF", avif[: len(avif) // 2], "", NO_KIND),
        ("60,000 x 60,000", png(60_000, 60_000, 1, 0, [bytes(7500)] * 9), large, large),
        ("12,000 x 12,000", png(12_000, 12_000, 1, 0, [bytes(1500)] * 9), large, large),
        ("70,000 columns", png(70_000, 1, 8, 0, [bytes(70_000)]), large, large),
        (
            "GIF of 5,000 comments",
            commented(gif, 5_000),
            DAMAGED_GIF,
            DAMAGED_GIF,
        ),
        (
            "GIF of 300,000 comments",
            b"GIF89a\x10\0\x10\0\0\0\0" + b"\x21\xfe\1a\0" * 300_000,
            DAMAGED_GIF,
            DAMAGED_GIF,
        ),
        (
            "GIF of a comment in parts",
            b"GIF89a\x10\0\x10\0\0\0\0\x21\xfe" + b"\1a" * 300_000 + b"\0",
            DAMAGED_GIF,
            DAMAGED_GIF,
        ),
        (
            "JPEG of 120 passes",
            many_passes(120),
            "it is a JPEG file of more than 100 passes",
            "it is a JPEG file of more than 100 passes",
        ),
        ("one of 16-bit grays", png(48, 32, 16, 0, map(bytes, wide), one_gray), deep, deep),
        (
            "one of 16-bit colors",
            png(48, 32, 16, 2, map(bytes, COLOR * np.uint16(257)), one_color),
            deep,
            deep,
        ),
        (
            "floating point numbers",
            encode(Image.fromarray(GRAY.astype(np.float32)), "TIFF"),
            "its pixels are floating point numbers",
            NO_KIND,
        ),
        (
            "numbers of 32 bits",
            encode(Image.fromarray(GRAY.astype(np.int32)), "TIFF"),
            "its pixels are numbers of 32 bits",
            NO_KIND,
        ),
    ]:
        yield OddPicture(name, encoded, None, True, refused, not_served)


PICTURES = [*_read_by_all(), *_read_with_pillow(), *_refused()]
NAMES = [picture.name for picture in PICTURES]


def check(picture, pixels, tolerance=0):
    """Compares the decoded picture [32, 48, c] with its right pixels."""
    if picture.pixels is None:  # read, but how is the business of Pillow
        return
    expected = picture.pixels if pixels.shape[-1] == 3 else luma(picture.pixels)
    found, expected = np.asarray(pixels, float), np.asarray(expected, float)
    assert found.shape == (*SHAPE, pixels.shape[-1])
    if pixels.shape[-1] == 1:
        tolerance = max(tolerance, 1)  # Pillow rounds to whole numbers
    if not picture.exact:
        middle = slice(BLOCK // 2, None, BLOCK)
        found, expected, tolerance = found[middle, middle], expected[middle, middle], 3
    np.testing.assert_allclose(found, expected, atol=tolerance, err_msg=picture.name)

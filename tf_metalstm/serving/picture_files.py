"""Reads the headers of image files inside the graph, before a decoder reads the file.

There are two reasons. Some files are refused, because the decoder reads them wrongly, takes all
memory or ends the process (TensorFlow 2.21 with an animated WebP file). And the header has the
orientation of a photograph.

    JPEG   segments: 0xff, marker, length; the frame (SOF) has the size, APP1 the EXIF entry
    PNG    IHDR has the size; the chunk eXIf the EXIF entry
    GIF    the first frame must fill the picture; later frames are cut off
    BMP    24 bits, not compressed
    WebP   not animated; the chunk EXIF
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tf_metalstm.data.sources.decoding import (
    MAX_BEFORE_FRAME,
    MAX_PARTS_BEFORE_FRAME,
    MAX_PIXELS,
    MAX_SCANS,
    MAX_SIDE,
)
from tf_metalstm.episode import Tensor
from tf_metalstm.serving.file_bytes import FileBytes, choose, is_any

JPEG, PNG, PNG_ALPHA, PNG_16, GIF, BMP, WEBP = range(7)
"""Kinds of files; PNG_ALPHA has an opacity, PNG_16 is gray of 16 bits."""

KINDS = "JPEG, PNG, GIF, BMP or WebP"
_ALPHA = "save it as PNG with an alpha channel"
_TOO_LARGE = f"it has more than {MAX_PIXELS // 10**6} million pixels, or more than {MAX_SIDE} in a "
_TOO_LARGE += "row or column: make it smaller"
# A file may have millions of empty parts; only so many are read.
_MOST_SEGMENTS, _MOST_BLOCKS, _MOST_ENTRIES = 2000, 100_000, 500
_ORIENTATION, _LONG = 0x0112, 4  # tag and type of numbers in EXIF


class PictureFile(NamedTuple):
    """The facts about a file that decoding needs.

    kind: one of `JPEG` ... `WEBP`, int32.
    orientation: orientation of the picture, 1 ... 8 as in EXIF, int32.
    length: number of bytes up to the end of the first frame, int64.
    problem: why the file is refused, a string; empty if it can be decoded.
    """

    kind: Tensor
    orientation: Tensor
    length: Tensor
    problem: Tensor


class _Header(NamedTuple):
    """Kind, height, width, position of the EXIF entry or 0, length, problem."""

    kind: Tensor
    height: Tensor
    width: Tensor
    exif: Tensor
    length: Tensor
    problem: Tensor


def inspect(encoded: Tensor) -> PictureFile:
    """Returns the facts in the header of a file, a string []."""
    file = FileBytes(encoded)
    starts = [b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF"]
    readers = [_jpeg, _png, _gif, _bmp, _webp]
    matches = tf.stack([tf.constant(True), *(file.has(0, start) for start in starts)])
    number = tf.reduce_max(tf.where(matches))
    header = _Header(
        *tf.switch_case(
            tf.cast(number, tf.int32),
            [lambda: _unknown(file), *(lambda read=read: read(file) for read in readers)],
        )
    )
    sides = tf.minimum(tf.stack([header.height, header.width]), 1 << 31)
    damaged = tf.reduce_min(sides) < 1
    too_large = (tf.reduce_max(sides) > MAX_SIDE) | (tf.reduce_prod(sides) > MAX_PIXELS)
    problem = _first(
        (header.problem != "", header.problem),
        (damaged, "it is damaged: it has no size"),
        (too_large, _TOO_LARGE),
    )
    orientation = tf.cond(
        header.exif > 0, lambda: _orientation(file, header.exif), lambda: tf.constant(1)
    )
    return PictureFile(header.kind, orientation, header.length, problem)


def _first(*cases: tuple[Tensor, Tensor | str]) -> Tensor:
    """Returns the text of the first case that is true; empty if none is."""
    text: Tensor = tf.constant("")
    for holds, said in reversed(cases):
        text = tf.where(holds, said, text)
    return text


def _header(
    kind: int | Tensor, size: tuple[Tensor, Tensor], exif: Tensor, length: Tensor, problem: Tensor
) -> _Header:
    return _Header(tf.cast(kind, tf.int32), *size, tf.cast(exif, tf.int64), length, problem)


def _unknown(file: FileBytes) -> _Header:
    one = tf.constant(1, tf.int64)
    problem = tf.where(file.size > 0, f"it is not a {KINDS} file", "the file is empty")
    return _header(JPEG, (one, one), 0, file.size, problem)


def _jpeg(file: FileBytes) -> _Header:
    def follow(at: Tensor, frame: Tensor, exif: Tensor, ended: Tensor) -> tuple[Tensor, ...]:
        del ended
        marker, length = file.number(at + 1, 1), file.number(at + 2, 2, big=True)
        is_frame = (marker // 16 == 0xC) & ~is_any(marker, 0xC4, 0xC8, 0xCC)
        is_exif = (marker == 0xE1) & file.has(at + 4, b"Exif\0\0")
        alone = (marker == 1) | (marker // 8 == 0xD0 // 8)
        # At the pixels, at the end, or at bytes that are not a segment.
        ends = (file.number(at, 1) != 0xFF) | is_any(marker, 0x00, 0xDA, 0xD9)
        step = choose(alone, 2, tf.maximum(length, 2) + 2)
        step = choose(marker == 0xFF, 1, step)
        frame = choose((frame == 0) & is_frame & ~ends, at, frame)
        exif = choose((exif == 0) & is_exif & ~ends, at + 10, exif)
        return choose(ends, at, at + step), frame, exif, ends

    zero = tf.constant(0, tf.int64)
    _, frame, exif, _ = tf.while_loop(
        lambda at, frame, exif, ended: ~ended & (at < file.size),
        follow,
        (zero + 2, zero, zero, tf.constant(False)),
        maximum_iterations=_MOST_SEGMENTS,
    )
    usual = is_any(file.number(frame + 1, 1), 0xC0, 0xC1, 0xC2) & file.has(frame + 4, b"\x08")
    usual &= is_any(file.number(frame + 9, 1), 1, 3, 4)
    problem = _first(
        (frame == 0, "it is a damaged JPEG file"),
        (~usual, "it is a JPEG file of a rare kind: save it as PNG"),
        (
            file.count(b"\xff\xda") > MAX_SCANS,
            f"it is a JPEG file of more than {MAX_SCANS} passes: save it as PNG",
        ),
    )
    size = file.number(frame + 5, 2, big=True), file.number(frame + 7, 2, big=True)
    return _header(JPEG, size, exif, file.size, problem)


def _png(file: FileBytes) -> _Header:
    def follow(at: Tensor, mask: Tensor, exif: Tensor) -> tuple[Tensor, ...]:
        mask |= file.has(at + 4, b"tRNS")
        is_exif = (exif == 0) & file.has(at + 4, b"eXIf")
        return at + 12 + file.number(at, 4, big=True), mask, choose(is_exif, at + 8, exif)

    zero = tf.constant(0, tf.int64)
    _, mask, exif = tf.while_loop(
        lambda at, mask, exif: at < file.size,
        follow,
        (zero + 8, tf.constant(False), zero),
        maximum_iterations=_MOST_SEGMENTS,
    )
    width, height = (file.number(at, 4, big=True) for at in (16, 20))
    bits, kind = file.number(24, 1), file.number(25, 1)
    problem = _first(
        (~file.has(12, b"IHDR"), "it is a damaged PNG file"),
        (
            (bits == 16) & mask,
            f"it is a PNG file of 16 bits with a transparent color: {_ALPHA}",
        ),
    )
    # If a file has no opacity and the decoder is asked for one, it returns a wrong one.
    way = choose(mask | is_any(kind, 4, 6), PNG_ALPHA, PNG)
    way = choose((bits == 16) & (kind == 0), PNG_16, way)
    return _header(way, (height, width), exif, file.size, problem)


def _gif(file: FileBytes) -> _Header:
    """Reads the blocks: extensions, then a frame. Each is a chain of parts with their length."""
    before, extension, frame_data, end, wrong = tf.unstack(tf.range(5, dtype=tf.int64))

    def table(at: Tensor) -> Tensor:
        flags = file.number(at, 1)
        return choose(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)

    def follow(
        at: Tensor, part: Tensor, frame: Tensor, transparent: Tensor, parts: Tensor
    ) -> tuple[Tensor, ...]:
        first, is_before = file.number(at, 1), part == before
        is_extension, is_frame = is_before & (first == 0x21), is_before & (first == 0x2C)
        is_control = is_extension & (file.number(at + 1, 1) == 0xF9)
        is_flagged = file.number(at + 3, 1) % 2 == 1  # the last control counts
        transparent = (is_control & is_flagged) | (transparent & ~is_control)
        frame = choose(is_frame, at, frame)
        inside = choose(first > 0, part, choose(part == extension, before, end))
        begun = choose(is_extension, extension, choose(is_frame, frame_data, wrong))
        step = choose(is_frame, 11 + table(at + 9), choose(is_extension, 2, first + 1))
        parts = choose(is_before | (frame > 0), parts, parts + 1)
        return at + step, choose(is_before, begun, inside), frame, transparent, parts

    zero = tf.constant(0, tf.int64)
    at, part, frame, transparent, _ = tf.while_loop(
        lambda at, part, frame, transparent, parts: (
            (part < end) & (at < file.size) & (parts < MAX_PARTS_BEFORE_FRAME)
        ),
        follow,
        (13 + table(10), before, zero, tf.constant(False), zero),
        maximum_iterations=_MOST_BLOCKS,
    )
    width, height = file.number(6, 2), file.number(8, 2)
    place = [file.number(frame + i, 2) for i in (1, 3, 5, 7)]
    fills = tf.reduce_all(tf.stack(place) == tf.stack([zero, zero, width, height]))
    problem = _first(
        ((part != end) | (frame >= MAX_BEFORE_FRAME), "it is a damaged GIF file"),
        (transparent, f"it is a GIF file with a transparent color: {_ALPHA}"),
        (~fills, "it is a GIF file whose first frame does not fill it: save it as PNG"),
    )
    return _header(GIF, (height, width), 0, at, problem)


def _bmp(file: FileBytes) -> _Header:
    width, height = (_signed(file.number(at, 4)) for at in (18, 22))
    plain = (file.number(28, 2) == 24) & (file.number(30, 4) == 0) & (file.number(14, 4) >= 40)
    problem = _first((~plain, "it is a BMP file of other than 24 bits: save it as PNG"))
    height = tf.abs(height)  # a negative height means rows from top to bottom
    length = file.number(10, 4) + (3 * width + 3) // 4 * 4 * height
    length = tf.clip_by_value(length, 0, file.size)  # the decoder fails on bytes after the pixels
    return _header(BMP, (height, width), 0, length, problem)


def _webp(file: FileBytes) -> _Header:
    lossy, lossless, extended = (file.has(12, name) for name in (b"VP8 ", b"VP8L", b"VP8X"))
    bits = file.number(21, 4)
    width = choose(lossy, file.number(26, 2), bits) % 2**14 + tf.cast(lossless, tf.int64)
    height = choose(lossy, file.number(28, 2), bits // 2**14) % 2**14
    height += tf.cast(lossless, tf.int64)
    width = choose(extended, file.number(24, 3) + 1, width)
    height = choose(extended, file.number(27, 3) + 1, height)
    moves = extended & (file.number(20, 1) // 2 % 2 == 1)
    problem = _first(
        (~file.has(8, b"WEBP"), f"it is not a {KINDS} file"),
        (~(lossy | lossless | extended), "it is a damaged WebP file"),
        (moves, "it is an animated WebP file: save its first frame as PNG"),
    )
    entry = file.after(b"EXIF")
    exif = choose(entry > 0, entry + 4, 0)  # after the length
    exif += choose((exif > 0) & file.has(exif, b"Exif\0\0"), 6, 0)
    return _header(WEBP, (height, width), exif, file.size, problem)


def _orientation(file: FileBytes, exif: Tensor) -> Tensor:
    """Returns the orientation in an EXIF entry; 1 if there is none or it is not valid."""
    big = file.has(exif, b"MM")
    table = exif + file.number(exif + 4, 4, big)
    entries = tf.minimum(file.number(table, 2, big), _MOST_ENTRIES)
    places = table + 2 + 12 * tf.range(entries)
    orientations = places[file.number(places, 2, big) == _ORIENTATION]
    at = tf.concat([orientations, [file.size]], 0)[0]
    is_long = file.number(at + 2, 2, big) == _LONG
    value = choose(is_long, file.number(at + 8, 4, big), file.number(at + 8, 2, big))
    good = (big | file.has(exif, b"II")) & (file.number(exif + 2, 2, big) == 42)
    good &= (value >= 1) & (value <= 8)
    return tf.cast(choose(good, value, 1), tf.int32)


def _signed(number: Tensor) -> Tensor:
    return number - choose(number >= 1 << 31, 1 << 32, 0)

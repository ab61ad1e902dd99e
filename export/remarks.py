"""Warnings about pictures that make answers unreliable.

In a support set: blank pictures, the same picture in two classes or twice in one, classes of very
different sizes, only one class. In queries: blank pictures, pictures of the support set, and light
figures on a dark ground while the support pictures have dark figures on a light ground, or the
reverse.

Pictures are compared as thumbnails, so a picture that was saved again as another kind of file or in
another size is found. On mini-ImageNet, Omniglot and photographs of clothes, different pictures are
at least twelve levels apart, and the same picture saved again mostly less than four.

Figures are only compared with their ground in pictures with a plain frame. Drawings and scans have
one; few photographs do.

This file is in `tf_metalstm/serving` and in `export`, twice the same, because `export` must not
need the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

BLANK = 16
"""Largest number of levels between the darkest and the lightest pixel of a blank picture.

12-bit data in a file of 16 bits has that.
"""

_SIDE = 16  # pixels of a side of a thumbnail
_SAME = 4.0  # levels between thumbnails, root mean square
_SAME_SHARE = 0.25  # the same as a share of the deviation of a thumbnail, for pale pictures
_FRAME = 14  # a side divided by the width of the frame
_PLAIN = 32.0  # levels around the median of the frame
_PLAIN_SHARE = 0.8  # share of a plain frame within _PLAIN
_TO_BE_SEEN = 2.0  # levels between the median of the frame and the mean of the picture
_MOST = 0.75  # share of the pictures
_UNEQUAL = 5  # ratio of the sizes of two classes
_NAMES = 5  # names in a sentence
_BYTES = 630  # memory for a pixel of the support set, in an update of the shipped networks
_MUCH = 2.0  # gigabytes
_ROWS = 1024  # thumbnails compared at a time


class Look(NamedTuple):
    """The properties of a picture that warnings need.

    name: name of the file, or its place in a list.
    label: its class; None for a query.
    thumbnail: the picture in small, uint8, at most 16 x 16 x c.
    is_blank: whether all its pixels are nearly the same.
    figure: -1 for a figure darker than its plain ground, 1 for a lighter one, else 0.
    """

    name: str
    label: str | None
    thumbnail: np.ndarray
    is_blank: bool
    figure: int


def look_at(name: str, label: str | None, pixels: np.ndarray) -> Look:
    """Returns the properties of a picture.

    Args:
        name: name of the file, or its place in a list.
        label: its class; None for a query.
        pixels: 0 ... 255, [h, w, c]; all pictures have the same shape.
    """
    pixels = np.asarray(pixels, np.float32)
    is_blank = bool(pixels.max() - pixels.min() <= BLANK)
    return Look(name, label, _thumbnail(pixels), is_blank, 0 if is_blank else _figure(pixels))


def of_support(support: Sequence[Look]) -> list[str]:
    """Returns the warnings about a support set, as sentences."""
    said = [_classes(support), _blank(support, "support"), *_same_within(support)]
    return [sentence for sentence in said if sentence]


def of_size(
    number: int, image_shape: Sequence[int], learns_by_updates: bool, batch_size: int | None = None
) -> list[str]:
    """Returns a warning if adapting to the support set takes much memory.

    Args:
        number: number of support pictures.
        image_shape: (h, w, c) of the model.
        learns_by_updates: whether the model makes updates.
        batch_size: number of pictures of an update; None for all.
    """
    at_once = number if batch_size is None else min(number, batch_size)
    gigabytes = _BYTES * at_once * image_shape[0] * image_shape[1] / 1e9
    if not learns_by_updates or gigabytes < _MUCH:
        return []
    return [
        f"Each update takes {at_once} support pictures at once. A network as those that are "
        f"shipped needs about {gigabytes:.0f} GB of memory for that: take fewer of each class."
    ]


def of_queries(support: Sequence[Look], queries: Sequence[Look]) -> list[str]:
    """Returns the warnings about queries to a model that has adapted to this support set.

    Without a support set, as with a classifier that was saved, only blank queries are found.
    """
    said = [_blank(queries, "query")]
    if support:
        said += [_among(support, queries), _inverted(support, queries)]
    return [sentence for sentence in said if sentence]


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    for axis in (0, 1):
        size = pixels.shape[axis]
        parts = min(_SIDE, size)
        starts = np.arange(parts) * size // parts
        sums = np.add.reduceat(pixels, starts, axis, dtype=np.float32)
        lengths = np.diff([*starts, size]).astype(np.float32)
        pixels = sums / lengths.reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
    return np.rint(pixels).astype(np.uint8)


def _figure(pixels: np.ndarray) -> int:
    gray = pixels.mean(axis=-1)
    height, width = gray.shape
    rows, columns = max(1, height // _FRAME), max(1, width // _FRAME)
    is_frame = np.ones(gray.shape, bool)
    is_frame[rows : height - rows, columns : width - columns] = False
    frame = gray[is_frame]
    ground = np.median(frame)
    above = gray.mean() - ground
    if np.mean(np.abs(frame - ground) <= _PLAIN) < _PLAIN_SHARE or abs(above) < _TO_BE_SEEN:
        return 0
    return 1 if above > 0 else -1


def _classes(support: Sequence[Look]) -> str:
    sizes: dict[str | None, int] = {}
    for look in support:
        sizes[look.label] = sizes.get(look.label, 0) + 1
    few, many = min(sizes, key=lambda n: sizes[n]), max(sizes, key=lambda n: sizes[n])
    if len(sizes) == 1:
        return f"{many} is the only class: every picture gets this answer."
    if sizes[many] < _UNEQUAL * sizes[few]:
        return ""
    return (
        f"The classes differ in size: {few} has {sizes[few]} of the support pictures, {many} has "
        f"{sizes[many]}. The answers may lean towards the larger ones: take about as many of each."
    )


def _blank(looks: Sequence[Look], kind: str) -> str:
    blank = [_of_class(look) for look in looks if look.is_blank]
    if not blank:
        return ""
    return (
        f"{_number(blank, kind)} blank, or nearly so (no two pixels differ by more than {BLANK} "
        f"of 255 levels): {_list(blank)}. The model can neither learn from that nor classify it."
    )


def _same_within(support: Sequence[Look]) -> list[str]:
    labels = np.array([str(look.label) for look in support])
    places = np.arange(len(support))

    def before(row: int, of_its_class: bool) -> np.ndarray:
        return (places < row) & ((labels == labels[row]) == of_its_class)

    said = []
    elsewhere = _same(support, support, lambda row: before(row, False))
    if elsewhere:
        pairs = [f"{_of_class(support[i])} and {_of_class(support[j])}" for i, j in elsewhere]
        said.append(
            f"The same picture is in two classes: {_list(pairs)}. The model cannot learn from it "
            "which is right: remove it from one."
        )
    again = _same(support, support, lambda row: before(row, True))
    if again:
        pairs = [f"{_of_class(support[i])} is {support[j].name}" for i, j in again]
        said.append(
            f"The same picture is in a class more than once: {_list(pairs)}. It counts each time, "
            "and adds nothing new."
        )
    return said


def _among(support: Sequence[Look], queries: Sequence[Look]) -> str:
    pairs = _same(queries, support, lambda row: True)
    overlaps = [f"{queries[i].name} is {_of_class(support[j])}" for i, j in pairs]
    if not overlaps:
        return ""
    return (
        f"{_number(overlaps, 'query')} among the support pictures: {_list(overlaps)}. An "
        "accuracy that counts them is too high."
    )


def _inverted(support: Sequence[Look], queries: Sequence[Look]) -> str:
    for figure, ours, theirs in ((-1, "darker", "lighter"), (1, "lighter", "darker")):
        opposite = [look.name for look in queries if look.figure == -figure]
        alike = sum(look.figure == figure for look in support)
        if alike >= _MOST * len(support) and opposite and len(opposite) >= _MOST * len(queries):
            return (
                f"The figures of the support pictures are {ours} than their ground, those of "
                f"{len(opposite)} of {len(queries)} query pictures {theirs}: {_list(opposite)}. "
                "The model takes them for different things: invert one of the two."
            )
    return ""


def _same(
    some: Sequence[Look],
    others: Sequence[Look],
    allowed: Callable[[int], np.ndarray | bool],
) -> list[tuple[int, int]]:
    """Returns pairs of places: of a picture, and of the first equal picture in others.

    Args:
        some: pictures; blank ones are skipped.
        others: pictures to compare with.
        allowed: function from the place of a picture to the others that count, bool [others].
    """
    right = _flat(others)
    squares = np.mean(right**2, axis=1)
    most = np.minimum(_SAME, _SAME_SHARE * np.std(right, axis=1)) ** 2
    most[[look.is_blank for look in others]] = -1.0
    pairs = []
    for start in range(0, len(some), _ROWS):
        rows = some[start : start + _ROWS]
        left = _flat(rows)
        products = left @ right.T * (2.0 / right.shape[1])
        distances = np.mean(left**2, axis=1)[:, np.newaxis] + squares - products
        near = np.maximum(distances, 0.0) <= most
        for row in np.flatnonzero(near.any(axis=1)).tolist():
            counted = near[row] & allowed(start + row)
            if counted.any():
                pairs.append((start + row, int(np.argmax(counted))))
    return [(i, j) for i, j in pairs if not some[i].is_blank]


def _flat(looks: Sequence[Look]) -> np.ndarray:
    return np.stack([look.thumbnail.ravel() for look in looks]).astype(np.float32)


def _of_class(look: Look) -> str:
    return look.name if look.label is None else f"{look.name} ({look.label})"


def _number(names: Sequence[str], kind: str) -> str:
    return f"1 {kind} picture is" if len(names) == 1 else f"{len(names)} {kind} pictures are"


def _list(names: Iterable[str]) -> str:
    names = list(names)
    more = f"; and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return "; ".join(names[:_NAMES]) + more

"""What makes an answer worth little or nothing, found in the pictures before it is believed.

Of a support set: blank pictures, the same picture in two classes or twice in one, a class of few
pictures beside one of many, one class alone. Of queries: blank ones, some that are among the
support set, and figures lighter than their ground where those of the support set are darker, or
the other way round.

Pictures are compared as thumbnails, so that one saved a second time, as another kind of file or
in another size, is still the same. On mini-ImageNet, Omniglot and photographs of clothes different
pictures are at least twelve levels apart, and the same ones saved again mostly less than four.

Whether figures are darker is asked only of pictures with a plain frame, which drawings and
scans have and few photographs do.

This file lies in `tf_metalstm/serving` and in `export`, in both the same: what is in `export` must
not need the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

_SIDE = 16  # of a thumbnail
_BLANK = 16  # levels between the darkest and the lightest pixel; 12 bits in 16 have no more
_SAME = 4.0  # levels between thumbnails, root mean square
_SAME_SHARE = 0.25  # of the deviation of a thumbnail, for pale pictures
_FRAME = 14  # the frame is one part in so many of a side
_PLAIN = 32.0  # levels around the median of the frame
_PLAIN_SHARE = 0.8  # of the frame
_TO_BE_SEEN = 2.0  # levels between the median of the frame and the mean of the picture
_MOST = 0.75  # of the pictures
_UNEQUAL = 5  # times as many pictures
_NAMES = 5  # so many are said
_BYTES = 630  # of memory for a pixel of the support set in an update of the shipped networks
_MUCH = 2.0  # gigabytes
_ROWS = 1024  # thumbnails that are compared at a time


class Look(NamedTuple):
    """What is remembered of a picture.

    name: of the file, or its place in a list.
    label: its class; None for a query.
    thumbnail: mean levels of its parts, uint8, at most 16 x 16 x c.
    is_blank: whether all its pixels are nearly the same.
    figure: -1 for a figure darker than its plain ground, 1 for a lighter one, else 0.
    """

    name: str
    label: str | None
    thumbnail: np.ndarray
    is_blank: bool
    figure: int


def look_at(name: str, label: str | None, pixels: np.ndarray) -> Look:
    """Returns what is remembered of a picture.

    Args:
        name: of the file, or its place in a list.
        label: its class; None for a query.
        pixels: 0 ... 255, [h, w, c]; of all pictures in the same shape.
    """
    pixels = np.asarray(pixels, np.float32)
    is_blank = bool(pixels.max() - pixels.min() <= _BLANK)
    return Look(name, label, _thumbnail(pixels), is_blank, 0 if is_blank else _figure(pixels))


def of_support(support: Sequence[Look]) -> list[str]:
    """Returns what is to be said of a support set, in sentences."""
    said = [_classes(support), _blank(support, "support"), *_same_within(support)]
    return [sentence for sentence in said if sentence]


def of_size(
    number: int, image_shape: Sequence[int], learns_by_updates: bool, batch_size: int | None = None
) -> list[str]:
    """Returns what is to be said of the memory that adapting to so many pictures takes.

    Args:
        number: of support pictures.
        image_shape: (h, w, c) of the model.
        learns_by_updates: whether it makes any.
        batch_size: pictures of an update; None for all.
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
    """Returns what is to be said of queries to a model that has adapted to this support set."""
    said = [_blank(queries, "query"), _among(support, queries), _inverted(support, queries)]
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
        return f"{many} is the only class: whatever is asked about, that is the answer."
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
        f"{_number(blank, kind)} blank, or nearly so (no two pixels differ by more than {_BLANK} "
        f"of 255 levels): {_list(blank)}. Nothing can be learned or told of that."
    )


def _same_within(support: Sequence[Look]) -> list[str]:
    labels = np.array([str(look.label) for look in support])
    places = np.arange(len(support))

    def before(row: int, of_its_class: bool) -> np.ndarray:
        return (places < row) & ((labels == labels[row]) == of_its_class)

    said = []
    elsewhere = _same(support, support, lambda row: before(row, False))
    if elsewhere:
        found = [f"{_of_class(support[i])} and {_of_class(support[j])}" for i, j in elsewhere]
        said.append(
            f"The same picture is in two classes: {_list(found)}. They cannot be told apart by it: "
            "take it out of one."
        )
    again = _same(support, support, lambda row: before(row, True))
    if again:
        found = [f"{_of_class(support[i])} is {support[j].name}" for i, j in again]
        said.append(
            f"The same picture is in a class more than once: {_list(found)}. It counts as often, "
            "and tells nothing new."
        )
    return said


def _among(support: Sequence[Look], queries: Sequence[Look]) -> str:
    pairs = _same(queries, support, lambda row: True)
    found = [f"{queries[i].name} is {_of_class(support[j])}" for i, j in pairs]
    if not found:
        return ""
    return (
        f"{_number(found, 'query')} among the support pictures: {_list(found)}. An accuracy that "
        "counts them is too high."
    )


def _inverted(support: Sequence[Look], queries: Sequence[Look]) -> str:
    for figure, ours, theirs in ((-1, "darker", "lighter"), (1, "lighter", "darker")):
        opposite = [look.name for look in queries if look.figure == -figure]
        alike = sum(look.figure == figure for look in support)
        if alike >= _MOST * len(support) and opposite and len(opposite) >= _MOST * len(queries):
            return (
                f"The figures of the support pictures are {ours} than their ground, those of "
                f"{len(opposite)} of {len(queries)} query pictures {theirs}: {_list(opposite)}. To "
                "the model that is something else: invert one of the two."
            )
    return ""


def _same(
    some: Sequence[Look],
    others: Sequence[Look],
    allowed: Callable[[int], np.ndarray | bool],
) -> list[tuple[int, int]]:
    """Returns the places of pictures, each with that of the first one that is the same.

    Args:
        some: pictures; blank ones are passed over.
        others: where the same are looked for.
        allowed: from the place of a picture to those of others that count, bool [others].
    """
    right = _flat(others)
    squares = np.mean(right**2, axis=1)
    most = np.minimum(_SAME, _SAME_SHARE * np.std(right, axis=1)) ** 2
    most[[look.is_blank for look in others]] = -1.0
    found = []
    for start in range(0, len(some), _ROWS):
        rows = some[start : start + _ROWS]
        left = _flat(rows)
        products = left @ right.T * (2.0 / right.shape[1])
        distances = np.mean(left**2, axis=1)[:, np.newaxis] + squares - products
        near = np.maximum(distances, 0.0) <= most
        for row in np.flatnonzero(near.any(axis=1)).tolist():
            counted = near[row] & allowed(start + row)
            if counted.any():
                found.append((start + row, int(np.argmax(counted))))
    return [(i, j) for i, j in found if not some[i].is_blank]


def _flat(looks: Sequence[Look]) -> np.ndarray:
    return np.stack([look.thumbnail.ravel() for look in looks]).astype(np.float32)


def _of_class(look: Look) -> str:
    return look.name if look.label is None else f"{look.name} ({look.label})"


def _number(found: Sequence[str], kind: str) -> str:
    return f"1 {kind} picture is" if len(found) == 1 else f"{len(found)} {kind} pictures are"


def _list(names: Iterable[str]) -> str:
    names = list(names)
    more = f"; and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return "; ".join(names[:_NAMES]) + more

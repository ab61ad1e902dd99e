"""Leaves out classes that have too few images for an episode."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tf_metalstm.data.sources.base import ClassImages

_NAMES = 10  # number of names in the message


def large_enough(classes: ClassImages, least: int) -> tuple[ClassImages, dict[str, int]]:
    """Returns the classes that have enough images, and the sizes of the other classes by name.

    Args:
        classes: the classes of a split.
        least: smallest number of images of a class.
    """
    images, sizes, names = classes
    small = {name: int(n) for name, n in zip(names, sizes, strict=True) if n < least}
    if not small:
        return classes, {}
    kept = sizes >= least
    rows = np.repeat(kept, sizes)
    kept_names = tuple(name for name, is_kept in zip(names, kept, strict=True) if is_kept)
    return ClassImages(images[rows], sizes[kept], kept_names), small


def describe_small(small: Mapping[str, int], num_classes: int, least: int, where: str) -> str:
    """Returns a sentence about the classes that were left out.

    Args:
        small: sizes by name, of the classes that were left out.
        num_classes: number of all classes.
        least: smallest number of images of a class.
        where: source and split.
    """
    described = [f"{name} ({size})" for name, size in list(small.items())[:_NAMES]]
    if len(small) > _NAMES:
        described.append(f"and {len(small) - _NAMES} more")
    return (
        f"{where}: {len(small)} of {num_classes} classes left out, because they have fewer than "
        f"the {least} images of an episode: {', '.join(described)}"
    )

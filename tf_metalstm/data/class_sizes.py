"""Classes that have too few images for an episode, left out where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tf_metalstm.data.sources.base import ClassImages

_NAMES = 10  # so many are said


def large_enough(classes: ClassImages, least: int) -> tuple[ClassImages, dict[str, int]]:
    """Returns the classes that have so many images, and the sizes of the others by name.

    Args:
        classes: of a split.
        least: images that a class must have.
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
    """Returns what was left out, in a sentence.

    Args:
        small: sizes by name, of the classes that were left out.
        num_classes: that there were, these included.
        least: images that a class must have.
        where: source and split.
    """
    described = [f"{name} ({size})" for name, size in list(small.items())[:_NAMES]]
    if len(small) > _NAMES:
        described.append(f"and {len(small) - _NAMES} more")
    return (
        f"{where}: {len(small)} of {num_classes} classes left out, which have fewer than the "
        f"{least} images of an episode: {', '.join(described)}"
    )

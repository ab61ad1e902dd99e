"""Splits classes into train, validation and test by a seed, for data without a split."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from tf_metalstm.data.sources.base import SPLITS, InconsistentDataError
from tf_metalstm.options import OptionError, Options, option


@dataclass(frozen=True)
class ClassSplitOptions(Options):
    """How the classes are split if the data have no split."""

    split_seed: int = option(
        0,
        "Random seed of the split of the classes, for data without a split.",
        at_least=0,
        settled=True,
        alike=True,
    )
    split_fractions: tuple[float, ...] = option(
        (0.6, 0.2, 0.2),
        "Fractions of the classes for train, validation and test, for data without a split.",
        at_least=0,
        settled=True,
        alike=True,
    )


def check_fractions(fractions: tuple[float, ...]) -> None:
    """Checks the fractions of the classes.

    Raises:
        OptionError: they are not three numbers, do not add up to 1, or the first is 0.
    """
    if len(fractions) != len(SPLITS) or abs(sum(fractions) - 1.0) > 1e-6 or not fractions[0]:
        text = ",".join(f"{fraction:g}" for fraction in fractions) or "none"
        raise OptionError(
            "split_fractions",
            "must be three parts that add up to 1, TRAIN,VALIDATION,TEST, the first above 0, as "
            f"0.6,0.2,0.2; got {text}.",
        )


def split_by_seed(
    class_names: Iterable[str], seed: int, fractions: tuple[float, ...]
) -> dict[str, str]:
    """Returns {class name: split}, pseudo-random but the same on every machine.

    A split whose fraction is above 0 has at least one class. If classes are added, the order of the
    others does not change, but some may move to another split.

    Args:
        class_names: names of all classes.
        seed: seed of the order.
        fractions: fractions of train, validation and test, which add up to 1.

    Raises:
        InconsistentDataError: there are fewer classes than splits.
    """

    def key(name: str) -> bytes:
        return hashlib.sha256(f"{seed} {name}".encode()).digest()

    ordered = sorted(class_names, key=key)
    used = [split for split, fraction in zip(SPLITS, fractions, strict=True) if fraction]
    if len(ordered) < len(used):
        raise InconsistentDataError(
            f"{len(ordered)} classes found, but the splits {', '.join(used)} need one each: add "
            "classes, or set split_fractions=1,0,0 to train on all of them"
        )
    sizes = _sizes(len(ordered), fractions)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return {
        name: next(split for split, end in zip(SPLITS, ends, strict=True) if number < end)
        for number, name in enumerate(ordered)
    }


def _sizes(total: int, fractions: tuple[float, ...]) -> list[int]:
    """Returns the number of classes of each split, at least one if its fraction is not 0."""
    sizes = [max(1, round(total * part)) if part else 0 for part in fractions]
    while sum(sizes) != total:
        step = 1 if sum(sizes) < total else -1
        # Correct the size with the largest rounding error, but leave no split empty.
        may_change = [i for i, size in enumerate(sizes) if size and size + step > 0]
        worst = max(may_change, key=lambda i: step * (total * fractions[i] - sizes[i]))
        sizes[worst] += step
    return sizes

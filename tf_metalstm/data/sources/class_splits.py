"""Classes to train, validation and test, by a seed: for data that bring no split of the classes."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from tf_metalstm.data.sources.base import SPLITS, InconsistentDataError
from tf_metalstm.options import OptionError, Options, option


@dataclass(frozen=True)
class ClassSplitOptions(Options):
    """How the classes are split where the data do not say it."""

    split_seed: int = option(
        0,
        "Random seed of the split of the classes, where the data do not bring one.",
        at_least=0,
        settled=True,
        alike=True,
    )
    split_fractions: tuple[float, ...] = option(
        (0.6, 0.2, 0.2),
        "Parts of the classes for train, validation and test, where the data bring no split.",
        at_least=0,
        settled=True,
        alike=True,
    )


def check_fractions(fractions: tuple[float, ...]) -> None:
    """Checks the parts of the classes.

    Raises:
        OptionError: they are not three, do not add up to 1, or leave nothing to train on.
    """
    if len(fractions) != len(SPLITS) or abs(sum(fractions) - 1.0) > 1e-6 or not fractions[0]:
        said = ",".join(f"{one:g}" for one in fractions) or "none"
        raise OptionError(
            "split_fractions",
            "must be three parts that add up to 1, TRAIN,VALIDATION,TEST, the first above 0, as "
            f"0.6,0.2,0.2; got {said}.",
        )


def split_by_seed(
    class_names: Iterable[str], seed: int, fractions: tuple[float, ...]
) -> dict[str, str]:
    """{class name: split}, pseudo-random and the same on every machine.

    A split whose part is above 0 has at least one class. A class keeps its place in the order when
    others are added; whether it stays in its split depends on how many they are.

    Args:
        class_names: of all classes.
        seed: of the order.
        fractions: parts of train, validation and test, which add up to 1.

    Raises:
        InconsistentDataError: there are fewer classes than splits.
    """

    def place(name: str) -> bytes:
        return hashlib.sha256(f"{seed} {name}".encode()).digest()

    ordered = sorted(class_names, key=place)
    wanted = [split for split, part in zip(SPLITS, fractions, strict=True) if part]
    if len(ordered) < len(wanted):
        raise InconsistentDataError(
            f"{len(ordered)} classes found, but the splits {', '.join(wanted)} need one each: add "
            "classes, or give split_fractions=1,0,0 to train on all of them"
        )
    sizes = _sizes(len(ordered), fractions)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return {
        name: next(split for split, end in zip(SPLITS, ends, strict=True) if place < end)
        for place, name in enumerate(ordered)
    }


def _sizes(total: int, fractions: tuple[float, ...]) -> list[int]:
    """How many classes each split has: rounded, at least one where any are wanted."""
    sizes = [max(1, round(total * part)) if part else 0 for part in fractions]
    while sum(sizes) != total:
        step = 1 if sum(sizes) < total else -1
        # Where the rounding went furthest astray, and no split is emptied.
        may_change = [i for i, size in enumerate(sizes) if size and size + step > 0]
        place = max(may_change, key=lambda i: step * (total * fractions[i] - sizes[i]))
        sizes[place] += step
    return sizes

"""Uses a model on a server like a loaded model, for the estimate and "none of these".

The calls of `adapted.py` become requests. All pictures are sent as files once more than for the
answers. For a model that learns by updates, the support pictures are sent up to five times. Needs
numpy, and the other files of this folder.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from folders import ClientError, read

NONE_OF_THESE = "none of these"
"""The answer for a picture that belongs to none of the classes."""

_FALSE_ALARMS = 0.05  # as in estimate.py, which needs numpy

Ask = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


class Value(NamedTuple):
    """An array with the method `numpy` of a tensor."""

    array: Any

    def numpy(self) -> Any:
        """Returns the array."""
        return self.array


class ServedModel:
    """A model on a server.

    Args:
        inputs: names of the inputs of each signature.
        ask: sends the name of a signature and arrays; returns arrays by name.

    Attributes:
        signatures: functions by name, which take and return `Value`s.
    """

    def __init__(self, inputs: Mapping[str, Sequence[str]], ask: Ask) -> None:
        self.signatures = {name: _Signature(name, names, ask) for name, names in inputs.items()}


class _Signature:
    def __init__(self, name: str, inputs: Sequence[str], ask: Ask) -> None:
        self._name, self._ask = name, ask
        self.structured_input_signature = ((), dict.fromkeys(inputs))

    def __call__(self, **inputs: Any) -> dict[str, Value]:
        plain = {n: one.array if isinstance(one, Value) else one for n, one in inputs.items()}
        return {name: Value(array) for name, array in self._ask(self._name, plain).items()}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a client of a server about the estimate and "none of these"."""
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="estimate the accuracy, and name support pictures that look mislabelled",
    )
    parser.add_argument(
        "--none_of_these",
        type=share,
        nargs="?",
        const=_FALSE_ALARMS,
        metavar="SHARE",
        help='answer "none of these" for pictures of other things; this share of your own pictures '
        f"may get that answer by mistake, default {_FALSE_ALARMS}",
    )


def share(text: str) -> float:
    """Returns the value of --none_of_these.

    Raises:
        ClientError: it is not between 0 and 1.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < 1.0:
        raise ClientError(
            f"--none_of_these must be between 0 and 1, got {text or 'nothing'}: give 0.05 for one "
            "in twenty."
        )
    return value


def known_names(classes: Iterable[str], options: argparse.Namespace) -> list[str]:
    """Returns the names that folders of queries may have."""
    return [*classes, *([] if options.none_of_these is None else [NONE_OF_THESE])]


def foreign(
    model: ServedModel,
    classes: Mapping[str, Sequence[Path]],
    queries: Sequence[Path],
    options: argparse.Namespace,
) -> list[bool]:
    """Returns whether each query is none of the classes; writes the estimate to stderr.

    Args:
        model: the model.
        classes: the files of the support set.
        queries: the files of the queries.
        options: the flags of `add_flags`, and num_steps.

    Raises:
        ClientError: numpy is not installed, or the server returns an error.
    """
    if not options.estimate and options.none_of_these is None:
        return [False] * len(queries)
    try:
        import numpy as np
        from adapted import Adapted
        from estimate import sentences, threshold
    except ImportError as error:
        raise ClientError(f"--estimate and --none_of_these need numpy ({error}).") from error

    def files(paths: Sequence[Path]) -> Any:
        contents = np.empty([len(paths)], object)
        contents[:] = [read(path) for path in paths]
        return contents

    pairs = [(path, name) for name, paths in classes.items() for path in paths]
    paths, labels = [path for path, _ in pairs], [name for _, name in pairs]
    adapted = Adapted(model, files(paths), labels, options.num_steps, "_encoded")
    estimate = adapted.estimate()
    if options.estimate:
        for one in sentences(estimate, adapted.numbers, list(map(str, paths)), adapted.class_names):
            print(one, file=sys.stderr)
    if options.none_of_these is None:
        return [False] * len(queries)
    near = adapted.answers(files(queries)).near
    return list(near < threshold(estimate.nearness, options.none_of_these))

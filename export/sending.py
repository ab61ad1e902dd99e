"""Sends files to a served model; handles files that it cannot read, and warnings.

A server names only the first file that it cannot read. With `skip_corrupt`, `adapted` and
`answered` leave this file out and send the request again. Needs Python; warnings about pictures
also need numpy and pillow.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folders import ClientError, bad_image, sentence, unreadable, warn

if TYPE_CHECKING:
    from remarks import Look

Classes = Mapping[str, Sequence[Path]]

_OFFER = "Leave such files out with --skip_corrupt."


class ServerError(ClientError):
    """An error that the server returns for a request."""


def adapted(
    ask: Callable[[Classes], Any], classes: Classes, skip_corrupt: bool
) -> tuple[Any, Classes]:
    """Adapts to the files of each class.

    Args:
        ask: sends a request to adapt; raises ServerError.
        classes: the image files of each class.
        skip_corrupt: whether files that the model cannot read are left out and named.

    Returns:
        The answer, and the files in the request.
    """

    def send(files: Sequence[tuple[str, Path]]) -> Any:
        left = {name: [path for n, path in files if n == name] for name in classes}
        for name, paths in left.items():
            if not paths:
                raise ClientError(f"None of the images of class '{name}' can be read.")
        return ask(left)

    pairs = [(name, path) for name, paths in classes.items() for path in paths]
    answer, taken = _sent(send, pairs, "support", skip_corrupt)
    return answer, {name: [path for n, path in taken if n == name] for name in classes}


def answered(
    ask: Callable[[Sequence[Path]], Any], queries: Sequence[Path], skip_corrupt: bool
) -> tuple[Any, list[Path]]:
    """Sends queries, as `adapted` does; returns the answer and the files in the request."""

    def send(files: Sequence[tuple[str, Path]]) -> Any:
        if not files:
            raise ClientError("None of the images to classify can be read.")
        return ask([path for _, path in files])

    answer, taken = _sent(send, [("", path) for path in queries], "query", skip_corrupt)
    return answer, [path for _, path in taken]


def warn_of(classes: Classes, queries: Sequence[Path], shape: Sequence[int]) -> None:
    """Writes warnings about pictures that make answers unreliable to stderr.

    Args:
        classes: the files of the support set.
        queries: the files of the queries.
        shape: (h, w, c) of the model's images.
    """
    try:
        from remarks import of_queries, of_support
    except ImportError:
        print(
            "note: the pictures are not checked for blank, equal and inverted ones: that needs "
            "numpy and pillow",
            file=sys.stderr,
        )
        return
    support = list(
        itertools.chain.from_iterable(_looks(paths, name, shape) for name, paths in classes.items())
    )
    if support:
        warn([*of_support(support), *of_queries(support, _looks(queries, None, shape))])


def _looks(paths: Iterable[Path], label: str | None, shape: Sequence[int]) -> list[Look]:
    """Returns the properties of the files that Pillow can read."""
    from decoding import UnreadableImageError
    from images import read_image
    from remarks import look_at

    looks = []
    for path in paths:
        try:
            looks.append(look_at(str(path), label, read_image(path, shape)))
        except UnreadableImageError:  # the server could read it
            continue
    return looks


def _sent(
    send: Callable[[Sequence[tuple[str, Path]]], Any],
    files: Sequence[tuple[str, Path]],
    part: str,
    skip_corrupt: bool,
) -> tuple[Any, Sequence[tuple[str, Path]]]:
    left = list(files)
    while True:
        try:
            return send(left), left
        except ServerError as error:
            bad = bad_image(str(error), part)
            if bad is None or bad[0] >= len(left):
                raise ServerError(sentence(str(error))) from error
            place, reason = bad
            path = left.pop(place)[1]
            if not skip_corrupt:
                raise ServerError(f"{unreadable(path, reason)}. {_OFFER}") from error
            print(f"skipped: {unreadable(path, reason)}", file=sys.stderr)

"""Sources by name, for flags and settings."""

import inspect
import os
from collections.abc import Callable
from typing import Any

from tf_metalstm.data.sources.base import Source
from tf_metalstm.data.sources.glyphs import Glyphs
from tf_metalstm.data.sources.mini_imagenet import MiniImagenet
from tf_metalstm.data.sources.omniglot import Omniglot

_SOURCES: dict[str, Callable[..., Source]] = {
    source.name: source for source in (Glyphs, Omniglot, MiniImagenet)
}

SOURCE_NAMES = tuple(_SOURCES)
"""The names that `make_source` knows."""


def make_source(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    prepared_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Source:
    """Makes a source; touches no disk before it is asked for images.

    Args:
        name: one of `SOURCE_NAMES`.
        data_dir: folder with the raw files; a source that draws its own images
            has no use for it and ignores it.
        prepared_dir: where prepared data are kept; by default
            `tf_metalstm.data.sources.prepared.default_prepared_dir()`.
        **options: options of that source, such as `rotations` of omniglot.

    Raises:
        ValueError: the name or an option is unknown; the known ones are listed.
    """
    if name not in _SOURCES:
        raise ValueError(f"unknown source {name!r}: use one of {', '.join(SOURCE_NAMES)}")
    source = _SOURCES[name]
    accepted = set(inspect.signature(source).parameters)
    common = {"data_dir": data_dir, "prepared_dir": prepared_dir}
    known = sorted(accepted - set(common))
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"source {name} has no option {', '.join(unknown)}: "
            f"use {', '.join(known) or 'none, it has no options'}"
        )
    return source(**{k: v for k, v in common.items() if k in accepted}, **options)

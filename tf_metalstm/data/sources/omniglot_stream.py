"""Streams of Omniglot's characters, for memory-augmented networks."""

from __future__ import annotations

from dataclasses import dataclass

from tf_metalstm.data.sources.omniglot import Omniglot, OmniglotClassOptions
from tf_metalstm.data.streams import StreamOptions, StreamTasks
from tf_metalstm.parts import Part


@dataclass(frozen=True)
class OmniglotStreamOptions(OmniglotClassOptions, StreamOptions):
    """Options of streams of Omniglot."""


class OmniglotStream(StreamTasks):
    """Streams of the drawings of Omniglot."""

    part = Part(
        "omniglot_stream",
        "Streams of Omniglot's characters",
        "Santoro et al., ICML 2016",
        OmniglotStreamOptions,
    )

    @classmethod
    def from_options(cls, options: OmniglotStreamOptions) -> StreamTasks:  # type: ignore[override]
        return cls.of_stream(Omniglot.of_classes(options), options)

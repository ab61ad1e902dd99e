"""Words in figures that are not ours: names of classes and of runs."""

from __future__ import annotations

from tf_metalstm.files import printable

_LONGEST = 40  # a longer name would leave no room for what is drawn


def name_in_figure(name: str) -> str:
    """Returns a name in one line, not too long; to be drawn with parse_math=False."""
    plain = printable(name)
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 1]}\u2026"

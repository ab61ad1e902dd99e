"""Names of classes and runs in figures."""

from __future__ import annotations

from tf_metalstm.files import printable

_LONGEST = 40  # a longer name would leave no room for the plot


def name_in_figure(name: str) -> str:
    """Returns a name in one short line; draw it with parse_math=False."""
    plain = printable(name)
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 1]}\u2026"

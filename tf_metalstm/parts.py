"""Parts, of which a run consists, and families of parts.

A *part* is a method, a rule, a start, a learner or a source. It is one file, and one line in the
table of its family:

    RULES = Family("rule", "How the learner's parameters move.", (MetaLSTM, SGD, MetaSGD))

A member of a family is a class with an attribute `part` and a class method that builds it from its
options. `Family.add` adds members from outside the package, see `tf_metalstm.catalogue`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from tf_metalstm.options import Options, options_of


@dataclass(frozen=True)
class Part:
    """The facts about a part.

    name: name in flags; small letters, digits and underscores.
    title: name in words, for tables and help.
    paper: the paper that it comes from, or "".
    options: the class of its options.
    needs: names of the families from which it needs a member.
    """

    name: str
    title: str
    paper: str = ""
    options: type[Options] = Options
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(
                f"The name of a part has small letters, digits and underscores, got {self.name!r}."
            )


class Member(Protocol):
    """A class that is a part."""

    part: ClassVar[Part]
    family: ClassVar[str]


class Family:
    """The members of a family by name.

    Args:
        name: name of the family, and of the flag that chooses a member.
        text: one sentence for the help.
        members: the members in the package.
        default: name of the default member; None for the first one.
    """

    def __init__(self, name: str, text: str, members: Sequence[Any], default: str | None = None):
        self.name, self.text = name, text
        self._members: dict[str, Any] = {}
        for member in members:
            self.add(member)
        self.default = default or next(iter(self._members))

    def add(self, member: Any) -> None:
        """Adds a member; does nothing if the family has it already.

        Raises:
            ValueError: it does not belong to this family, or another member has its name.
        """
        part = getattr(member, "part", None)
        if not isinstance(part, Part) or getattr(member, "family", None) != self.name:
            raise ValueError(
                f"{member!r} is not a {self.name}: it needs the attributes part = Part(...) and "
                f"family = {self.name!r}."
            )
        known = self._members.setdefault(part.name, member)
        if known is not member:
            raise ValueError(
                f"Two members of {self.name} have the name {part.name!r}, {known!r} and "
                f"{member!r}: rename one of them."
            )

    def remove(self, name: str) -> None:
        """Removes a member, for tests that added one."""
        del self._members[name]

    def __getitem__(self, name: str) -> Any:
        """Returns the member with a name.

        Raises:
            ValueError: no member has this name.
        """
        if name not in self._members:
            raise ValueError(
                f"{self.name} must be one of {', '.join(self._members)}, got {name!r}."
            )
        return self._members[name]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._members.values())

    def names(self) -> tuple[str, ...]:
        """Returns the names of all members."""
        return tuple(self._members)


def all_options(family: Family) -> Iterator[tuple[Any, str]]:
    """Yields (member, name of an option) for all options of all members."""
    for member in family:
        for name in options_of(member.part.options):
            yield member, name

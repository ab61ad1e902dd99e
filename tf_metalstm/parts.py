"""Parts and families: what a run is put together from, and how a new member is found.

A *part* is a method, a rule, a start, a learner or a source. It is one file, which ends up as one
line in the table of its family:

    RULES = Family("rule", "How the learner's parameters move.", (MetaLSTM, SGD, MetaSGD))

A member is a class with an attribute `part` and a class method that builds it from its options.
Members from elsewhere are added by `Family.add`, see `tf_metalstm.catalogue`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from tf_metalstm.options import Options, options_of


@dataclass(frozen=True)
class Part:
    """Name, title, paper, options and needs of a part.

    name: as flags name it: small letters, digits and underscores.
    title: in words, for tables and help.
    paper: where it is from, or "".
    options: its options.
    needs: families of which it takes a member.
    family: its family where its base class does not say it.
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
        name: of the family and of the flag that chooses a member.
        text: one sentence for the help.
        members: the members that come with the package; the first one is the default.
        default: name of the default instead.
    """

    def __init__(self, name: str, text: str, members: Sequence[Any], default: str | None = None):
        self.name, self.text = name, text
        self._members: dict[str, Any] = {}
        for member in members:
            self.add(member)
        self.default = default or next(iter(self._members))

    def add(self, member: Any) -> None:
        """Adds a member; one that is there already changes nothing.

        Raises:
            ValueError: it is no member of this family, or another one has its name.
        """
        part = getattr(member, "part", None)
        if not isinstance(part, Part) or getattr(member, "family", None) != self.name:
            raise ValueError(
                f"{member!r} is no {self.name}: it needs the attributes part = Part(...) and "
                f"family = {self.name!r}."
            )
        known = self._members.setdefault(part.name, member)
        if known is not member:
            raise ValueError(
                f"Two members of {self.name} are called {part.name!r}, {known!r} and {member!r}: "
                "give one another name."
            )

    def remove(self, name: str) -> None:
        """Takes a member away, for tests that added one."""
        del self._members[name]

    def __getitem__(self, name: str) -> Any:
        """Returns the member of a name.

        Raises:
            ValueError: there is none.
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

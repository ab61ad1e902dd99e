"""Options: the settings of a part, declared once, in the file of the part.

    @dataclass(frozen=True)
    class MatchingNetworksOptions(Options):
        cosine_scale: float = option(1.0, "Scale applied to the cosines.", above=0)

From such a declaration follow the flag of that name, its help, its range, the entry in run.flags
and the tests of it. An option belongs to the class that declares it. What several parts share they
inherit. Nothing here needs TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


class OptionError(ValueError):
    """An option has a value that it cannot have.

    Args:
        name: of the option.
        problem: what is wrong and what to do; follows the name in the message.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name = name


def option(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    may_change: bool = False,
    settled: bool = False,
    alike: bool = False,
    training_only: bool = False,
    only_with: Mapping[str, Any] | None = None,
    is_path: bool = False,
) -> Any:
    """Declares an option; its type is that of the annotation.

    Types are bool, int, float, str, each also `| None`, and tuples of them. The range is that of
    every number in a tuple.

    Args:
        default: the value when nothing is said.
        text: one sentence for the help.
        choices: the values allowed.
        at_least: the lowest value allowed.
        above: every value must be greater than this.
        at_most: the highest value allowed.
        below: every value must be less than this.
        may_change: a run may be continued under another value.
        settled: it is settled when training begins; no command after it may change it.
        alike: two runs must agree on it where one begins at the weights of the other.
        training_only: it has no effect after training.
        only_with: values of other options without which it has no effect; a tuple of several.
        is_path: it is the path of a file or folder; ~ in it is the home folder.
    """
    metadata = {
        "text": text,
        "choices": choices,
        "range": Range(at_least, above, at_most, below),
        "may_change": may_change,
        "settled": settled,
        "alike": alike,
        "training_only": training_only,
        "only_with": dict(only_with or {}),
        "is_path": is_path,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Range:
    """The numbers that an option can have; a bound that is None is no bound."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def holds(self, number: float) -> bool:
        """Returns whether a number is in the range; not-a-number is in none."""
        return (
            not math.isnan(number)
            and (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        words = {"at_least": "at least", "above": "above", "at_most": "at most", "below": "below"}
        bounds = {text: getattr(self, name) for name, text in words.items()}
        return " and ".join(
            f"{text} {bound}" for text, bound in bounds.items() if bound is not None
        )


@dataclass(frozen=True)
class Option:
    """A declared option.

    name: of the option and of its flag.
    kind: bool, int, float or str.
    many: it is a tuple of such.
    optional: it may be None.
    default: the value when nothing is said.
    owner: the class that declares it.
    The rest is as `option` takes it.
    """

    name: str
    kind: type
    many: bool
    optional: bool
    default: Any
    owner: type[Options]
    text: str
    choices: tuple[str, ...] | None
    range: Range
    may_change: bool
    settled: bool
    alike: bool
    training_only: bool
    only_with: Mapping[str, Any]
    is_path: bool

    def parse(self, text: str) -> Any:
        """Returns the value that a text means.

        Raises:
            ValueError: it means none; the message says what is expected.
        """
        if self.many:
            values = [self._one(part) for part in text.split(",")] if text else []
            return tuple(values)
        return self._one(text)

    def format(self, value: Any) -> str:
        """Returns the text that `parse` takes back; `value` is not None."""
        if self.many:
            return ",".join(self._text(one) for one in value)
        return self._text(value)

    def check(self, value: Any) -> None:
        """Checks a value.

        Raises:
            OptionError: it is not allowed.
        """
        if value is None:
            if not self.optional:
                raise OptionError(self.name, f"needs a value: {self.expected()}.")
            return
        for one in value if self.many else (value,):
            if self.choices is not None and one not in self.choices:
                raise OptionError(self.name, f"must be {self.expected()}, got {one!r}.")
            if self.kind in (int, float) and not self.range.holds(one):
                raise OptionError(self.name, f"must be {self.expected()}, got {one:g}.")

    def expected(self) -> str:
        """Returns in words what the values are."""
        if self.choices is not None:
            return f"one of {', '.join(self.choices)}"
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        what = "a path" if self.is_path else words[self.kind]
        if self.many:
            plural = {"a whole number": "whole numbers", "a number": "numbers"}
            what = plural.get(what, "texts") + " with commas between"
        return f"{what} {self.range}".strip()

    def _one(self, text: str) -> Any:
        if self.kind is bool:
            known = {"true": True, "1": True, "false": False, "0": False}
            if text.lower() not in known:
                raise ValueError(f"must be {self.expected()}, got {text!r}")
            return known[text.lower()]
        if self.kind is str and (text != text.strip() or "\n" in text):  # run.flags would lose it
            raise ValueError(f"must be one line without spaces at its ends, got {text[:50]!r}")
        if self.is_path:
            return os.path.expanduser(text)
        try:
            return self.kind(text)
        except ValueError as error:
            raise ValueError(f"must be {self.expected()}, got {text!r}") from error

    def _text(self, value: Any) -> str:
        return str(value).lower() if self.kind is bool else str(value)


@dataclass(frozen=True)
class Options:
    """Base of the options of all parts; itself for a part that has none. Values are checked.

    title: of those that belong to no part, for the help.
    requires: a class that sets it is in use only with a method that has this attribute, true. It is
        not inherited.
    """

    title: ClassVar[str] = ""
    requires: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        for each in options_of(type(self)).values():
            each.check(getattr(self, each.name))


def options_of(owner: type[Options]) -> Mapping[str, Option]:
    """Returns all options of a class by name, inherited ones included."""
    return _options_of(owner)  # type: ignore[arg-type] # mypy takes the class for an instance


@functools.cache
def _options_of(owner: type[Options]) -> Mapping[str, Option]:
    hints = typing.get_type_hints(owner)
    declared = {}
    for field in dataclasses.fields(owner):
        declared_by = next(
            each for each in reversed(owner.__mro__) if field.name in inspect.get_annotations(each)
        )
        kind, many, optional = _kind(hints[field.name])
        metadata = dict(field.metadata)
        declared[field.name] = Option(
            field.name, kind, many, optional, field.default, declared_by, **metadata
        )
    return declared


def check_bounds(name: str, values: tuple[float, ...]) -> None:
    """Checks the value of an option that is two numbers, the lower one first.

    Raises:
        OptionError: it is something else.
    """
    if len(values) != 2 or values[0] > values[1]:
        text = ",".join(f"{value:g}" for value in values)
        raise OptionError(
            name, f"must be two numbers, LOW,HIGH, the lower one first; got {text or 'none'}."
        )


def _kind(annotation: Any) -> tuple[type, bool, bool]:
    """Returns (type of one value, whether there are many, whether None is allowed)."""
    optional = isinstance(annotation, types.UnionType)
    if optional:
        [annotation] = [k for k in typing.get_args(annotation) if k is not types.NoneType]
    many = typing.get_origin(annotation) is tuple
    if many:
        annotation = typing.get_args(annotation)[0]
    return annotation, many, optional

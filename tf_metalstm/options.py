"""Options: the settings of a part. The file of the part declares each option once.

    @dataclass(frozen=True)
    class MatchingNetworksOptions(Options):
        cosine_scale: float = option(1.0, "Scale applied to the cosines.", above=0)

The flag of that name, its help, its range, its entry in run.flags and its tests are derived from
the declaration. An option belongs to the class that declares it. Parts share options by
inheritance. Nothing here needs TensorFlow.
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

from tf_metalstm.files import given_path


class OptionError(ValueError):
    """An option has a value that is not allowed.

    Args:
        name: name of the option.
        problem: what is wrong and what to do; the message is the name and this text.
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
    """Declares an option; the annotation gives its type.

    Types are bool, int, float, str, each also `| None`, and tuples of them. For a tuple the range
    applies to every number.

    Args:
        default: the default value.
        text: one sentence for the help.
        choices: the allowed values.
        at_least: the lowest allowed value.
        above: every value must be greater than this.
        at_most: the highest allowed value.
        below: every value must be less than this.
        may_change: whether a run may continue with another value.
        settled: whether the value is fixed when training begins; no later command may change it.
        alike: whether two runs must have the same value if one starts from the weights of the
            other.
        training_only: whether it has no effect after training.
        only_with: values of other options, or tuples of values; without them this option has no
            effect.
        is_path: whether it is the path of a file or folder; ~ is the home folder.
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
    """The range of the numbers that an option allows; None means no bound."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def holds(self, number: float) -> bool:
        """Returns whether a number is in the range; NaN never is."""
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

    name: name of the option and of its flag.
    kind: type of the value or of its elements: bool, int, float or str.
    many: whether the value is a tuple.
    optional: whether the value may be None.
    default: the default value.
    owner: the class that declares the option.
    The other fields are the arguments of `option`.
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
        """Returns the value of a text.

        Raises:
            ValueError: the text is not valid; the message says what is expected.
        """
        if self.many:
            values = [self._one(part) for part in text.split(",")] if text else []
            return tuple(values)
        return self._one(text)

    def format(self, value: Any) -> str:
        """Returns the text of a value, so that `parse` returns the value; it must not be None."""
        if self.many:
            return ",".join(self._text(one) for one in value)
        return self._text(value)

    def check(self, value: Any) -> None:
        """Checks a value.

        Raises:
            OptionError: the value is not allowed.
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
        """Returns a description of the allowed values in words."""
        if self.choices is not None:
            return f"one of {', '.join(self.choices)}"
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        what = "a path" if self.is_path else words[self.kind]
        if self.many:
            what = {"a whole number": "whole numbers", "a number": "numbers"}.get(what, "texts")
        return f"{what} {self.range}".strip() + ", separated by commas" * self.many

    def _one(self, text: str) -> Any:
        if self.kind is bool:
            known = {"true": True, "1": True, "false": False, "0": False}
            if text.lower() not in known:
                raise ValueError(f"must be {self.expected()}, got {text!r}")
            return known[text.lower()]
        if self.kind is str and (text != text.strip() or "\n" in text):  # run.flags would lose it
            raise ValueError(f"must be one line without spaces at its ends, got {text[:50]!r}")
        if self.is_path:
            try:
                given_path(text, self.name)
            except ValueError as error:
                raise ValueError(str(error).removeprefix(f"{self.name}={text}: ")) from error
            return os.path.expanduser(text)  # otherwise as it was typed
        try:
            return self.kind(text)
        except ValueError as error:
            raise ValueError(f"must be {self.expected()}, got {text!r}") from error

    def _text(self, value: Any) -> str:
        return str(value).lower() if self.kind is bool else str(value)


@dataclass(frozen=True)
class Options:
    """Base class of the options of all parts, and the options of a part without any.

    The values are checked on construction.

    title: heading in the help, for options that belong to no part.
    requires: name of an attribute. If a class sets it, its options are in use only with a method
        for which this attribute is true. Subclasses do not inherit it.
    """

    title: ClassVar[str] = ""
    requires: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        for each in options_of(type(self)).values():
            each.check(getattr(self, each.name))


def options_of(owner: type[Options]) -> Mapping[str, Option]:
    """Returns all options of a class by name, with the inherited ones."""
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
    """Checks the value of an option that must be two numbers, the lower one first.

    Raises:
        OptionError: the value is something else.
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

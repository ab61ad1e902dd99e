"""Stand-ins for the heavy packages, for a process that prints help and ends.

The options lie in the files of the parts, which import TensorFlow and Keras to define their
classes. That takes seconds, and help needs none of it. A stand-in can be asked for anything and
computes nothing. Where a part from elsewhere cannot be imported so, the command starts again with
the real packages (`start_again_without`).
"""

from __future__ import annotations

import abc
import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Iterator
from typing import Any, NoReturn

_HEAVY = (
    "tensorflow",
    "keras",
    "tensorboard",
    "tensorflow_datasets",
    "matplotlib",
    "fontTools",
    "gradio",
)
_WITHOUT = "TF_METALSTM_HELP_WITHOUT_STAND_INS"


def use_stand_ins() -> None:
    """Puts the stand-ins in place."""
    if _WITHOUT not in os.environ:
        sys.meta_path.insert(0, _Finder())


def are_in_use() -> bool:
    """Returns whether they are in place."""
    return isinstance(sys.meta_path[0], _Finder)


def start_again_without() -> NoReturn:
    """Starts this process once more, with the real packages."""
    os.environ[_WITHOUT] = "1"
    os.execv(sys.executable, sys.orig_argv)


class _Anything(abc.ABCMeta):
    """The class of classes of which everything can be asked."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn

    def __iter__(cls) -> Iterator[Any]:
        return iter(())


class _StandIn(metaclass=_Anything):
    """A class to derive from, a decorator, a number: whatever a module wants on import."""

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        if cls is _StandIn:  # a call of a function: a decorator gives back what it is given
            return arguments[0] if arguments and isinstance(arguments[0], type) else _decorator
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __init_subclass__(cls, **named: Any) -> None:
        pass


def _decorator(decorated: Any = None, *arguments: Any, **named: Any) -> Any:
    return decorated


class _Module(types.ModuleType):
    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] in _HEAVY:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass

"""Stand-ins for TensorFlow, Keras and other large packages, for a process that only prints help.

The options are declared in the files of the parts, which import TensorFlow and Keras. The import
takes seconds, but help does not need it. A stand-in has any attribute and computes nothing. If a
part from outside the package cannot be imported with stand-ins, the command restarts with the real
packages (`start_again_without`).
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
    """Installs the stand-ins."""
    if _WITHOUT not in os.environ:
        sys.meta_path.insert(0, _Finder())


def are_in_use() -> bool:
    """Returns whether the stand-ins are installed."""
    return isinstance(sys.meta_path[0], _Finder)


def start_again_without() -> NoReturn:
    """Restarts this process with the real packages."""
    os.environ[_WITHOUT] = "1"
    os.execv(sys.executable, sys.orig_argv)


class _Anything(abc.ABCMeta):
    """The metaclass of `_StandIn`; its classes have any attribute."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn

    def __iter__(cls) -> Iterator[Any]:
        return iter(())


class _StandIn(metaclass=_Anything):
    """A class, decorator or number, as a module needs it on import."""

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        if cls is _StandIn:  # a call of a function, or of a decorator, which returns its argument
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

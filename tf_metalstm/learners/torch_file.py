"""Reads named tensors from a file of PyTorch before version 1.6, without PyTorch.

Such a file has pickles and then raw numbers:

    magic number, version, sizes of types    three pickles; only the magic number is used
    names, shapes and strides                a pickle that would build tensors from storages
    order of the storages                    a pickle, a list of their keys
    storages                                 for each one its length, int64, and its numbers

A pickle is a program, and a file of somebody else must not run a program here. `pickletools` lists
its operations. This module only rebuilds texts, numbers, tuples and dictionaries. It keeps the
names of functions that the pickle would call, and never calls them.
"""

from __future__ import annotations

import io
import pickletools
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_TYPES = {"torch FloatStorage": "<f4", "torch LongStorage": "<i8"}
_MAGIC = 0x1950A86A20F9469CFC6C


class _Tensor(NamedTuple):
    """The place of a tensor: type and key of its storage, first number, shape, strides."""

    dtype: str
    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Call(NamedTuple):
    """A function that the pickle would call, and its arguments."""

    name: str
    arguments: Any


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors in a file by name, float32 or int64.

    Args:
        path: path of the file, a dictionary of weights.

    Raises:
        ValueError: the file is of another kind, or damaged.
    """
    file = io.BytesIO(path.read_bytes())
    try:
        if _unpickled(file) != _MAGIC:
            raise ValueError("it does not begin as such files do")
        _unpickled(file), _unpickled(file)
        described, keys = _unpickled(file), _unpickled(file)
        tensors = {name: _tensor(value) for name, value in described.items()}
        types = {tensor.storage: tensor.dtype for tensor in tensors.values()}
        storages = {key: _storage(file, types[key]) for key in keys}
        return {name: _array(tensor, storages) for name, tensor in tensors.items()}
    except (ValueError, KeyError, IndexError, AttributeError, TypeError, struct.error) as error:
        raise ValueError(f"{path} is no file of weights of PyTorch before 1.6 ({error})") from error


def _storage(file: io.BytesIO, dtype: str) -> np.ndarray:
    (length,) = struct.unpack("<q", file.read(8))
    return np.frombuffer(file.read(np.dtype(dtype).itemsize * length), dtype)


def _tensor(value: Any) -> _Tensor:
    """Returns a tensor from the arguments of `torch._utils._rebuild_tensor_v2`."""
    if not isinstance(value, _Call) or value.name != "torch._utils _rebuild_tensor_v2":
        raise ValueError("it holds something else than tensors")
    (_, kind, key, *_), offset, shape, strides, *_ = value.arguments
    return _Tensor(_TYPES[kind], key, offset, shape, strides)


def _array(tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    numbers = storages[tensor.storage][tensor.offset :]
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True))
    if last >= len(numbers) or min((tensor.offset, *tensor.strides)) < 0:
        raise ValueError(f"a tensor of shape {tensor.shape} has {len(numbers)} numbers")
    steps = [numbers.itemsize * step for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers, tensor.shape, steps, writeable=False).copy()


def _unpickled(file: io.BytesIO) -> Any:
    """Returns the data of the next pickle, with calls of functions as `_Call`."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        index = marks.pop()
        items = stack[index:]
        del stack[index:]
        return items

    for operation, argument, _ in pickletools.genops(file):
        name = operation.name
        if name in _ARGUMENTS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("TUPLE1", "TUPLE2"):
            number = int(name[-1])
            stack[-number:] = [tuple(stack[-number:])]
        elif name == "REDUCE":
            stack[-2:] = [_called(*stack[-2:])]
        elif name == "SETITEM":
            stack[-3][stack[-2]] = stack[-1]
            del stack[-2:]
        elif name == "SETITEMS":
            items = since_mark()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "APPEND":
            stack[-2].append(stack.pop())
        elif name == "APPENDS":
            items = since_mark()
            stack[-1].extend(items)
        elif name == "BUILD":  # attributes of the dictionary of weights
            stack.pop()
        elif name not in ("PROTO", "BINPERSID", "STOP"):  # a storage is kept as its name
            raise ValueError(f"the operation {name} in it is not known")
    return stack[-1]


_ARGUMENTS = ("LONG1", "BININT", "BININT1", "BININT2", "BINUNICODE", "GLOBAL")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def _called(name: str, arguments: Any) -> Any:
    return {} if name == "collections OrderedDict" else _Call(name, arguments)

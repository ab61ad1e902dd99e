"""Weights of PyTorch are read without PyTorch, and no code in the file is run."""

import io
import os
import pickle  # noqa: TID251 # to write what must not be run
import struct
import sys
import types

import numpy as np
import pytest

from tf_metalstm.learners.torch_file import read_torch_file

GENERATOR = np.random.default_rng(0)
NUMBERS = {"one": GENERATOR.normal(size=12).astype("<f4"), "two": np.arange(3, dtype="<i8")}


class Storage:
    """Stands for a storage, which the pickle names by its key."""

    def __init__(self, key):
        self.key = key


class Tensor:
    def __init__(self, key, offset, shape, strides):
        self.arguments = (Storage(key), offset, shape, strides, False, {})

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        numbers = NUMBERS[obj.key]
        kind = "FloatStorage" if numbers.dtype == np.float32 else "LongStorage"
        return "storage", getattr(sys.modules["torch"], kind), obj.key, "cpu", len(numbers), None


@pytest.fixture
def torch(monkeypatch):
    """Names that a pickle may refer to."""
    module, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage"):
        setattr(module, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        """This function is never called."""

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def write(path, weights, magic=0x1950A86A20F9469CFC6C, keys=tuple(NUMBERS)):
    file = io.BytesIO()
    for value in (magic, 1001, {"little_endian": True}, weights, list(keys)):
        Pickler(file, protocol=2).dump(value)
    for key in keys:
        file.write(struct.pack("<q", len(NUMBERS[key])) + NUMBERS[key].tobytes())
    path.write_bytes(file.getvalue())


def test_tensors_are_read_with_their_strides(tmp_path, torch):
    weights = {
        "plain": Tensor("one", 0, (3, 4), (4, 1)),
        "turned": Tensor("one", 0, (4, 3), (1, 4)),
        "a part": Tensor("one", 2, (2, 2), (4, 1)),
        "one number": Tensor("one", 5, (), ()),
        "whole": Tensor("two", 0, (3,), (1,)),
    }
    write(tmp_path / "x.pth", weights)
    found = read_torch_file(tmp_path / "x.pth")
    table = NUMBERS["one"].reshape(3, 4)
    expected = {
        "plain": table,
        "turned": table.T,
        "a part": table[:2, 2:],
        "one number": table[1, 1],
        "whole": NUMBERS["two"],
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile",)


def test_nothing_in_the_file_is_called(tmp_path, torch, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x.pth", {"weight": Hostile()})
    with pytest.raises(ValueError, match="it holds something else than tensors"):
        read_torch_file(tmp_path / "x.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def test_what_is_no_such_file_is_refused(tmp_path, torch):
    path = tmp_path / "x.pth"
    for content in (b"", b"PK\x03\x04 a newer file", pickle.dumps([1, 2])):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x.pth is no file of weights of PyTorch before 1.6"):
            read_torch_file(path)
    write(path, {"weight": Tensor("one", 9, (4,), (1,))}, keys=["one"])
    with pytest.raises(ValueError, match=r"a tensor of shape \(4,\) has 3 numbers"):
        read_torch_file(path)
    for offset, stride in ((0, -1), (-1, 1)):  # would read memory before the numbers of the file
        write(path, {"weight": Tensor("one", offset, (2,), (stride,))}, keys=["one"])
        with pytest.raises(ValueError, match="a tensor of shape"):
            read_torch_file(path)
    write(path, {"weight": Tensor("one", 0, (4,), (1,))}, keys=["one"])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="is no file of weights"):
        read_torch_file(path)

"""Reads `theta.state`, the published weights of Celo in the format of flax. Needs the extra celo.

The file is a msgpack map of maps. Its leaves are arrays: extension 1, which has the shape, the name
of the type and the bytes. Other leaves are refused. Nothing in the file is run or unpickled.

    in the file                      in `Celo`
    ff_mod_stack/~/w0__0 ... 13, b0  network[0], one matrix for all groups of inputs
    ff_mod_stack/~/w1, b1; w2, b2    network[1]; network[2] without the unused output
    rnn_params/linear_1, linear_2    mix, read
    rnn_params/rnn/linear            lstm: other order of gates; the bias of f has 1 added
    rnn_params/step_size             rate
    lstm_init_state/hidden, cell     first_hidden, first_cell
    rnn_params/linear, rnn_to_controls   not read: no update depends on them
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from tf_metalstm.failures import reason

_ARRAY = 1  # the number of the extension
_GROUPS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)  # inputs that have a matrix of their own
_NETWORK, _RUN, _START = "ff_mod_stack/~", "rnn_params", "lstm_init_state"
_SHAPES = {
    **{f"{_NETWORK}/w0__{i}": (1, size, 4) for i, size in enumerate(_GROUPS)},
    f"{_NETWORK}/w1": (1, 4, 4),
    f"{_NETWORK}/w2": (1, 4, 3),
    **{f"{_NETWORK}/b{i}": (1, size) for i, size in enumerate((4, 4, 3))},
    **{f"{_RUN}/{name}/w": (18, 64) for name in ("linear_1", "linear_2")},
    **{f"{_RUN}/{name}/b": (64,) for name in ("linear_1", "linear_2")},
    f"{_RUN}/rnn/linear/w": (128, 256),
    f"{_RUN}/rnn/linear/b": (256,),
    f"{_RUN}/step_size/w": (64, 1),
    f"{_RUN}/step_size/b": (1,),
    f"{_START}/hidden": (1, 64),
    f"{_START}/cell": (1, 64),
}


def read_published(path: str | Path) -> list[np.ndarray]:
    """Returns the weights of the authors' file, layer by layer as in the table above.

    Raises:
        ValueError: the file cannot be read, or does not have the weights of Celo.
    """
    arrays = read_arrays(path)
    shapes = {name: array.shape for name, array in arrays.items()}
    wrong = [
        f"{name} is {shapes.get(name, 'not there')}, not {shape}"
        for name, shape in _SHAPES.items()
        if shapes.get(name) != shape
    ]
    if wrong:
        raise ValueError(
            f"{path} does not have the arrays of Celo ({'; '.join(wrong[:3])}). Give the file "
            "theta.state of Celo, not of another optimizer."
        )
    first = np.concatenate([arrays[f"{_NETWORK}/w0__{i}"][0] for i in range(len(_GROUPS))])
    biases = [arrays[f"{_NETWORK}/b{i}"][0] for i in range(3)]
    network = [first, biases[0], arrays[f"{_NETWORK}/w1"][0], biases[1]]
    network += [arrays[f"{_NETWORK}/w2"][0, :, :2], biases[2][:2]]
    linear = [arrays[f"{_RUN}/{name}/{kind}"] for name in ("linear_1", "linear_2") for kind in "wb"]
    kernel, recurrent = np.split(_gates(arrays[f"{_RUN}/rnn/linear/w"]), 2)
    bias = _gates(arrays[f"{_RUN}/rnn/linear/b"]) + np.repeat([0.0, 1.0, 0.0, 0.0], 64)
    rate = [arrays[f"{_RUN}/step_size/{kind}"] for kind in "wb"]
    starts = [arrays[f"{_START}/{kind}"] for kind in ("hidden", "cell")]
    return [*network, *linear, kernel, recurrent, bias, *rate, *starts]


def _gates(array: np.ndarray) -> np.ndarray:
    """Reorders gates from i, g, f, o to i, f, g, o."""
    i, g, f, o = np.split(array, 4, axis=-1)
    return np.concatenate([i, f, g, o], axis=-1)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a flax file by their path in it, as "rnn_params/rnn/linear/w".

    Raises:
        ValueError: the file cannot be read, or has a leaf that is not an array of float32.
    """
    try:
        contents = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({reason(error)}).") from error
    try:
        held = msgpack.unpackb(contents, ext_hook=_array, raw=False)
        return dict(_leaves(held))
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(
            f"{path} holds no weights in the format of flax ({error or type(error).__name__}): "
            "give the file theta.state that the authors of Celo published, whole."
        ) from error


def _array(code: int, contents: bytes) -> np.ndarray:
    if code != _ARRAY:
        raise ValueError(f"extension {code} is no array")
    shape, dtype, buffer = msgpack.unpackb(contents, raw=False)
    if dtype != "float32":
        raise ValueError(f"an array is of {dtype}, not of float32")
    if len(buffer) != 4 * math.prod(shape):
        raise ValueError(f"an array of the shape {shape} has {len(buffer)} bytes")
    return np.frombuffer(buffer, "<f4").reshape(shape)


def _leaves(held: Any, above: str = "") -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(held, np.ndarray):
        yield above, held
    elif isinstance(held, Mapping):
        for name, value in held.items():
            yield from _leaves(value, f"{above}/{name}".strip("/"))
    else:
        raise ValueError(f"{above or 'it'} is {type(held).__name__}, no array")

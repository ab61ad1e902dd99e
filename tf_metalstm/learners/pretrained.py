"""The base class of networks with pretrained weights.

    pixels 0 ... 255 -> preprocessing -> trunk, frozen -> features [D] -> linear layer

The preprocessing is a part of the network, so every export has it. The trunk keeps its weights;
only its last layers can be trained further. Batch norm always uses the running statistics of the
pretraining.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from tf_metalstm.learners.base import Learner
from tf_metalstm.options import OptionError, Options, option

PREPROCESSING = "preprocessing"
"""Name of the layer with the preprocessing of pixels; it is never trained."""


@dataclass(frozen=True)
class PretrainedOptions(Options):
    """Options of every pretrained network."""

    trained_layers: int = option(
        0,
        "Number of layers before the linear one that are trained or adapted too. Only layers with "
        "weights count, without batch norm, from the last. 0: only the linear layer.",
        at_least=0,
        settled=True,
        alike=True,
    )


class PretrainedLearner(Learner, abc.ABC):
    """A network with pretrained weights."""

    image_size: ClassVar[int] = 224
    """Default height and width of its images."""

    @classmethod
    def settled(cls, options: Any, source: str) -> dict[str, Any]:
        """Returns its image size, and the normalization "pixels"."""
        if source == "mini_imagenet" and cls.knows_imagenet(options):
            raise OptionError(
                "learner",
                f"{cls.part.name} is trained on ImageNet, which has the test classes of "
                "mini-ImageNet, so the accuracy says nothing about new classes. Choose another "
                "source, or a learner with new weights.",
            )
        return {"image_size": cls.image_size, "normalization": "pixels"}

    @classmethod
    def check_images(cls, options: Any, normalization: str | None) -> None:
        """Checks that the source does not normalize the pixels."""
        del options
        if normalization not in (None, "pixels"):
            raise OptionError(
                "normalization",
                f"is {normalization}, but learner={cls.part.name} has its own preprocessing: leave "
                "it out.",
            )

    @classmethod
    def knows_imagenet(cls, options: Any) -> bool:
        """Returns whether the network was trained on the classes of ImageNet, as far as known."""
        del options
        return True


def with_linear_layer(
    trunk: keras.Model, num_outputs: int, trained_layers: int, name: str
) -> keras.Model:
    """Returns a trunk with a new linear layer on its features.

    Args:
        trunk: pixels [B, h, w, c] -> features [B, D]; the result shares its weights.
        num_outputs: N, number of outputs.
        trained_layers: the option `trained_layers`.
        name: name of the network.

    Raises:
        OptionError: the trunk has fewer layers with weights.
    """
    norms = (keras.layers.BatchNormalization, keras.layers.Normalization)
    may_train = [
        layer
        for layer in _layers_in_order(trunk)
        if layer.weights and not isinstance(layer, norms) and layer.name != PREPROCESSING
    ]
    if trained_layers > len(may_train):
        raise OptionError(
            "trained_layers",
            f"is {trained_layers}, but {name} has {len(may_train)} layers with weights: lower it.",
        )
    trained = may_train[len(may_train) - trained_layers :]
    for layer in _layers_in_order(trunk):
        layer.trainable = layer in trained
    for layer in trunk._flatten_layers():
        if isinstance(layer, norms):
            layer.trainable = False
    logits = keras.layers.Dense(num_outputs, name="linear")(trunk.output)
    return keras.Model(trunk.input, logits, name=name)


def _layers_in_order(model: keras.Model) -> Iterator[keras.Layer]:
    """Yields the layers of a model from front to back, those of models inside too."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers_in_order(layer)
        else:
            yield layer


def without_dropout(model: keras.Model) -> keras.Model:
    """Returns a model without dropout; the same model if it has none.

    Args:
        model: a Functional or Sequential model; a copy has the same weights.
    """
    rates = ("rate", "drop_path_rate")

    def drops(layer: keras.Layer) -> bool:
        return isinstance(layer, keras.layers.Dropout) or hasattr(layer, "drop_path_rate")

    def copy(layer: keras.Operation) -> keras.Operation:
        config = layer.get_config()
        if drops(layer):
            config |= {rate: 0.0 for rate in rates if rate in config}
        return type(layer).from_config(config)

    if not any(map(drops, model._flatten_layers())):
        return model
    clone = keras.models.clone_model(model, clone_function=copy, recursive=True)
    clone.set_weights(model.get_weights())
    return clone


def color_input(
    input_shape: tuple[int, ...], name: str
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Returns the input of a network for color images, and its pixels with three channels.

    Args:
        input_shape: (h, w, c); gray images get three equal channels.
        name: name of the network, for the error.

    Raises:
        ValueError: the inputs are not images.
    """
    if len(input_shape) != 3 or input_shape[-1] not in (1, 3):
        raise ValueError(
            f"{name} takes gray or color images, but an input has the shape {input_shape}: use "
            "learner=mlp."
        )
    pixels = keras.Input(input_shape, name="pixels")
    if input_shape[-1] == 3:
        return pixels, pixels
    return pixels, keras.layers.Concatenate(name="gray_to_color")([pixels] * 3)

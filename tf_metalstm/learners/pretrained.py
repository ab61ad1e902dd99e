"""What networks share that come with weights of their own.

    pixels 0 ... 255 -> preprocessing -> trunk, frozen -> features [D] -> linear layer

The preprocessing is a part of the network, so it travels into every export. The trunk stays as it
was trained, but for its last layers if wanted. Batch norm normalizes by the running statistics of
that training, whatever passes through.
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
"""Name of the layer that makes what the network was trained on of pixels; it is never trained."""


@dataclass(frozen=True)
class PretrainedOptions(Options):
    """Options of every pretrained network."""

    trained_layers: int = option(
        0,
        "Number of layers with weights before the linear one, counted from the end and without "
        "batch norm, that are trained or adapted too; 0: the network stays as it is.",
        at_least=0,
        settled=True,
        alike=True,
    )


class PretrainedLearner(Learner, abc.ABC):
    """A network with weights from elsewhere."""

    image_size: ClassVar[int] = 224
    """Height and width of its images unless others are asked for."""

    @classmethod
    def settled(cls, options: Any, source: str) -> dict[str, Any]:
        """Returns the size of its images, and that it takes pixels as they are."""
        if source == "mini_imagenet" and cls.knows_imagenet(options):
            raise OptionError(
                "learner",
                f"{cls.part.name} is trained on ImageNet, and the test classes of mini-ImageNet "
                "are in it: a number of the two says nothing about new classes. Choose another "
                "source, or a learner with fresh weights.",
            )
        return {"image_size": cls.image_size, "normalization": "pixels"}

    @classmethod
    def check_images(cls, options: Any, normalization: str | None) -> None:
        """Checks that nobody else normalizes its pixels."""
        del options
        if normalization not in (None, "pixels"):
            raise OptionError(
                "normalization",
                f"is {normalization}, but learner={cls.part.name} has a preprocessing of its own: "
                "leave it out.",
            )

    @classmethod
    def knows_imagenet(cls, options: Any) -> bool:
        """Whether it was trained on the classes of ImageNet, as far as one can know."""
        del options
        return True


def with_linear_layer(
    trunk: keras.Model, num_outputs: int, trained_layers: int, name: str
) -> keras.Model:
    """Returns a network whose last layer is a linear one on the features of a trunk.

    Args:
        trunk: pixels [B, h, w, c] -> features [B, D], with its weights, which are shared.
        num_outputs: N.
        trained_layers: as the option says.
        name: of the network.

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
    """Returns a model that drops nothing in training either; the same one where it has no dropout.

    Args:
        model: a Functional or Sequential one; its copy has the same weights.
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
    found = keras.models.clone_model(model, clone_function=copy, recursive=True)
    found.set_weights(model.get_weights())
    return found


def color_input(
    input_shape: tuple[int, ...], name: str
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Returns the input of a network for color images, and its pixels with three channels.

    Args:
        input_shape: (h, w, c); gray images get three equal channels.
        name: of the network, for the error.

    Raises:
        ValueError: inputs are no images.
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

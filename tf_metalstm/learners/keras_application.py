"""The networks of `keras.applications` as learners: MobileNetV3Small, EfficientNetV2B0 and others.

Their weights are those of ImageNet (by download or from a file), or random. The `preprocess_input`
of each network is a linear map of the three channels. It is measured once and becomes a layer of
the network.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_metalstm.learners.pretrained import (
    PREPROCESSING,
    PretrainedLearner,
    PretrainedOptions,
    color_input,
    with_linear_layer,
    without_dropout,
)
from tf_metalstm.options import OptionError, option
from tf_metalstm.parts import Part

IMAGENET, FRESH = "imagenet", "fresh"
SMALLEST = 32


@dataclass(frozen=True)
class KerasApplicationOptions(PretrainedOptions):
    """Options of the networks of Keras."""

    application: str = option(
        "MobileNetV3Small", "Name of the network in keras.applications.", settled=True, alike=True
    )
    application_weights: str = option(
        IMAGENET,
        "Its weights: imagenet, which Keras downloads once; fresh for random weights; or the path "
        "of a file with the weights of the network without its top (.weights.h5, .h5).",
        settled=True,
    )


class KerasApplication(PretrainedLearner):
    """A network of `keras.applications`, by its name."""

    part = Part("keras_application", "A network of keras.applications", "", KerasApplicationOptions)

    @classmethod
    def from_options(  # type: ignore[override]
        cls,
        options: KerasApplicationOptions,
        input_shape: tuple[int, ...],
        num_outputs: int,
        statistics_momentum: float,
    ) -> keras.Model:
        del statistics_momentum
        trunk = application(input_shape, options.application, options.application_weights)
        if options.application_weights == FRESH:  # nothing to keep
            if options.trained_layers:
                raise OptionError(
                    "trained_layers",
                    "is for trained weights: with application_weights=fresh all layers are "
                    "trained. Leave it out.",
                )
            logits = keras.layers.Dense(num_outputs, name="linear")(trunk.output)
            return keras.Model(trunk.input, logits, name=options.application)
        return with_linear_layer(trunk, num_outputs, options.trained_layers, options.application)

    @classmethod
    def knows_imagenet(cls, options: KerasApplicationOptions) -> bool:
        """Returns whether the network has trained weights; those of a file may be of ImageNet."""
        return options.application_weights != FRESH


def application(input_shape: tuple[int, ...], name: str, weights: str) -> keras.Model:
    """Returns the trunk of a network.

    Args:
        input_shape: (h, w, c), c 1 or 3.
        name: name of the network in `keras.applications`.
        weights: "imagenet", "fresh", or the path of a file of weights without the top.

    Returns:
        A model, pixels 0 ... 255 [B, h, w, c] -> features [B, D], the mean of the last maps.

    Raises:
        OptionError: the name is unknown, or the weights cannot be loaded.
    """
    make = _known().get(name)
    if make is None:
        raise OptionError(
            "application", f"must be one of {', '.join(sorted(_known()))}, got {name!r}."
        )
    pixels, x = color_input(input_shape, name)
    if min(input_shape[:2]) < SMALLEST:
        raise OptionError(
            "image_size", f"must be at least {SMALLEST} for {name}, got {min(input_shape[:2])}."
        )
    size = (*input_shape[:2], 3)
    network = without_dropout(_with_weights(make, size, name, weights))
    maps = network(_preprocessed(make, x))
    features = keras.layers.GlobalAveragePooling2D(name="mean")(maps)
    return keras.Model(pixels, features, name=name)


def _known() -> dict[str, Callable[..., keras.Model]]:
    members = inspect.getmembers(keras.applications, inspect.isfunction)
    return {name: make for name, make in members if name[0].isupper()}


def _with_weights(
    make: Callable[..., keras.Model], size: tuple[int, ...], name: str, weights: str
) -> keras.Model:
    if weights not in (IMAGENET, FRESH) and not Path(weights).is_file():
        raise OptionError(
            "application_weights", f"must be imagenet, fresh or a file, and {weights} is no file."
        )
    try:
        network = make(
            include_top=False, weights=IMAGENET if weights == IMAGENET else None, input_shape=size
        )
    except Exception as error:  # a failed download may raise any error
        raise OptionError(
            "application_weights",
            f"is imagenet, but {name} cannot be downloaded ({error}). Download its weights on "
            "another machine, and give the path of the file (the one whose name has no_top).",
        ) from error
    if weights not in (IMAGENET, FRESH):
        try:
            network.load_weights(weights)
        except (ValueError, OSError, KeyError) as error:
            raise OptionError(
                "application_weights",
                f"is {weights}, whose weights are not those of {name} without its top ({error}).",
            ) from error
    return network


def _preprocessed(make: Callable[..., keras.Model], x: keras.KerasTensor) -> keras.KerasTensor:
    """Returns pixels after a layer that does the same as `preprocess_input` of the network."""
    module = importlib.import_module(inspect.unwrap(make).__module__)
    matrix, offset = linear_map(module.preprocess_input)
    if np.array_equal(matrix, np.eye(3)) and not offset.any():
        return x
    layer = keras.layers.Dense(3, name=PREPROCESSING)
    y = layer(x)
    layer.set_weights([matrix, offset])
    return y


def linear_map(preprocess: Callable[[Any], Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the matrix [3, 3] and the offset [3] of a linear preprocessing of pixels.

    Args:
        preprocess: pixels 0 ... 255 [B, h, w, 3] -> the same shape, linear in each pixel.
    """
    primaries = np.concatenate([np.zeros([1, 3]), 255.0 * np.eye(3)]).reshape(1, 1, 4, 3)
    outputs = np.asarray(preprocess(primaries.copy()), np.float64)[0, 0]
    return ((outputs[1:] - outputs[0]) / 255.0).astype(np.float32), outputs[0].astype(np.float32)

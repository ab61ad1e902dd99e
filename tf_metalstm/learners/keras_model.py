"""Any trained Keras model as a learner, from its `.keras` file.

    pixels 0 ... 255 -> the pixel range of the model -> features [D] -> linear layer

The features are the inputs of the last linear layer of the model, or the outputs of a layer with a
chosen name. Feature maps are averaged over the image.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from tf_metalstm.learners.pretrained import (
    PREPROCESSING,
    PretrainedLearner,
    PretrainedOptions,
    color_input,
    with_linear_layer,
    without_dropout,
)
from tf_metalstm.options import OptionError, check_bounds, option
from tf_metalstm.parts import Part

_CLASSES_OF_IMAGENET = 1000


@dataclass(frozen=True)
class KerasModelOptions(PretrainedOptions):
    """Options of a Keras model from a file."""

    model_file: str | None = option(
        None, "Path of the model, a .keras file.", settled=True, is_path=True
    )
    features_layer: str | None = option(
        None,
        "Name of the layer whose outputs are the features; default: the inputs of the last linear "
        "layer.",
        settled=True,
        alike=True,
    )
    pixel_range: tuple[float, ...] = option(
        (0.0, 255.0),
        "Black and white in the inputs of the model, as 0,1 or -1,1; 0,255 if the model has its "
        "own preprocessing.",
        settled=True,
        alike=True,
    )


class KerasModel(PretrainedLearner):
    """A model from a file."""

    part = Part("keras_model", "A Keras model from a file", "", KerasModelOptions)

    @classmethod
    def from_options(  # type: ignore[override]
        cls,
        options: KerasModelOptions,
        input_shape: tuple[int, ...],
        num_outputs: int,
        statistics_momentum: float,
    ) -> keras.Model:
        del statistics_momentum
        check_bounds("pixel_range", options.pixel_range)
        model = _loaded(_path(options))
        trunk = _trunk(model, input_shape, options)
        return with_linear_layer(trunk, num_outputs, options.trained_layers, model.name)

    @classmethod
    def knows_imagenet(cls, options: KerasModelOptions) -> bool:
        """Returns whether a layer has an output for each of the thousand classes of ImageNet.

        A model without its last layer is not recognized.
        """
        return _CLASSES_OF_IMAGENET in _widths(_path(options))


def _path(options: KerasModelOptions) -> Path:
    if options.model_file is None or not Path(options.model_file).is_file():
        raise OptionError("model_file", f"must be a .keras file, got {options.model_file}.")
    return Path(options.model_file)


def _loaded(path: Path) -> keras.Model:
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise OptionError("model_file", f"{path} cannot be read by Keras ({error}).") from error
    if len(getattr(model, "inputs", None) or ()) != 1 or len(model.outputs) != 1:
        raise OptionError(
            "model_file", f"{path} needs one input and one output, as a Functional model has."
        )
    return model


def _widths(path: Path) -> set[int]:
    """Returns the widths of linear layers and convolutions in a file; none if it is no model."""
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return set()
    widths: set[int] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            sizes = (value.get("units"), value.get("filters"))
            widths.update(width for width in sizes if isinstance(width, int))
            for each in value.values():
                look(each)
        elif isinstance(value, list):
            for each in value:
                look(each)

    look(config)
    return widths


def _trunk(
    model: keras.Model, input_shape: tuple[int, ...], options: KerasModelOptions
) -> keras.Model:
    """Returns a model, pixels -> features."""
    pixels, x = color_input(input_shape, model.name)
    takes = tuple(model.inputs[0].shape[1:])
    if takes[-1:] == (1,) == input_shape[-1:]:
        x = pixels
    shape = tuple(x.shape[1:])
    if len(takes) != 3 or any(a not in (None, b) for a, b in zip(takes, shape, strict=True)):
        raise OptionError(
            "image_size",
            f"gives images {shape}, but the model takes {takes}: both need the same.",
        )
    low, high = options.pixel_range
    if (low, high) != (0.0, 255.0):
        x = keras.layers.Rescaling((high - low) / 255.0, low, name=PREPROCESSING)(x)
    features = without_dropout(keras.Model(model.input, _features(model, options.features_layer)))(
        x
    )
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(name="mean")(features)
    elif len(features.shape) != 2:
        raise OptionError(
            "features_layer", f"gives {tuple(features.shape[1:])} an image: name another layer."
        )
    return keras.Model(pixels, features, name=model.name)


def _features(model: keras.Model, name: str | None) -> keras.KerasTensor:
    if name is not None:
        known = [layer.name for layer in model.layers]
        if name not in known:
            raise OptionError("features_layer", f"must be one of {', '.join(known)}, got {name!r}.")
        return model.get_layer(name).output
    linear = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    return linear[-1].input if linear else model.output

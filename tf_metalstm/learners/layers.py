"""Checks the layers of a Keras model that is to be adapted; replaces some and refuses some.

A learner runs its model as a pure function of its parameters, a few times in an episode, on one
batch of support images. Some layers of Keras are made for thousands of batches and are wrong here:

    layer                                     treatment
    BatchNormalization of Keras               replaced by ours, with the momentum of an episode
    GroupNormalization, LayerNormalization    replaced by ours, for the second order
    layers that draw random numbers           refused: an episode has no random state
    other state that is not float             refused: an episode only carries floats
    SpectralNormalization                     refused: it changes the adapted parameters itself
    BatchNormalization(renorm or synchronized), stateful RNN, TFSMLayer    refused, see below
    regularizers and constraints              ignored with a warning
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from tf_metalstm.learners.batch_normalization import BatchNormalization
from tf_metalstm.learners.normalization import GroupNormalization, LayerNormalization
from tf_metalstm.learners.stateless import statistics_of

# Weight of the old running statistics in an episode, as in the paper. Keras's default 0.99 is for
# thousands of batches: after five batches 95 % of the initial mean 0 and variance 1 would remain.
EPISODE_MOMENTUM = 0.05
# A larger momentum is assumed to be meant for ordinary training, and is replaced.
_LARGEST_MOMENTUM = 0.5

_Refusal = tuple[str, Callable[[Any], bool]]
_BATCH_NORMALIZATION = keras.layers.BatchNormalization
_REFUSALS: tuple[_Refusal, ...] = (
    (
        "writes its kernel while it runs, which is a parameter to adapt: use its layer without it",
        lambda layer: isinstance(layer, keras.layers.SpectralNormalization),
    ),
    (
        "corrects its moments by those of many batches, and an episode has few: leave out renorm",
        lambda layer: isinstance(layer, _BATCH_NORMALIZATION) and layer.renorm,
    ),
    (
        "takes its moments over devices, of which each has its own episode: leave out synchronized",
        lambda layer: isinstance(layer, _BATCH_NORMALIZATION) and layer.synchronized,
    ),
    (
        "carries its state from one batch to the next: leave out stateful",
        lambda layer: bool(getattr(layer, "stateful", False)),
    ),
    (
        "keeps its variables where they cannot be adapted: load the model as a Keras model",
        lambda layer: isinstance(layer, keras.layers.TFSMLayer),
    ),
)


def named(layer: keras.Layer) -> str:
    """Returns the class and the name of a layer, for errors."""
    return f"{type(layer).__name__} {layer.name!r}"


def input_shape(model: keras.Model) -> tuple[int, ...]:
    """Returns the shape of one input of a built model, (h, w, c) for images."""
    if getattr(model, "inputs", None):
        return tuple(model.inputs[0].shape[1:])
    return tuple(model.get_build_config()["input_shape"][1:])


def output_size(model: keras.Model) -> int:
    """Returns the number of outputs (logits) of a built model for one input."""
    if getattr(model, "outputs", None):
        return int(model.outputs[0].shape[-1])
    inputs = keras.KerasTensor((None, *input_shape(model)), model.trainable_variables[0].dtype)
    return int(model.compute_output_spec(inputs).shape[-1])


def check_layers(model: keras.Model) -> None:
    """Checks that a model can be adapted, with the first or the second order.

    Args:
        model: a built Keras model.

    Raises:
        ValueError: the model is not built, has several inputs or outputs, has no trainable
            variables, or has layers that would be wrong in an episode. The error names the layers
            and says what to do.
    """
    if not model.built:
        raise ValueError(f"The learner's model {model.name!r} is not built: call it once.")
    for what in ("inputs", "outputs"):
        number = len(getattr(model, what, None) or [None])
        if number != 1:
            raise ValueError(f"The learner's model {model.name!r} has {number} {what}, not one.")
    for layer in _layers(model):
        for reason, is_so in _REFUSALS:
            if is_so(layer):
                raise ValueError(f"The learner's {named(layer)} {reason}.")
        _check_state(layer)
    if not model.trainable_variables:
        raise ValueError(f"The learner's model {model.name!r} has nothing to adapt.")
    types = sorted({v.dtype for v in model.trainable_variables + statistics_of(model)})
    if len(types) > 1:
        raise ValueError(
            f"The learner's model {model.name!r} has variables of the types {', '.join(types)}, "
            "but they become one vector: give all layers the same type of variables."
        )


def adaptable(model: keras.Model, second_order: bool = False) -> keras.Model:
    """Returns a model that can be adapted.

    This is `model` itself if no layer must be replaced. Otherwise it is a copy with the same
    weights, with layers replaced as in the table above. `BatchNormalization` of this package keeps
    its momentum.

    Args:
        model: a built Keras model. If a layer must be replaced, the model and the models inside it
            must be Functional or Sequential.
        second_order: whether the gradient is differentiated again.

    Raises:
        ValueError: as in `check_layers`; or a layer must be replaced but cannot be.
    """
    check_layers(model)
    _warn_of_penalties(model)
    replaced = [layer for layer in _layers(model) if _replacement(layer, second_order)]
    if not replaced:
        return model
    _warn_of_momentum(replaced)
    copy = _copied(model, replaced, second_order)
    left = [layer for layer in _layers(copy) if _replacement(layer, second_order)]
    if left or _signature(copy) != _signature(model):
        raise _cannot_replace(model, left or replaced)
    copy.set_weights(model.get_weights())
    return copy


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Returns the batch-norm layers of a model, also those inside other layers."""
    return [layer for layer in _layers(model) if isinstance(layer, _BATCH_NORMALIZATION)]


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Yields all layers, also those inside models, wrappers and cells, each once."""
    yield from {id(layer): layer for layer in model._flatten_layers()}.values()


def _inside(layer: keras.Layer) -> list[keras.Layer]:
    return list(layer._flatten_layers(include_self=False))


def _check_state(layer: keras.Layer) -> None:
    """Raises an error for variables that are not float, and names the innermost layer."""
    inside = {id(variable) for inner in _inside(layer) for variable in inner.variables}
    for variable in layer.variables:
        if variable.dtype.startswith("float") or id(variable) in inside or _draws_nothing(layer):
            continue
        remedy = "leave it out, or use constants instead of variables if it accepts them"
        if "seed_generator" in variable.path:
            remedy = "leave out layers that draw random numbers, such as Dropout"
        raise ValueError(
            f"The learner's {named(layer)} keeps {variable.path} of type {variable.dtype}; only "
            f"floating point variables can be adapted: {remedy}."
        )


def _draws_nothing(layer: keras.Layer) -> bool:
    """Returns whether a layer is a recurrent one without dropout; it still has a random seed."""
    rates = [getattr(layer, name, None) for name in ("dropout", "recurrent_dropout")]
    return rates == [0.0, 0.0]


def _replacement(layer: keras.Layer, second_order: bool) -> type[keras.Layer] | None:
    """Returns the class that must replace a layer, or None."""
    kind = type(layer)  # subclasses are not replaced, because they may have another `call`
    if kind is keras.layers.BatchNormalization:
        return BatchNormalization
    if second_order and kind is keras.layers.GroupNormalization:
        return GroupNormalization
    if second_order and kind is keras.layers.LayerNormalization and not layer.rms_scaling:
        return LayerNormalization
    return None


def _copied(model: keras.Model, replaced: list[keras.Layer], second_order: bool) -> keras.Model:
    """Returns a copy of a model with layers replaced; its weights are new."""
    kinds: dict[int, Any] = {id(x): _replacement(x, second_order) for x in replaced}

    def copy(layer: keras.Operation) -> keras.Operation:
        config = layer.get_config()
        if id(layer) in kinds:
            return kinds[id(layer)].from_config(_of_an_episode(config))
        if isinstance(layer, keras.Layer) and any(id(x) in kinds for x in _inside(layer)):
            config = _replaced_inside(config, {type(x).__name__: kinds[id(x)] for x in replaced})
        return type(layer).from_config(config)

    try:
        result = keras.models.clone_model(model, clone_function=copy, recursive=True)
        if not result.built:
            result.build(model.input_shape)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise _cannot_replace(model, replaced) from error
    return result


def _of_an_episode(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration of a normalization layer with the momentum of an episode."""
    if config.get("momentum", 0.0) <= _LARGEST_MOMENTUM:
        return config
    return config | {"momentum": EPISODE_MOMENTUM}


def _replaced_inside(config: Any, kinds: dict[str, Any]) -> Any:
    """Returns the configuration of a wrapper with the layers inside it replaced."""
    if isinstance(config, list | tuple):
        return type(config)(_replaced_inside(each, kinds) for each in config)
    if not isinstance(config, dict):
        return config
    kind = kinds.get(config.get("class_name", ""))
    if kind is None or config.get("module") != "keras.layers":
        return {name: _replaced_inside(value, kinds) for name, value in config.items()}
    return config | {
        "module": kind.__module__,
        "class_name": kind.__name__,
        "registered_name": keras.saving.get_registered_name(kind),
        "config": _of_an_episode(config["config"]),
    }


def _signature(model: keras.Model) -> list[Any]:
    """Returns names, shapes and types of all variables, to compare two models."""
    # Only the ends of the paths count: a layer that was built before its model has a shorter path.
    return [
        [(v.path.split("/")[-2:], tuple(v.shape), v.dtype) for v in variables]
        for variables in (model.trainable_variables, statistics_of(model))
    ]


def _cannot_replace(model: keras.Model, layers: Iterable[keras.Layer]) -> ValueError:
    kinds = {f"{x.__module__}.{x.__name__}": None for x in map(_any_replacement, layers)}
    return ValueError(
        f"{_list(layers)} of the learner's model {model.name!r} cannot be replaced there. This "
        "works only in Functional and Sequential models, and in wrappers that Keras can copy: "
        f"use {', '.join(kinds)} in the model."
    )


def _list(layers: Iterable[keras.Layer]) -> str:
    return ", ".join(map(named, layers))


def _any_replacement(layer: keras.Layer) -> Any:
    return _replacement(layer, second_order=True)


def _warn_of_momentum(layers: Iterable[keras.Layer]) -> None:
    adapted = [x for x in layers if getattr(x, "momentum", 0.0) > _LARGEST_MOMENTUM and x.trainable]
    if adapted:
        _warn(
            f"The momentum of {_list(adapted)} is set to {EPISODE_MOMENTUM}, because running "
            "statistics are collected in a few support passes. To choose another momentum, use "
            "tf_metalstm.learners.batch_normalization.BatchNormalization."
        )


def _warn_of_penalties(model: keras.Model) -> None:
    layers = [layer for layer in _layers(model) if _has_penalty(layer)]
    if layers:
        _warn(
            f"The regularizers and constraints of {_list(layers)} are ignored in an episode: only "
            "the loss of the objective counts."
        )


def _has_penalty(layer: keras.Layer) -> bool:
    settings = [value for name, value in vars(layer).items() if name.endswith("_constraint")]
    settings += [value for name, value in vars(layer).items() if name.endswith("_regularizer")]
    return any(setting is not None for setting in settings)


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=4)

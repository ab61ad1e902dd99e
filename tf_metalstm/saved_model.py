"""A few-shot method as a SavedModel: it adapts to new classes without any Python of ours.

    signature   inputs                                        outputs
    adapt       support_images, support_labels                parameters, statistics, support_losses
    predict     parameters, statistics, query_images          probabilities
    classify    support_images, support_labels, query_images  probabilities

    support_images   [B, h, w, c]  float32, pixels 0 ... 255 as they come from a file
    support_labels   [B]           int32 in [0, N)
    query_images     [B, h, w, c]  as support_images
    parameters       [P]           theta_T
    statistics       [S]           batch-norm statistics of the queries
    support_losses   [T]           L_1 ... L_T, before each update
    probabilities    [B, N]

B is free; `classify` is `adapt` and `predict` in one call. The normalization of pixels
is part of the graph. Whatever nested structure a method's `adapt` returns becomes named
outputs of the one signature and inputs of the other. A model of functions has
`support_inputs` and `query_inputs` [B, D] and `support_labels` float32 [B, 1], and answers
with `outputs` [B, 1]. Beside saved_model.pb lies manifest.json, which says what a client
has to know.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.episode import Support, Tensor
from tf_metalstm.methods.base import FewShotMethod
from tf_metalstm.methods.gradient_based import GradientBasedMethod

MANIFEST = "manifest.json"
FORMAT = "tf_metalstm.saved_model"
FORMAT_VERSION = 1

_WRITTEN_FILES = {"saved_model.pb", "fingerprint.pb", "variables", "assets", MANIFEST}
_TOLERANCE = 1e-5
# The fields of what a method's `adapt` returns, where the signatures call them otherwise.
_PUBLIC_NAMES = {"theta": "parameters"}


class ReloadError(ValueError):
    """A model that was written and read back does not answer as the method does."""


@dataclass(frozen=True)
class ServedMethod:
    """A method with all that a client need not know: it takes pixels and gives probabilities.

    Args:
        method: the trained method.
        normalization: of pixels, that of the training; None for inputs that are no images.
        input_shape: of one input, (h, w, c) of images.
        num_way: N, columns of the probabilities; in regression the numbers of an answer.

    Raises:
        ValueError: the queries of the method are normalized with each other.
    """

    method: FewShotMethod
    normalization: Normalization | None
    input_shape: tuple[int, ...]
    num_way: int

    def __post_init__(self) -> None:
        if getattr(self.method, "query_normalization", None) == "batch":
            raise ValueError(
                "--query_normalization=batch is transductive, the answer to an image depends on "
                "the images beside it, but an exported model is asked about single images: pass "
                "--query_normalization=running or --query_normalization=support."
            )

    @property
    def has_classes(self) -> bool:
        """Whether it classifies; else its labels and answers are real numbers."""
        return self.method.objective.has_classes

    @property
    def input_name(self) -> str:
        """How the signatures call what is put in, after support_ or query_."""
        return "images" if self.normalization else "inputs"

    @property
    def output_name(self) -> str:
        """How the signatures call what comes out."""
        return "probabilities" if self.has_classes else "outputs"

    def label_spec(self) -> tf.TensorSpec:
        """Returns type and shape of the labels of a support set."""
        if self.has_classes:
            return tf.TensorSpec([None], tf.int32)
        return tf.TensorSpec([None, self.num_way], tf.float32)

    def normalized(self, inputs: Tensor) -> Tensor:
        """Returns inputs as the method takes them."""
        if self.normalization:
            inputs = self.normalization(inputs)
        return tf.cast(inputs, self.method.compute_dtype)

    def adapt(self, inputs: Tensor, labels: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """Returns what was learned from the support set, nested, and further outputs by name."""
        checks = _support_checks(self.input_name, inputs, labels)
        if self.has_classes:
            checks += _class_checks(labels, self.num_way)
        with tf.control_dependencies(checks):
            support = Support(self.normalized(tf.identity(inputs)), tf.identity(labels))
        if not isinstance(self.method, GradientBasedMethod):
            return self.method.adapt(support), {}
        adapted, trajectory = self.method.adapt_with_trajectory(support)
        return adapted, {"support_losses": trajectory.losses}

    def predict(self, adapted: Any, inputs: Tensor) -> dict[str, Tensor]:
        """Returns the probabilities [B, N], or the values, of queries, by name."""
        return {self.output_name: self.answers(adapted, inputs)}

    def answers(self, adapted: Any, inputs: Tensor) -> Tensor:
        """Returns the same as a plain tensor."""
        # Not every kernel takes an empty batch: oneDNN's convolution returns another shape.
        check = tf.debugging.assert_positive(
            tf.shape(inputs)[0], f"there are no query_{self.input_name}"
        )
        with tf.control_dependencies([check]):
            queries = self.normalized(tf.identity(inputs))
        outputs = self.method.query_outputs(adapted, queries, training=False)
        return tf.nn.softmax(outputs) if self.has_classes else outputs


def build_signatures(served: ServedMethod) -> tuple[tf.Module, dict[str, Any]]:
    """Returns a module that owns the method's variables, and the three traced functions by name."""
    structure = None  # of what the method's adapt returns; known once it is traced
    support_name, query_name = (f"{part}_{served.input_name}" for part in ("support", "query"))

    def adapt(**support: Tensor) -> dict[str, Tensor]:
        nonlocal structure
        adapted, extras = served.adapt(support[support_name], support["support_labels"])
        structure = tf.nest.map_structure(tf.TensorSpec.from_tensor, adapted)
        return {**_named(adapted), **extras}

    def predict(**inputs: Tensor) -> dict[str, Tensor]:
        leaves = [inputs[name] for name in _named(structure)]
        return served.predict(tf.nest.pack_sequence_as(structure, leaves), inputs[query_name])

    def classify(**episode: Tensor) -> dict[str, Tensor]:
        adapted, _ = served.adapt(episode[support_name], episode["support_labels"])
        return served.predict(adapted, episode[query_name])

    inputs = tf.TensorSpec([None, *served.input_shape], tf.float32)
    support = {support_name: inputs, "support_labels": served.label_spec()}
    signatures = {"adapt": tf.function(adapt).get_concrete_function(**support)}
    adapted = {name: tf.TensorSpec(t.shape, t.dtype) for name, t in _named(structure).items()}
    queries = {query_name: inputs}
    signatures["predict"] = tf.function(predict).get_concrete_function(**queries, **adapted)
    signatures["classify"] = tf.function(classify).get_concrete_function(**support, **queries)
    module = tf.Module()
    # The variables alone: a Keras model inside would bring traces of its own along.
    module.meta_parameters = [variable.value for variable in served.method.variables]
    return module, signatures


def save_method(
    served: ServedMethod, directory: str | Path, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes a method as a SavedModel with a manifest, and reads it back to see that it works.

    All of it is made in a folder beside `directory` and put in place at the end, so that a
    failure leaves what was there before. An earlier export is replaced, anything else is not.

    Args:
        served: the method, and what surrounds it.
        directory: where to write.
        facts: further entries of the manifest: where the weights come from, how good they are.

    Returns:
        The manifest.

    Raises:
        FileExistsError: `directory` holds something that is no export of ours.
        ReloadError: what was written does not answer as the method does.
    """
    target = Path(os.path.realpath(directory))
    check_replaceable(target)
    module, signatures = build_signatures(served)
    manifest = {
        **_describe(served),
        **(facts or {}),
        "signatures": {name: _describe_signature(f) for name, f in signatures.items()},
    }
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        tf.saved_model.save(module, str(partial), signatures=signatures)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        check_reload(partial, served)
        _put_in_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def is_export(directory: str | Path) -> bool:
    """Returns whether a folder holds a model that `save_method` wrote."""
    try:
        manifest = json.loads(Path(directory, MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def check_replaceable(directory: str | Path) -> None:
    """Raises a FileExistsError if an export to this folder would delete what is not ours."""
    directory = Path(directory)
    if not directory.exists():
        return
    found = {path.name for path in directory.iterdir()} if directory.is_dir() else {"a file"}
    foreign = found - _WRITTEN_FILES if is_export(directory) else found
    if foreign:
        raise FileExistsError(
            f"{directory} holds what is no export of ours, and it is not deleted: move "
            f"{', '.join(sorted(foreign)[:3])} away."
        )


def check_reload(directory: str | Path, served: ServedMethod) -> None:
    """Raises a ReloadError if a loaded model and the method differ by more than 1e-5, on noise."""
    loaded = tf.saved_model.load(str(directory)).signatures
    inputs, labels, queries = _noise(served)
    adapted, _ = tf.function(served.adapt)(inputs, labels)
    expected = served.answers(adapted, queries)
    support = {f"support_{served.input_name}": inputs, "support_labels": labels}
    query = {f"query_{served.input_name}": queries}
    read_back = loaded["adapt"](**support)
    read_back.pop("support_losses", None)  # for whoever wants to look, not for `predict`
    answers = {
        "classify": loaded["classify"](**support, **query),
        "predict": loaded["predict"](**read_back, **query),
    }
    for name, answer in answers.items():
        difference = float(tf.reduce_max(tf.abs(answer[served.output_name] - expected)))
        if not difference <= _TOLERANCE:  # not a number is a difference too
            raise ReloadError(
                f"The exported model's {name} differs from the method by {difference:.1e}; "
                f"at most {_TOLERANCE:.0e} is rounding. Nothing was exported."
            )


def _noise(served: ServedMethod) -> tuple[Tensor, Tensor, Tensor]:
    """Returns support inputs, labels and queries of the right shapes, of random numbers."""
    generator = np.random.default_rng(0)
    num_support, num_queries = 2 * served.num_way, served.num_way + 1
    shape = [num_support + num_queries, *served.input_shape]
    values = (
        generator.integers(0, 256, shape) if served.normalization else generator.normal(size=shape)
    )
    inputs, queries = tf.split(tf.constant(values, tf.float32), [num_support, num_queries])
    if served.has_classes:
        return inputs, tf.range(num_support) % served.num_way, queries
    labels = generator.normal(size=[num_support, served.num_way])
    return inputs, tf.constant(labels, tf.float32), queries


def _support_checks(name: str, inputs: Tensor, labels: Tensor) -> list[Any]:
    return [
        tf.debugging.assert_positive(tf.size(labels), "the support set is empty"),
        tf.debugging.assert_equal(
            tf.shape(inputs)[0], tf.shape(labels)[0], f"as many support_labels as support_{name}"
        ),
    ]


def _class_checks(labels: Tensor, num_way: int) -> list[Any]:
    outside = f"support_labels must be in [0, {num_way}): the model has {num_way} ways"
    return [
        tf.debugging.assert_non_negative(labels, outside),
        tf.debugging.assert_less(labels, num_way, outside),
    ]


def _named(adapted: Any) -> dict[str, Tensor]:
    """Returns the tensors of a nested structure by name: that of the field, else a number."""
    leaves = tf.nest.flatten(adapted)
    fields = getattr(adapted, "_fields", ())
    if len(fields) != len(leaves):  # not a plain NamedTuple of tensors
        fields = [f"adapted_{i}" for i in range(len(leaves))]
    return {_PUBLIC_NAMES.get(name, name): leaf for name, leaf in zip(fields, leaves, strict=True)}


def _describe(served: ServedMethod) -> dict[str, Any]:
    method = served.method
    facts: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "objective": method.objective.name,
        "num_way": served.num_way,
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "method": {"class": type(method).__name__},
    }
    if served.normalization:
        facts |= {
            "image_shape": list(served.input_shape),
            "pixels": "float32, 0 ... 255; the normalization is inside the model",
            "resize": "LANCZOS, squeezed to height x width",
            "normalization": served.normalization._asdict(),
            "support_order": "shot by shot: one image of each class, then the next of each",
        }
    else:
        facts["input_shape"] = list(served.input_shape)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a clone has no version
        facts["versions"]["tf_metalstm"] = importlib.metadata.version("tf_metalstm")
    if isinstance(method, GradientBasedMethod):
        facts["num_steps"] = method.evaluation_loop.num_steps
        facts["query_normalization"] = method.describe_normalization()
        facts["method"]["rule"] = type(method.rule).__name__
        facts["method"]["learner"] = method.learner.model.name
        facts["method"]["num_parameters"] = method.learner.num_parameters
    return facts


def _describe_signature(function: Any) -> dict[str, Any]:
    named, others = function.structured_input_signature
    inputs = {spec.name: spec for spec in (*named, *others.values())}
    return {
        way: {
            name: {"dtype": tensor.dtype.name, "shape": tensor.shape.as_list()}
            for name, tensor in tensors.items()
        }
        for way, tensors in (("inputs", inputs), ("outputs", function.structured_outputs))
    }


def _put_in_place(partial: Path, target: Path) -> None:
    if not target.exists():
        partial.rename(target)
        return
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old)

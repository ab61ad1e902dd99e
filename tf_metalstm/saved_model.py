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
outputs of the one signature and inputs of the other. Beside saved_model.pb lies
manifest.json, which says what a client has to know.
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
from tf_metalstm.methods.gradient_based import GradientBasedMethod, describe_normalization

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
        normalization: of pixels, that of the training.
        image_shape: (h, w, c).
        num_way: N, columns of the probabilities.

    Raises:
        ValueError: the queries of the method are normalized with each other.
    """

    method: FewShotMethod
    normalization: Normalization
    image_shape: tuple[int, int, int]
    num_way: int

    def __post_init__(self) -> None:
        if getattr(self.method, "query_normalization", None) == "batch":
            raise ValueError(
                "--query_normalization=batch is transductive, the answer to an image depends on "
                "the images beside it, but an exported model is asked about single images: pass "
                "--query_normalization=running or --query_normalization=support."
            )

    def adapt(self, images: Tensor, labels: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """Returns what was learned from the support set, nested, and further outputs by name."""
        with tf.control_dependencies(_support_checks(images, labels, self.num_way)):
            support = Support(self._inputs(tf.identity(images)), tf.identity(labels))
        if not isinstance(self.method, GradientBasedMethod):
            return self.method.adapt(support), {}
        adapted, trajectory = self.method.adapt_with_trajectory(support)
        return adapted, {"support_losses": trajectory.losses}

    def predict(self, adapted: Any, images: Tensor) -> dict[str, Tensor]:
        """Returns the probabilities [B, N] of query images, by name."""
        logits = self.method.query_logits(adapted, self._inputs(images), training=False)
        return {"probabilities": tf.nn.softmax(logits)}

    def _inputs(self, images: Tensor) -> Tensor:
        return tf.cast(self.normalization(images), self.method.compute_dtype)


def build_signatures(served: ServedMethod) -> tuple[tf.Module, dict[str, Any]]:
    """Returns a module that owns the method's variables, and the three traced functions by name."""
    structure = None  # of what the method's adapt returns; known once it is traced

    def adapt(support_images: Tensor, support_labels: Tensor) -> dict[str, Tensor]:
        nonlocal structure
        adapted, extras = served.adapt(support_images, support_labels)
        structure = tf.nest.map_structure(tf.TensorSpec.from_tensor, adapted)
        return {**_named(adapted), **extras}

    def predict(query_images: Tensor, **adapted: Tensor) -> dict[str, Tensor]:
        leaves = [adapted[name] for name in _named(structure)]
        return served.predict(tf.nest.pack_sequence_as(structure, leaves), query_images)

    def classify(
        support_images: Tensor, support_labels: Tensor, query_images: Tensor
    ) -> dict[str, Tensor]:
        adapted, _ = served.adapt(support_images, support_labels)
        return served.predict(adapted, query_images)

    images = tf.TensorSpec([None, *served.image_shape], tf.float32)
    support = {"support_images": images, "support_labels": tf.TensorSpec([None], tf.int32)}
    signatures = {"adapt": tf.function(adapt).get_concrete_function(**support)}
    adapted = {name: tf.TensorSpec(t.shape, t.dtype) for name, t in _named(structure).items()}
    queries = {"query_images": images}
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
    num_support, num_queries = 2 * served.num_way, served.num_way + 1
    shape = [num_support + num_queries, *served.image_shape]
    pixels = np.random.default_rng(0).integers(0, 256, shape)
    images, queries = tf.split(tf.constant(pixels, tf.float32), [num_support, num_queries])
    labels = tf.range(num_support) % served.num_way
    episode = {
        "support_inputs": served.normalization(images)[tf.newaxis],
        "support_labels": labels[tf.newaxis],
        "query_inputs": served.normalization(queries)[tf.newaxis],
    }
    expected = tf.nn.softmax(tf.function(served.method)(episode, training=False)[0])
    support = {"support_images": images, "support_labels": labels}
    adapted = loaded["adapt"](**support)
    adapted.pop("support_losses", None)  # for whoever wants to look, not for `predict`
    answers = {
        "classify": loaded["classify"](**support, query_images=queries),
        "predict": loaded["predict"](**adapted, query_images=queries),
    }
    for name, answer in answers.items():
        difference = float(tf.reduce_max(tf.abs(answer["probabilities"] - expected)))
        if not difference <= _TOLERANCE:  # not a number is a difference too
            raise ReloadError(
                f"The exported model's {name} differs from the method by {difference:.1e} in "
                f"probability; at most {_TOLERANCE:.0e} is rounding. Nothing was exported."
            )


def _support_checks(images: Tensor, labels: Tensor, num_way: int) -> list[Any]:
    outside = f"support_labels must be in [0, {num_way}): the model has {num_way} ways"
    return [
        tf.debugging.assert_positive(tf.size(labels), "the support set is empty"),
        tf.debugging.assert_equal(
            tf.shape(images)[0], tf.size(labels), "as many support_labels as support_images"
        ),
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
        "image_shape": list(served.image_shape),
        "pixels": "float32, 0 ... 255; the normalization is inside the model",
        "resize": "LANCZOS, squeezed to height x width",
        "normalization": served.normalization._asdict(),
        "num_way": served.num_way,
        "support_order": "shot by shot: one image of each class, then the next of each",
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "method": {"class": type(method).__name__},
    }
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a clone has no version
        facts["versions"]["tf_metalstm"] = importlib.metadata.version("tf_metalstm")
    if isinstance(method, GradientBasedMethod):
        facts["num_steps"] = method.inner_loop.num_steps
        facts["query_normalization"] = describe_normalization(method.query_normalization)
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

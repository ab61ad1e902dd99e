"""Writes a few-shot method as a SavedModel that adapts to new classes without this package.

`signatures.py` has the functions of the model. The file manifest.json in its folder has the facts
that a client needs.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.failures import not_written
from tf_metalstm.graphs import graph_function
from tf_metalstm.serving.served import ServedMethod
from tf_metalstm.serving.signatures import ENCODED, NAMED, build_signatures, name_keys

MANIFEST = "manifest.json"
FORMAT = "tf_metalstm.saved_model"
FORMAT_VERSION = 2  # version 1 had no num_steps, no encoded images and no names

_WRITTEN_FILES = {"saved_model.pb", "fingerprint.pb", "variables", "assets", MANIFEST}
# Tolerances of probabilities. A model that was written and read back has the same graph. The method
# itself has another graph, and the preprocessing of the meta-LSTM multiplies differences of tiny
# gradients by up to exp(10): on noise, probabilities differed by 3e-4.
_READ_BACK, _METHOD = 1e-5, 1e-2


# Number of classes of the test episode of noise, if the model takes any number.
_WAYS_OF_NOISE = 5


class ReloadError(ValueError):
    """The exported model does not give the answers of the method."""


def save_method(
    served: ServedMethod, directory: str | Path, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes a method as a SavedModel with a manifest, reads it back and checks its answers.

    The files are written to a folder beside `directory` and moved at the end, so a failure changes
    nothing. An earlier export is replaced; other files are not.

    Args:
        served: the method with its preprocessing.
        directory: the folder to write.
        facts: further entries of the manifest, such as the source of the weights and results.

    Returns:
        The manifest.

    Raises:
        FileExistsError: `directory` has files that are not of an export.
        OSError: a file cannot be written; the error names it.
        ReloadError: the written model does not give the answers of the method.
    """
    target = Path(os.path.realpath(directory))
    check_replaceable(target)
    module, signatures = build_signatures(served)
    manifest = {
        **_describe(served),
        **(facts or {}),
        "signatures": {name: describe_signature(f) for name, f in signatures.items()},
    }
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with _names_the_folder(target):
            partial.mkdir(parents=True)
            tf.saved_model.save(module, str(partial), signatures=signatures)
            text = json.dumps(manifest, indent=1) + "\n"
            (partial / MANIFEST).write_text(text, encoding="utf-8")
        check_reload(partial, served, signatures)
        with _names_the_folder(target):
            _put_in_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


@contextlib.contextmanager
def _names_the_folder(target: Path) -> Iterator[None]:
    """Adds to an error that the folder of the model cannot be written."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise not_written(target, error) from error


def read_manifest(directory: str | Path) -> dict[str, Any] | None:
    """Returns the manifest of a model that `save_method` wrote; None if there is none."""
    try:
        manifest = json.loads(Path(directory, MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return None
    return manifest


def check_replaceable(directory: str | Path) -> None:
    """Raises a FileExistsError if an export to this folder would delete other files."""
    directory = Path(directory)
    if not directory.exists():
        return
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else {"a file"}
    foreign = names - _WRITTEN_FILES if read_manifest(directory) else names
    if foreign:
        raise FileExistsError(
            f"{directory} has files of something else, which are not deleted: move "
            f"{', '.join(sorted(foreign)[:3])} away."
        )


def check_reload(
    directory: str | Path, served: ServedMethod, signatures: Mapping[str, Any]
) -> None:
    """Compares a written model with its signatures in memory, and with the method.

    Args:
        directory: folder of the model.
        served: the method.
        signatures: the result of `build_signatures`.

    Raises:
        ReloadError: answers to noise differ by more than rounding.
    """
    inputs, labels, queries = _noise(served)
    adapted, _ = graph_function(served.adapt)(inputs, labels)
    by_method = served.answers(adapted, queries)
    taken = {
        ending: describe_signature(signatures[f"predict{ending}"])["inputs"]
        for ending in ("", NAMED, ENCODED, ENCODED + NAMED)
        if f"predict{ending}" in signatures
    }
    before = _answers(signatures, "", served, (inputs, labels, queries), taken[""])
    for name, answer in before.items():
        _check_equal(name, answer, by_method, _METHOD)
    # The same episode again, in the form of each kind of signature.
    forms: dict[str, tuple[Any, Any, Any]] = {"": (inputs, labels, queries)}
    if served.has_classes:
        forms[NAMED] = (inputs, tf.gather(_names_in_order(labels), labels), queries)
    if served.takes_images:
        files = [_encoded(images) for images in (inputs, queries)]
        for ending, (_, classes, _) in list(forms.items()):
            forms[ENCODED + ending] = (files[0], classes, files[1])
    loaded = tf.saved_model.load(str(directory)).signatures
    for ending, episode in forms.items():
        for name, answer in _answers(loaded, ending, served, episode, taken[ending]).items():
            _check_equal(name, answer, before["classify"], _READ_BACK)


def _check_equal(name: str, answer: Tensor, expected: Tensor, tolerance: float) -> None:
    difference = float(tf.reduce_max(tf.abs(answer - expected)))
    if not difference <= tolerance:  # NaN is a difference too
        raise ReloadError(
            f"The exported model's {name} differs from the method by {difference:.1e}; "
            f"at most {tolerance:.0e} is rounding. Nothing was exported."
        )


def _answers(
    functions: Mapping[str, Any],
    ending: str,
    served: ServedMethod,
    episode: tuple[Tensor, Tensor, Tensor],
    learned: Collection[str],
) -> dict[str, Tensor]:
    """Returns the answers of a model to one episode, by signature.

    Args:
        functions: the signatures.
        ending: ending of the names of those to call.
        served: the method.
        episode: support inputs, labels and queries in the form of these signatures.
        learned: names of the outputs of `adapt` that `predict` takes; there may be more.
    """
    adapt, predict, classify = (
        functions[name + ending] for name in ("adapt", "predict", "classify")
    )
    support = {
        f"support_{served.input_name}": episode[0],
        "support_labels": episode[1],
    }
    if served.num_steps is not None:
        support["num_steps"] = tf.constant(served.num_steps)
    query = {f"query_{served.input_name}": episode[2]}
    adapted = {name: value for name, value in adapt(**support).items() if name in learned}
    answers = {
        f"classify{ending}": classify(**support, **query)[served.output_name],
        f"predict{ending}": predict(**query, **adapted)[served.output_name],
    }
    if "features" in functions and not ending.endswith(NAMED):
        of_support, of_queries = (
            functions[f"features{ending}"](images=images)["features"]
            for images in (episode[0], episode[2])
        )
        steps = {} if served.num_steps is None else {"num_steps": tf.constant(served.num_steps)}
        adapted = functions["adapt_features"](
            support_features=of_support, support_labels=episode[1], **steps
        )
        logits = functions["predict_features"](query_features=of_queries, **adapted)["logits"]
        answers[f"features{ending}"] = tf.nn.softmax(logits)
    return answers


def _noise(served: ServedMethod) -> tuple[Tensor, Tensor, Tensor]:
    """Returns random support inputs, labels and queries of the right shapes."""
    generator = np.random.default_rng(0)
    num_way = served.num_way or _WAYS_OF_NOISE
    num_support, num_queries = 2 * num_way, num_way + 1
    shape = [num_support + num_queries, *served.input_shape]
    values = (
        generator.integers(0, 256, shape) if served.takes_images else generator.normal(size=shape)
    )
    inputs, queries = tf.split(tf.constant(values, tf.float32), [num_support, num_queries])
    if served.has_classes:
        return inputs, tf.range(num_support) % num_way, queries
    labels = generator.normal(size=[num_support, num_way])
    return inputs, tf.constant(labels, tf.float32), queries


def _names_in_order(labels: Tensor) -> Tensor:
    """Returns names of the labels that the named signatures number in the same order."""
    names = tf.strings.as_string(tf.range(tf.reduce_max(labels) + 1))
    return tf.gather(names, tf.argsort(name_keys(names)))


def _encoded(images: Tensor) -> Tensor:
    """Returns images with whole numbers as PNG files."""
    pixels = tf.cast(images, tf.uint8)
    return tf.stack([tf.io.encode_png(one) for one in pixels])


def _describe(served: ServedMethod) -> dict[str, Any]:
    method = served.method
    facts: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "objective": method.objective.name,
        "num_way": served.num_way,
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "query_normalization": method.describe_normalization(),
        "method": {"class": type(method).__name__},
    }
    if served.normalization is not None:
        facts |= {
            "image_shape": list(served.input_shape),
            "pixels": "float32, 0 ... 255; the normalization is inside the model",
            "resize": "LANCZOS, squeezed to height x width",
            "normalization": served.normalization._asdict(),
            "support_order": "shot by shot: one image of each class, then the next of each",
        }
    else:
        facts["input_shape"] = list(served.input_shape)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # it is not installed
        facts["versions"]["tf_metalstm"] = importlib.metadata.version("tf_metalstm")
    if served.num_steps is not None:
        facts["num_steps"] = served.num_steps
    if served.relabellings > 1:
        facts["relabellings"] = served.relabellings
    facts["method"] |= method.facts()
    return facts


def describe_signature(function: Any) -> dict[str, Any]:
    """Returns type and shape of the inputs and outputs of a signature, by name."""
    traced = function.get_concrete_function()
    named, others = traced.structured_input_signature
    inputs = {spec.name: spec for spec in (*named, *others.values())}
    return {
        way: {
            name: {"dtype": tensor.dtype.name, "shape": tensor.shape.as_list()}
            for name, tensor in tensors.items()
        }
        for way, tensors in (("inputs", inputs), ("outputs", traced.structured_outputs))
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

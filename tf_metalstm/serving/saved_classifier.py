"""An adapted classifier as a SavedModel: it has its classes and answers queries.

    signature        inputs         outputs
    predict          query_images   class_names, labels, probabilities, nearness, none_of_these
    predict_encoded  the same, as files

    query_images    [B, h, w, c]  float32, pixels 0 ... 255; or the bytes of files, strings [B]
    class_names     [C]           strings
    labels          [B]           the most probable name
    probabilities   [B, C]        with the chosen temperature
    nearness        [B]           how near an image is to the classes; see `estimate.py`
    none_of_these   [B]           whether the nearness is below the chosen limit

The file classifier.json in the folder has the classes, the shape of images and the estimate.

This file is in `tf_metalstm/serving` and in `export`, twice the same, because `export` must not
need the package. It needs TensorFlow.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

CLASSIFIER = "classifier.json"
FORMAT = "tf_metalstm.classifier"


class Facts(NamedTuple):
    """The facts in classifier.json.

    class_names: names of the classes, in the order of the logits.
    image_shape: (h, w, c).
    temperature: divisor of the logits.
    limit: an image with a smaller nearness belongs to none of the classes.
    nearness: nearness of the support images that were left out, sorted.
    estimate: how good the classifier will be, as numbers; None if it is not known.
    """

    class_names: Sequence[str]
    image_shape: Sequence[int]
    temperature: float
    limit: float
    nearness: Sequence[float]
    estimate: dict[str, Any] | None


def write_classifier(
    directory: str | os.PathLike[str],
    answers: Callable[[Any, str], tuple[Any, Any]],
    kept: Sequence[Any],
    facts: Facts,
) -> None:
    """Writes a classifier completely or not at all.

    Args:
        directory: the folder to create.
        answers: function in the graph, from images and "", or files and "_encoded", to logits
            [B, C] and nearness [B].
        kept: variables and tensors that `answers` uses.
        facts: the facts in classifier.json.

    Raises:
        OSError: the folder cannot be written, or exists already.
    """
    import tensorflow as tf

    target = Path(directory)
    if target.exists():
        raise FileExistsError(f"{target} exists already, and nothing is overwritten.")
    names = tf.constant([os.fsencode(name) for name in facts.class_names])

    def answered(images: Any, ending: str) -> dict[str, Any]:
        logits, near = answers(images, ending)
        return {
            "class_names": names,
            "labels": tf.gather(names, tf.argmax(logits, axis=1)),
            "probabilities": tf.nn.softmax(logits / facts.temperature),
            "nearness": near,
            "none_of_these": near < facts.limit,
        }

    @tf.function(input_signature=[tf.TensorSpec([None, *facts.image_shape], tf.float32)])
    def predict(query_images: Any) -> dict[str, Any]:
        return answered(query_images, "")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def predict_encoded(query_images: Any) -> dict[str, Any]:
        return answered(query_images, "_encoded")

    module = tf.Module()
    module.kept = list(kept)  # else they would be deleted before the functions are saved
    signatures = {"predict": predict, "predict_encoded": predict_encoded}
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        tf.saved_model.save(module, str(partial), signatures=signatures)
        limit = facts.limit if math.isfinite(facts.limit) else None  # JSON has no infinity
        contents = {"format": FORMAT, **facts._asdict(), "limit": limit}
        text = json.dumps(contents, indent=1, allow_nan=False) + "\n"
        (partial / CLASSIFIER).write_text(text, encoding="utf-8", errors="backslashreplace")
        partial.rename(target)
    except tf.errors.OpError as error:  # for example a full or read-only disk
        # TensorFlow puts a temporary file before the reason, and an operation after it.
        raise OSError(re.sub(r"^.*; | \[Op:\w+\]$", "", error.message.strip())) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def unit_nearness(features: Any, means: Any) -> Any:
    """Returns the cosine of features [B, ...] with the nearest mean of [N, D], in the graph."""
    import tensorflow as tf

    size = 1
    for side in features.shape[1:]:
        size *= side
    units = tf.math.l2_normalize(tf.reshape(features, [-1, size]), axis=1)
    return tf.reduce_max(tf.matmul(units, tf.constant(means, tf.float32), transpose_b=True), axis=1)


def certainty_in_graph(logits: Any) -> Any:
    """Returns the logarithm of the highest probability, [B], in the graph."""
    import tensorflow as tf

    return tf.math.log(tf.reduce_max(tf.nn.softmax(logits), axis=1))

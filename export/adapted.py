"""A model that has adapted to pictures: its answers, its estimate, and how it is saved.

If the model compares features, the features of the support pictures are computed once, so leaving
pictures out takes little time. Needs numpy, the other files of this folder, and tensorflow for a
model that is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import estimate as estimate_of
import numpy as np
from estimate import ROUNDS, ROUNDS_BY_UPDATES, Estimate, for_json
from folders import ClientError, in_view, sentence
from saved_classifier import Facts, certainty_in_graph, unit_nearness, write_classifier

_AT_A_TIME = 64  # images in one pass of the network
_SMALLEST = 1e-30  # smaller probabilities are raised to this before the logarithm


class Answers(NamedTuple):
    """The answers for pictures.

    logits: logits of the classes, [B, C].
    near: how near each picture is to the classes, [B]; see `estimate.py`.
    """

    logits: np.ndarray
    near: np.ndarray


class Adapted:
    """A model that has adapted to pictures.

    Args:
        model: the result of `load_model`, or a `ServedModel`.
        images: images of the support set, [B, h, w, c]; or files, bytes [B].
        labels: names of their classes, [B].
        num_steps: number of updates; None for a model without updates.
        ending: "_encoded" if images, here and in `answers`, are files.

    Attributes:
        class_names: names of the classes, in the order of the logits.
        losses: the loss before each update; empty for a model without updates.
    """

    def __init__(
        self,
        model: Any,
        images: np.ndarray,
        labels: Sequence[str],
        num_steps: int | None,
        ending: str = "",
    ) -> None:
        self._model = model
        self._ending = ending
        self._steps = {} if num_steps is None else {"num_steps": np.int32(num_steps)}
        self._has_features = "adapt_features" in model.signatures
        self._labels = np.array(labels, object)
        self._kept = self._features(images) if self._has_features else images
        self._state, self.losses, self.class_names = self._adapt(np.arange(len(labels)))
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self.numbers = np.array([numbers[name] for name in labels])

    def answers(self, images: np.ndarray) -> Answers:
        """Returns the answers for images [B, h, w, c], or for files.

        Raises:
            ClientError: an answer is not a number.
        """
        kept = self._features(images) if self._has_features else images
        logits = self._logits(self._state, self.class_names, kept)
        if not np.all(np.isfinite(logits)):
            raise ClientError("The model's answer is not a number: look at the support images.")
        if self._has_features:
            return Answers(logits, estimate_of.nearness(kept, self._means()))
        return Answers(logits, estimate_of.certainty(logits))

    def estimate(self) -> Estimate:
        """Returns the estimate of the accuracy, from rounds that leave support pictures out."""

        def ask(rest: np.ndarray, left: np.ndarray) -> np.ndarray:
            state, _, names = self._adapt(rest)
            return self._logits(state, names, self._kept[left])

        features = self._kept if self._has_features else None
        is_quick = self._has_features and not self._steps
        most = ROUNDS if is_quick else ROUNDS_BY_UPDATES
        answers = estimate_of.ask_in_rounds(self.numbers, ask, features, most)
        return estimate_of.estimate(self.numbers, answers)

    def save(self, directory: Path, estimate: Estimate, temperature: float, limit: float) -> None:
        """Writes the classifier of these classes as a SavedModel; see `saved_classifier.py`.

        Args:
            directory: the folder to create.
            estimate: the result of `estimate`.
            temperature: divisor of the logits.
            limit: a picture with a smaller nearness belongs to none of the classes.

        Raises:
            ClientError: the folder cannot be written.
        """
        kept = [*getattr(self._model, "meta_parameters", []), *self._state.values()]
        facts = Facts(
            self.class_names,
            self._image_shape(),
            temperature,
            limit,
            estimate.nearness.tolist(),
            for_json(estimate),
        )
        try:
            write_classifier(directory, self._in_graph, kept, facts)
        except OSError as error:
            raise ClientError(f"--save {directory} cannot be written ({error}).") from error

    def _in_graph(self, images: Any, ending: str) -> tuple[Any, Any]:
        """Returns logits and nearness of images or files, as tensors."""
        import tensorflow as tf

        signatures = self._model.signatures
        if self._has_features:
            features = signatures[f"features{ending}"](images=images)["features"]
            answer = signatures["predict_features"](query_features=features, **self._state)
            return answer["logits"], unit_nearness(features, self._means())
        whole = signatures[f"predict{ending}_named"](query_images=images, **self._state)
        logits = tf.math.log(tf.maximum(whole["probabilities"], _SMALLEST))
        return logits, certainty_in_graph(logits)

    def _adapt(self, places: np.ndarray) -> tuple[dict[str, Any], list[float], list[str]]:
        """Adapts to some of the pictures.

        Returns:
            The outputs of `adapt`, the loss before each update, and the classes in their order.
        """
        kept, labels = self._kept[places], self._labels[places]
        if self._has_features:
            names = list(dict.fromkeys(self._labels))  # no round leaves out all pictures of a class
            numbers = np.array([names.index(label) for label in labels], np.int32)
            support = {"support_features": kept, "support_labels": numbers, **self._steps}
            state = self._call("adapt_features", **support)
            return state, [], names
        encoded = [os.fsencode(label) for label in labels]
        adapted = self._call(
            f"adapt{self._ending}_named",
            support_images=kept,
            support_labels=encoded,
            **self._steps,
        )
        predict = self._model.signatures[f"predict{self._ending}_named"]
        inputs = predict.structured_input_signature[1]
        losses = adapted.get("support_losses")
        state = {name: value for name, value in adapted.items() if name in inputs}
        names = [os.fsdecode(name) for name in adapted["class_names"].numpy()]
        return state, [] if losses is None else losses.numpy().tolist(), names

    def _logits(self, state: dict[str, Any], names: list[str], kept: np.ndarray) -> np.ndarray:
        """Returns logits of features or pixels, [B, C], in the order of `class_names`."""
        if self._has_features:
            parts = [kept[at : at + _AT_A_TIME] for at in range(0, len(kept), _AT_A_TIME)]
            answers = [self._call("predict_features", query_features=x, **state) for x in parts]
            return np.concatenate([x["logits"].numpy() for x in answers]).astype(np.float64)
        answer = self._call(f"predict{self._ending}_named", query_images=kept, **state)
        probabilities = answer["probabilities"].numpy().astype(np.float64)
        order = [names.index(name) for name in self.class_names]  # the order may differ in a round
        return np.log(np.maximum(probabilities[:, order], _SMALLEST))

    def _features(self, images: np.ndarray) -> np.ndarray:
        starts = in_view(range(0, len(images), _AT_A_TIME), "Comparing", f"{_AT_A_TIME} images")
        name = f"features{self._ending}"
        parts = [self._call(name, images=images[at : at + _AT_A_TIME]) for at in starts]
        return np.concatenate([part["features"].numpy() for part in parts])

    def _means(self) -> np.ndarray:
        return estimate_of.class_means(self._kept, self.numbers, len(self.class_names))

    def _image_shape(self) -> tuple[int, ...]:
        spec = self._model.signatures["predict_named"].structured_input_signature[1]
        return tuple(spec["query_images"].shape[1:])

    def _call(self, signature: str, **tensors: Any) -> dict[str, Any]:
        return call(self._model, signature, **tensors)


def call(model: Any, signature: str, **tensors: Any) -> dict[str, Any]:
    """Calls a signature; for a wrong call, the error has the sentence of the model."""
    try:
        return model.signatures[signature](**tensors)
    except Exception as error:
        # The class is TensorFlow's. A client of a server need not have TensorFlow.
        if type(error).__name__ != "InvalidArgumentError":
            raise
        raise ClientError(f"The model says: {sentence(getattr(error, 'message', ''))}") from error

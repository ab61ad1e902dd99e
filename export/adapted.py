"""A model that has adapted to pictures: its answers, its estimate of itself, how it is saved.

Where the model compares features, those of the support pictures are computed once: then leaving
pictures out costs next to nothing. Needs tensorflow, numpy, and the files beside it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import estimate as estimate_of
import numpy as np
from estimate import ROUNDS, ROUNDS_BY_UPDATES, Estimate, for_json
from folders import ClientError, sentence
from saved_classifier import Facts, certainty_in_graph, unit_nearness, write_classifier

_AT_A_TIME = 64  # images that go through the network
_SMALLEST = 1e-30  # probability whose logarithm is taken


class Answers(NamedTuple):
    """What it says of pictures.

    logits: of each class, [B, C].
    near: how near each is to the classes, [B]; see `estimate.py`.
    """

    logits: np.ndarray
    near: np.ndarray


class Adapted:
    """A model, adapted to pictures.

    Args:
        model: as `load_model` returned it.
        images: of the support set, [B, h, w, c].
        labels: the names of their classes, [B].
        num_steps: updates; None for a model that makes none.

    Attributes:
        class_names: in the order of the logits.
        losses: before each update; empty for a model that makes none.
    """

    def __init__(
        self, model: Any, images: np.ndarray, labels: Sequence[str], num_steps: int | None
    ) -> None:
        self._model = model
        self._steps = {} if num_steps is None else {"num_steps": np.int32(num_steps)}
        self._has_features = "adapt_features" in model.signatures
        self._labels = np.array(labels, object)
        self._kept = self._features(images) if self._has_features else images
        self._state, self.losses, self.class_names = self._adapt(np.arange(len(labels)))
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self.numbers = np.array([numbers[name] for name in labels])

    def answers(self, images: np.ndarray) -> Answers:
        """Returns what it says of images [B, h, w, c].

        Raises:
            ClientError: that is not a number.
        """
        kept = self._features(images) if self._has_features else images
        logits = self._logits(self._state, self.class_names, kept)
        if not np.all(np.isfinite(logits)):
            raise ClientError("The model's answer is not a number: look at the support images.")
        if self._has_features:
            return Answers(logits, estimate_of.nearness(kept, self._means()))
        return Answers(logits, estimate_of.certainty(logits))

    def estimate(self) -> Estimate:
        """Returns how good it will be, found by leaving support pictures out."""

        def ask(rest: np.ndarray, left: np.ndarray) -> np.ndarray:
            state, _, names = self._adapt(rest)
            return self._logits(state, names, self._kept[left])

        features = self._kept if self._has_features else None
        most = ROUNDS if self._has_features else ROUNDS_BY_UPDATES
        found = estimate_of.ask_in_rounds(self.numbers, ask, features, most)
        return estimate_of.estimate(self.numbers, found)

    def save(self, directory: Path, found: Estimate, temperature: float, limit: float) -> None:
        """Writes a model that knows these classes and only answers; see `saved_classifier.py`.

        Args:
            directory: which is not there yet.
            found: the estimate.
            temperature: of the probabilities.
            limit: the nearness below which a picture is of none of the classes.

        Raises:
            ClientError: it cannot be written.
        """
        kept = [*getattr(self._model, "meta_parameters", []), *self._state.values()]
        facts = Facts(
            self.class_names,
            self._image_shape(),
            temperature,
            limit,
            found.nearness.tolist(),
            for_json(found),
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
            What was learned, the loss before each update, and the classes in their order.
        """
        kept, labels = self._kept[places], self._labels[places]
        if self._has_features:
            names = list(dict.fromkeys(self._labels))  # all have one that is not left out
            numbers = np.array([names.index(label) for label in labels], np.int32)
            state = self._call("adapt_features", support_features=kept, support_labels=numbers)
            return state, [], names
        given = [os.fsencode(label) for label in labels]
        adapted = self._call(
            "adapt_named", support_images=kept, support_labels=given, **self._steps
        )
        wanted = self._model.signatures["predict_named"].structured_input_signature[1]
        losses = adapted.get("support_losses")
        state = {name: value for name, value in adapted.items() if name in wanted}
        names = [os.fsdecode(name) for name in adapted["class_names"].numpy()]
        return state, [] if losses is None else losses.numpy().tolist(), names

    def _logits(self, state: dict[str, Any], names: list[str], kept: np.ndarray) -> np.ndarray:
        """Returns logits of features or pixels, [B, C], in the order of `class_names`."""
        if self._has_features:
            answer = self._call("predict_features", query_features=kept, **state)
            return answer["logits"].numpy().astype(np.float64)
        answer = self._call("predict_named", query_images=kept, **state)
        probabilities = answer["probabilities"].numpy().astype(np.float64)
        order = [names.index(name) for name in self.class_names]  # a round may have another
        return np.log(np.maximum(probabilities[:, order], _SMALLEST))

    def _features(self, images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), _AT_A_TIME)
        parts = [self._call("features", images=images[at : at + _AT_A_TIME]) for at in starts]
        return np.concatenate([part["features"].numpy() for part in parts])

    def _means(self) -> np.ndarray:
        return estimate_of.class_means(self._kept, self.numbers, len(self.class_names))

    def _image_shape(self) -> tuple[int, ...]:
        spec = self._model.signatures["predict_named"].structured_input_signature[1]
        return tuple(spec["query_images"].shape[1:])

    def _call(self, signature: str, **tensors: Any) -> dict[str, Any]:
        return call(self._model, signature, **tensors)


def call(model: Any, signature: str, **tensors: Any) -> dict[str, Any]:
    """Calls a signature; what the model has to say of a wrong call is said as it is."""
    import tensorflow as tf

    try:
        return model.signatures[signature](**tensors)
    except tf.errors.InvalidArgumentError as error:
        raise ClientError(f"The model says: {sentence(error.message)}") from error

"""A trained few-shot model as a classifier in the manner of scikit-learn.

    classifier = FewShotClassifier.load("runs/demo").fit(images, labels)
    classifier.predict(other_images)

    print(classifier.estimate().accuracy)

`fit` adapts the model to a few images of each class. `estimate` says how good it will be. Needs
scikit-learn: pip install 'tf_metalstm[sklearn]'.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from tf_metalstm.files import given_path
from tf_metalstm.loaded_model import LoadedModel, call, in_parts, load_model
from tf_metalstm.serving.cache import Cache
from tf_metalstm.serving.estimate import (
    FALSE_ALARMS,
    ROUNDS,
    ROUNDS_BY_UPDATES,
    Estimate,
    ask_in_rounds,
    certainty,
    class_means,
    estimate,
    for_json,
    nearness,
    sentences,
    softmax,
    threshold,
)
from tf_metalstm.serving.given_images import GivenImages, take_images
from tf_metalstm.serving.remarks import Look, look_at, of_queries, of_size, of_support
from tf_metalstm.serving.saved_classifier import (
    Facts,
    certainty_in_graph,
    unit_nearness,
    write_classifier,
)
from tf_metalstm.serving.served import MAX_STEPS

_AT_A_TIME = 256  # features that are compared in one call
_SMALLEST = 1e-30  # smaller probabilities count as this, so that logarithms are finite

_LOOKS = Cache()  # looks at images, which are the same for all models


class ImagesWarning(UserWarning):
    """A warning about images that make answers unreliable, or about images that were skipped."""


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Adapts a trained model to a few labelled images, then classifies others.

    Images are a list of images of any size, or a tuple, an array or a column of a table. Each is a
    path, the bytes of a file, a picture of Pillow, or an array of gray or color. They may also be
    one array, [B, h, w] or [B, h, w, c]. Pixels go from 0 to 255. Images are converted as in
    training; `data/sources/decoding.py` explains how, and which files can be read. Labels are
    classes as in scikit-learn: numbers or names.

    An `ImagesWarning` names images that make answers unreliable: blank or equal support images, the
    same picture in two classes, classes of very different sizes, queries that are among the support
    images, and inverted queries.

    A model that compares features keeps the features of images. So another call of `fit` with one
    more image, or of `predict` with the same queries, only computes the features of new images.

    Args:
        model: folder of an exported model, or of a run.
        num_steps: T, number of updates in `fit`; None for the number in training.
        skip_corrupt: whether to leave out files that cannot be read, and warn of each. The answer
            for such a file is NaN in `predict_proba`, and None in `predict`.
        calibrated: whether `predict_proba` returns calibrated probabilities, with the temperature
            of `estimate`, instead of those of the model.

    Attributes:
        classes_: the different labels, sorted, [C].
        support_losses_: loss before each update, [T]; missing if the method makes no updates.
        trace_: trace of the rule in each update by name, such as "forget_gates" [T, P]; missing if
            the method makes no updates.
        remarks_: the warnings of `fit`, as sentences.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        num_steps: int | None = None,
        skip_corrupt: bool = False,
        calibrated: bool = False,
    ) -> None:
        self.model = model
        self.num_steps = num_steps
        self.skip_corrupt = skip_corrupt
        self.calibrated = calibrated

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        num_steps: int | None = None,
        skip_corrupt: bool = False,
        calibrated: bool = False,
    ) -> FewShotClassifier:
        """Returns a classifier after reading its model.

        Raises:
            FileNotFoundError: the folder has neither a model nor a run.
            ValueError: the model is for functions, not for images.
        """
        load_model(model)
        return cls(model, num_steps, skip_corrupt, calibrated)

    def fit(self, X: Any, y: Any) -> FewShotClassifier:  # scikit-learn's names
        """Adapts to images and their labels, in any order and with any number of each class.

        Raises:
            FileNotFoundError: a file does not exist.
            ValueError: the model does not accept the images or labels.
        """
        model = load_model(self.model)
        check_classification_targets(y)
        images = take_images(X, model.image_shape, self.skip_corrupt)
        labels = _labels_of(images, column_or_1d(y, warn=True))
        classes, numbers = np.unique(labels, return_inverse=True)
        if model.num_way is not None and len(classes) > model.num_way:
            raise ValueError(
                f"y has {len(classes)} classes, but the model tells at most {model.num_way} "
                "classes apart: leave some out, or train a model with more ways."
            )
        by_updates = model.num_steps is not None
        large = of_size(len(labels), model.image_shape, by_updates, model.batch_size)
        _warn(large)  # before the large computation begins
        steps = self._steps(model)
        kept = model.features(images.pixels) if model.has_features else images.pixels
        adapted = _adapt(model, kept, numbers, steps)
        # The attributes are set at the end, so an error leaves an earlier fit unchanged.
        for name in {"support_losses_", "trace_"} & vars(self).keys():
            delattr(self, name)
        state = {name: adapted.pop(name) for name in model.state_names}
        if "support_losses" in adapted:
            self.support_losses_ = adapted.pop("support_losses")
            self.trace_ = adapted
        self.classes_, self._state = classes, state
        self._kept, self._numbers, self._given_steps = kept, numbers, steps
        self._estimate: Estimate | None = None
        self._model: LoadedModel | None = model
        self._weights = model.weights
        self._looks = _looks(images, map(str, labels))
        remarks = [*map(_skipped, images.skipped), *of_support(self._looks)]
        _warn(remarks)
        self.remarks_ = [*large, *remarks]
        return self

    def estimate(self) -> Estimate:
        """Returns how good it will be, found from the support set alone; see `Estimate`.

        Images are left out, and the classifier adapts to the others. This is quick for a model that
        compares features. A model that learns by updates adapts up to five more times.
        """
        model = self._loaded()
        if self._estimate is None:

            def ask(rest: np.ndarray, left: np.ndarray) -> np.ndarray:
                kept, numbers = self._kept, self._numbers
                adapted = _adapt(model, kept[rest], numbers[rest], self._given_steps)
                state = {name: adapted[name] for name in self._state}
                return _logits(model, state, kept[left], len(self.classes_))

            features = self._kept if model.has_features else None
            is_quick = model.has_features and model.num_steps is None
            most = ROUNDS if is_quick else ROUNDS_BY_UPDATES
            answers = ask_in_rounds(self._numbers, ask, features, most)
            self._estimate = estimate(self._numbers, answers)
        return self._estimate

    def estimate_in_words(self) -> list[str]:
        """Returns the estimate, and which support images look mislabelled, in sentences."""
        names = [look.name for look in self._looks]
        return sentences(self.estimate(), self._numbers, names, self.classes_.tolist())

    def save(self, directory: str | os.PathLike[str], false_alarms: float = FALSE_ALARMS) -> None:
        """Writes a SavedModel that knows these classes and only answers.

        `python -m tf_metalstm.adapt predict --classifier` and every program that runs SavedModels
        can use it. Its probabilities are calibrated if those of this classifier are.

        Args:
            directory: path of the new folder, which must not exist.
            false_alarms: share of images of these classes that may get the answer "none of these".

        Raises:
            OSError: the folder cannot be written, or exists already.
            ValueError: the path begins with `~` and the name of an unknown user.
        """
        estimate, model = self.estimate(), self._loaded()
        facts = Facts(
            [str(name) for name in self.classes_],
            model.image_shape,
            estimate.temperature if self.calibrated else 1.0,
            threshold(estimate.nearness, false_alarms),
            estimate.nearness.tolist(),
            for_json(estimate),
        )
        state = {name: tf.constant(value) for name, value in self._state.items()}

        def answers(images: Any, ending: str) -> tuple[Any, Any]:
            if model.has_features:
                features = model.signatures[f"features{ending}"](images=images)["features"]
                answer = model.signatures["predict_features"](query_features=features, **state)
                means = class_means(self._kept, self._numbers, len(self.classes_))
                return answer["logits"], unit_nearness(features, means)
            whole = model.signatures[f"predict{ending}"](query_images=images, **state)
            probabilities = whole["probabilities"][:, : len(self.classes_)]
            logits = tf.math.log(tf.maximum(probabilities, _SMALLEST))
            return logits, certainty_in_graph(logits)

        target = given_path(directory, "directory")
        write_classifier(target, answers, [*model.variables, *state.values()], facts)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns the probability of each class, [B, C], in the order of `classes_`."""
        probabilities, _, images, remarks = self._answer(X)
        _warn(remarks)
        return _of_all(images, probabilities, np.nan)

    def predict(self, X: Any, none_of_these: float | None = None) -> np.ndarray:
        """Returns the most probable label of each image, [B].

        Args:
            X: images.
            none_of_these: rate of false alarms between 0 and 1, such as 0.05: the share of images
                of these classes that may be answered with None. None then means that an image
                belongs to none of these classes. By default there is always a label.

        Raises:
            ValueError: the rate is not between 0 and 1.
        """
        probabilities, near, images, remarks = self._answer(X)
        _warn(remarks)
        best = self.classes_[np.argmax(probabilities, axis=1)]
        if none_of_these is not None:
            best = best.astype(object)
            best[near < threshold(self.estimate().nearness, none_of_these)] = None
        return best if len(best) == images.number else _of_all(images, best.astype(object), None)

    def remarks(self, X: Any) -> list[str]:
        """Returns the warnings about these images as queries, as sentences."""
        return self._remarks(take_images(X, self._loaded().image_shape, self.skip_corrupt))

    def _answer(self, X: Any) -> tuple[np.ndarray, np.ndarray, GivenImages, list[str]]:
        """Returns probabilities and nearness of the images that can be read, and the warnings."""
        model = self._loaded()
        images = take_images(X, model.image_shape, self.skip_corrupt)
        kept = model.features(images.pixels) if model.has_features else images.pixels
        logits = _logits(model, self._state, kept, len(self.classes_))
        if model.has_features:
            means = class_means(self._kept, self._numbers, len(self.classes_))
            near = nearness(kept, means)
        else:
            near = certainty(logits)
        temperature = self.estimate().temperature if self.calibrated else 1.0
        return softmax(logits / temperature), near, images, self._remarks(images)

    def _loaded(self) -> LoadedModel:
        check_is_fitted(self)
        if self._model is None:  # it was pickled
            model = load_model(self.model)
            if getattr(self, "_weights", model.weights) != model.weights:  # old pickles have none
                raise ValueError(
                    f"{self.model} has other weights now than when this classifier was fitted: fit "
                    "it again, or bring back the former model."
                )
            self._model = model
        return self._model

    def _remarks(self, images: GivenImages) -> list[str]:
        return [*map(_skipped, images.skipped), *of_queries(self._looks, _looks(images, None))]

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state to pickle. It has no model, which is read again from its folder."""
        return {
            name: None if name == "_model" else value
            for name, value in super().__getstate__().items()
        }

    def _steps(self, model: LoadedModel) -> dict[str, Any]:
        """Returns the number of updates as an input of the signatures, if they have this input."""
        if model.num_steps is None:
            if self.num_steps is not None:
                raise ValueError(
                    "num_steps is for models that learn by updates; this one does not."
                )
            return {}
        num_steps = model.num_steps if self.num_steps is None else self.num_steps
        if num_steps not in range(MAX_STEPS + 1):
            raise ValueError(
                f"num_steps must be a whole number from 0 to {MAX_STEPS}, got {num_steps}."
            )
        return {"num_steps": tf.constant(num_steps, tf.int32)}


def _adapt(
    model: LoadedModel, kept: np.ndarray, numbers: np.ndarray, steps: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Adapts to features if the model has them, else to pixels, with the classes `numbers`."""
    labels = tf.constant(numbers, tf.int32)
    if model.has_features:
        adapt = model.signatures["adapt_features"]
        return call(adapt, support_features=kept, support_labels=labels, **steps)
    images = tf.constant(kept, tf.float32)
    return call(model.signatures["adapt"], support_images=images, support_labels=labels, **steps)


def _logits(
    model: LoadedModel, state: dict[str, np.ndarray], kept: np.ndarray, num_classes: int
) -> np.ndarray:
    """Returns the logits of features or pixels, [B, C], float64."""
    tensors = {name: tf.constant(value) for name, value in state.items()}
    if model.has_features:
        compare = model.signatures["predict_features"]
        parts = [kept[at : at + _AT_A_TIME] for at in range(0, len(kept), _AT_A_TIME)]
        answers = [call(compare, query_features=part, **tensors)["logits"] for part in parts]
        return np.concatenate(answers)[:, :num_classes].astype(np.float64)
    predict = model.signatures["predict"]
    probabilities = np.concatenate(
        [
            call(predict, query_images=tf.constant(part, tf.float32), **tensors)["probabilities"]
            for part in in_parts(kept)
        ]
    )[:, :num_classes]
    return np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST))


def _of_all(images: GivenImages, answers: np.ndarray, missing: Any) -> np.ndarray:
    """Returns answers for all images, with `missing` for those that cannot be read."""
    of_all = np.full([images.number, *answers.shape[1:]], missing, answers.dtype)
    of_all[images.places] = answers
    return of_all


def _labels_of(images: GivenImages, labels: np.ndarray) -> np.ndarray:
    """Returns the labels of the images that could be read."""
    if images.number != len(labels):
        raise ValueError(
            f"There are {images.number} images but {len(labels)} labels: give one for each."
        )
    kept = labels[images.places]
    lost = np.setdiff1d(labels, kept)
    if len(lost):
        reasons = "; ".join(images.skipped)
        raise ValueError(f"None of the images of class {lost[0]} can be read: {reasons}.")
    return kept


def _looks(images: GivenImages, labels: Iterable[str] | None) -> list[Look]:
    each = [None] * len(images.names) if labels is None else labels
    looks = _LOOKS.of(images.pixels, lambda pixels: [look_at("", None, one) for one in pixels])
    named = zip(looks, images.names, each, strict=True)
    return [look._replace(name=name, label=label) for look, name, label in named]


def _skipped(sentence: str) -> str:
    return f"skipped: {sentence}"


def _warn(remarks: Iterable[str]) -> None:
    for remark in remarks:
        warnings.warn(remark, ImagesWarning, stacklevel=3)

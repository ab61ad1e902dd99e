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

_SMALLEST = 1e-30  # probability whose logarithm is taken

_LOOKS = Cache()  # of any image: what is remembered of it does not depend on a model


class ImagesWarning(UserWarning):
    """What is wrong with images, so that an answer may be worth nothing; or which were skipped."""


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Adapts a trained model to a few labelled images, then classifies others.

    Images are a list (or a tuple, a column of a table, an array) of images of any size, each a
    path, the bytes of a file, a picture of Pillow, or an array of gray or color; or one array of
    all of them, [B, h, w] or [B, h, w, c]. Pixels go from 0 to 255. They become pixels as in
    training: `data/sources/decoding.py` says how, and which files are read. Labels are whatever
    scikit-learn takes as classes: numbers, names.

    What makes answers worth little is said, as an `ImagesWarning`: blank or equal support images,
    the same picture in two classes, classes of very different sizes, queries that are among the
    support images, or that are inverted against them.

    The features of images are kept by a model that compares them: one image more in `fit`, or the
    same queries again, cost no more than those that are new.

    Args:
        model: the folder of an exported model, or of a run.
        num_steps: T, updates that `fit` makes; None for as many as in training.
        skip_corrupt: leave out files that cannot be read, and warn of each. An answer to one is
            not a number in `predict_proba`, and None in `predict`.
        calibrated: let `predict_proba` give probabilities as they can be believed, at the
            temperature of `estimate`; else those of the model.

    Attributes:
        classes_: the different labels, sorted, [C].
        support_losses_: the loss before each update, [T]; missing where the method makes none.
        trace_: what the rule shows of each update by name, such as "forget_gates" [T, P]; missing
            likewise.
        remarks_: what `fit` warned of, sentences.
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
        """Returns a classifier whose model has been read, and is there.

        Raises:
            FileNotFoundError: there is neither a model nor a run.
            ValueError: the model is one of functions.
        """
        load_model(model)
        return cls(model, num_steps, skip_corrupt, calibrated)

    def fit(self, X: Any, y: Any) -> FewShotClassifier:  # scikit-learn's names
        """Adapts to images and their labels, in any order, any number of each class.

        Raises:
            FileNotFoundError: files that are not there.
            ValueError: images or labels that the model cannot take.
        """
        model = load_model(self.model)
        check_classification_targets(y)
        given = take_images(X, model.image_shape, self.skip_corrupt)
        labels = _labels_of(given, column_or_1d(y, warn=True))
        classes, numbers = np.unique(labels, return_inverse=True)
        if model.num_way is not None and len(classes) > model.num_way:
            raise ValueError(
                f"y has {len(classes)} classes, but the model tells at most {model.num_way} "
                "classes apart: leave some out, or train a model with more ways."
            )
        by_updates = model.num_steps is not None
        large = of_size(len(labels), model.image_shape, by_updates, model.batch_size)
        _warn(large)  # before it happens
        steps = self._steps(model)
        kept = model.features(given.pixels) if model.has_features else given.pixels
        adapted = _adapt(model, kept, numbers, steps)
        # All at the end: what fails leaves an earlier fit as it was.
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
        self._looks = _looks(given, map(str, labels))
        remarks = [*map(_skipped, given.skipped), *of_support(self._looks)]
        _warn(remarks)
        self.remarks_ = [*large, *remarks]
        return self

    def estimate(self) -> Estimate:
        """Returns how good it will be, found from the support set alone; see `Estimate`.

        Images are left out, and it adapts to the others: at once for a model that compares
        features. One that learns by updates adapts up to five times more.
        """
        model = self._loaded()
        if self._estimate is None:

            def ask(rest: np.ndarray, left: np.ndarray) -> np.ndarray:
                kept, numbers = self._kept, self._numbers
                adapted = _adapt(model, kept[rest], numbers[rest], self._given_steps)
                state = {name: adapted[name] for name in self._state}
                return _logits(model, state, kept[left], len(self.classes_))

            features = self._kept if model.has_features else None
            most = ROUNDS if model.has_features else ROUNDS_BY_UPDATES
            answers = ask_in_rounds(self._numbers, ask, features, most)
            self._estimate = estimate(self._numbers, answers)
        return self._estimate

    def estimate_in_words(self) -> list[str]:
        """Returns the estimate, and which support images look mislabelled, in sentences."""
        names = [look.name for look in self._looks]
        return sentences(self.estimate(), self._numbers, names, self.classes_.tolist())

    def save(self, directory: str | os.PathLike[str], false_alarms: float = FALSE_ALARMS) -> None:
        """Writes a SavedModel that knows these classes and only answers.

        `python -m tf_metalstm.adapt predict --classifier` and every program that runs a SavedModel
        can ask it. Its probabilities are calibrated if those of this classifier are.

        Args:
            directory: which is not there yet.
            false_alarms: share of images of these classes that it may say "none of these" of.

        Raises:
            OSError: it cannot be written, or is there already.
            ValueError: the path begins with `~` and the name of an unknown user.
        """
        found, model = self.estimate(), self._loaded()
        facts = Facts(
            [str(name) for name in self.classes_],
            model.image_shape,
            found.temperature if self.calibrated else 1.0,
            threshold(found.nearness, false_alarms),
            found.nearness.tolist(),
            for_json(found),
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
        probabilities, _, given, remarks = self._answer(X)
        _warn(remarks)
        return _of_all(given, probabilities, np.nan)

    def predict(self, X: Any, none_of_these: float | None = None) -> np.ndarray:
        """Returns the most probable label of each image, [B].

        Args:
            X: images.
            none_of_these: the share of images of these classes that may be taken for none of them
                by mistake, between 0 and 1: 0.05 is a usual one. The answer to an image that is
                of none of these classes is None then. By default there is always a label.

        Raises:
            ValueError: the share is not between 0 and 1.
        """
        probabilities, near, given, remarks = self._answer(X)
        _warn(remarks)
        best = self.classes_[np.argmax(probabilities, axis=1)]
        if none_of_these is not None:
            best = best.astype(object)
            best[near < threshold(self.estimate().nearness, none_of_these)] = None
        return best if len(best) == given.number else _of_all(given, best.astype(object), None)

    def remarks(self, X: Any) -> list[str]:
        """Returns what answers to these images are warned of, sentences."""
        return self._remarks(take_images(X, self._loaded().image_shape, self.skip_corrupt))

    def _answer(self, X: Any) -> tuple[np.ndarray, np.ndarray, GivenImages, list[str]]:
        """Returns probabilities and nearness of images that can be read, and what to say."""
        model = self._loaded()
        given = take_images(X, model.image_shape, self.skip_corrupt)
        kept = model.features(given.pixels) if model.has_features else given.pixels
        logits = _logits(model, self._state, kept, len(self.classes_))
        if model.has_features:
            means = class_means(self._kept, self._numbers, len(self.classes_))
            near = nearness(kept, means)
        else:
            near = certainty(logits)
        temperature = self.estimate().temperature if self.calibrated else 1.0
        return softmax(logits / temperature), near, given, self._remarks(given)

    def _loaded(self) -> LoadedModel:
        check_is_fitted(self)
        if self._model is None:  # it was pickled
            self._model = load_model(self.model)
        return self._model

    def _remarks(self, given: GivenImages) -> list[str]:
        return [*map(_skipped, given.skipped), *of_queries(self._looks, _looks(given, None))]

    def __getstate__(self) -> dict[str, Any]:
        """Returns what is pickled: a model stays where it is, and is read again."""
        return {
            name: None if name == "_model" else value
            for name, value in super().__getstate__().items()
        }

    def _steps(self, model: LoadedModel) -> dict[str, Any]:
        """Returns the number of updates as the signatures take it, if they do."""
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
    """Adapts to features, of a model that has them, or to pixels; of the classes `numbers`."""
    labels = tf.constant(numbers, tf.int32)
    if model.has_features:
        return call(
            model.signatures["adapt_features"], support_features=kept, support_labels=labels
        )
    images = tf.constant(kept, tf.float32)
    return call(model.signatures["adapt"], support_images=images, support_labels=labels, **steps)


def _logits(
    model: LoadedModel, state: dict[str, np.ndarray], kept: np.ndarray, num_classes: int
) -> np.ndarray:
    """Returns logits of features or pixels, [B, C], float64."""
    given = {name: tf.constant(value) for name, value in state.items()}
    if model.has_features:
        answer = call(model.signatures["predict_features"], query_features=kept, **given)
        return answer["logits"][:, :num_classes].astype(np.float64)
    predict = model.signatures["predict"]
    probabilities = np.concatenate(
        [
            call(predict, query_images=tf.constant(part, tf.float32), **given)["probabilities"]
            for part in in_parts(kept)
        ]
    )[:, :num_classes]
    return np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST))


def _of_all(given: GivenImages, answers: np.ndarray, missing: Any) -> np.ndarray:
    """Returns answers to all images given, with `missing` for those that cannot be read."""
    of_all = np.full([given.number, *answers.shape[1:]], missing, answers.dtype)
    of_all[given.places] = answers
    return of_all


def _labels_of(given: GivenImages, labels: np.ndarray) -> np.ndarray:
    """Returns the labels of the images that could be read."""
    if given.number != len(labels):
        raise ValueError(
            f"There are {given.number} images but {len(labels)} labels: give one for each."
        )
    kept = labels[given.places]
    lost = np.setdiff1d(labels, kept)
    if len(lost):
        reasons = "; ".join(given.skipped)
        raise ValueError(f"None of the images of class {lost[0]} can be read: {reasons}.")
    return kept


def _looks(given: GivenImages, labels: Iterable[str] | None) -> list[Look]:
    each = [None] * len(given.names) if labels is None else labels
    looks = _LOOKS.of(given.pixels, lambda images: [look_at("", None, one) for one in images])
    named = zip(looks, given.names, each, strict=True)
    return [look._replace(name=name, label=label) for look, name, label in named]


def _skipped(sentence: str) -> str:
    return f"skipped: {sentence}"


def _warn(remarks: Iterable[str]) -> None:
    for remark in remarks:
        warnings.warn(remark, ImagesWarning, stacklevel=3)

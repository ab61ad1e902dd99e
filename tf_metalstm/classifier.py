"""A trained few-shot model as a classifier in the manner of scikit-learn.

    classifier = FewShotClassifier.load("runs/demo").fit(images, labels)
    classifier.predict(other_images)

`fit` adapts the model to a few images of each class. Needs scikit-learn: pip install
'tf_metalstm[sklearn]'.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from tf_metalstm.loaded_model import LoadedModel, call, load_model
from tf_metalstm.serving.given_images import GivenImages, take_images
from tf_metalstm.serving.remarks import Look, look_at, of_queries, of_size, of_support
from tf_metalstm.serving.served import MAX_STEPS

_PIXELS_AT_A_TIME = 2**19  # of queries; 74 images of 84 x 84


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

    Args:
        model: the folder of an exported model, or of a run.
        num_steps: T, updates that `fit` makes; None for as many as in training.
        skip_corrupt: leave out files that cannot be read, and warn of each. An answer to one is
            not a number in `predict_proba`, and None in `predict`.

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
    ) -> None:
        self.model = model
        self.num_steps = num_steps
        self.skip_corrupt = skip_corrupt

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        num_steps: int | None = None,
        skip_corrupt: bool = False,
    ) -> FewShotClassifier:
        """Returns a classifier whose model has been read, and is there.

        Raises:
            FileNotFoundError: there is neither a model nor a run.
            ValueError: the model is one of functions.
        """
        load_model(model)
        return cls(model, num_steps, skip_corrupt)

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
                "apart: leave some out, or train a model with more ways."
            )
        by_updates = model.num_steps is not None
        large = of_size(len(labels), model.image_shape, by_updates, model.batch_size)
        _warn(large)  # before it happens
        adapted = call(
            model.signatures["adapt"],
            support_images=tf.constant(given.pixels, tf.float32),
            support_labels=tf.constant(numbers, tf.int32),
            **self._steps(model),
        )
        # All at the end: what fails leaves an earlier fit as it was.
        for name in {"support_losses_", "trace_"} & vars(self).keys():
            delattr(self, name)
        state = {name: adapted.pop(name) for name in model.state_names}
        if "support_losses" in adapted:
            self.support_losses_ = adapted.pop("support_losses")
            self.trace_ = adapted
        self.classes_, self._state = classes, state
        self._model: LoadedModel | None = model
        self._looks = _looks(given, map(str, labels))
        remarks = [*map(_skipped, given.skipped), *of_support(self._looks)]
        _warn(remarks)
        self.remarks_ = [*large, *remarks]
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns the probability of each class, [B, C], in the order of `classes_`."""
        probabilities, _, remarks = self._answer(X)
        _warn(remarks)
        return probabilities

    def predict(self, X: Any) -> np.ndarray:
        """Returns the most probable label of each image, [B]."""
        probabilities, given, remarks = self._answer(X)
        _warn(remarks)
        best = self.classes_[np.argmax(probabilities[given.places], axis=1)]
        if len(best) == given.number:
            return best
        labels = np.full(given.number, None, object)
        labels[given.places] = best
        return labels

    def remarks(self, X: Any) -> list[str]:
        """Returns what answers to these images are warned of, sentences."""
        return self._remarks(take_images(X, self._loaded().image_shape, self.skip_corrupt))

    def _answer(self, X: Any) -> tuple[np.ndarray, GivenImages, list[str]]:
        """Returns probabilities [B, C], the images that could be read, and what to say of them."""
        model = self._loaded()
        given = take_images(X, model.image_shape, self.skip_corrupt)
        state = {name: tf.constant(value) for name, value in self._state.items()}
        answers = []
        for part in _parts(given.pixels):
            images = tf.constant(part, tf.float32)
            answers.append(call(model.signatures["predict"], query_images=images, **state))
        found = np.concatenate([answer["probabilities"] for answer in answers])
        probabilities = np.full([given.number, len(self.classes_)], np.nan, found.dtype)
        probabilities[given.places] = found[:, : len(self.classes_)]
        return probabilities, given, self._remarks(given)

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
    return [look_at(*one) for one in zip(given.names, each, given.pixels, strict=True)]


def _parts(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Yields images a few at a time, with a progress bar on a terminal."""
    few = max(1, _PIXELS_AT_A_TIME // int(np.prod(pixels.shape[1:3])))
    bar = tqdm.tqdm(
        total=len(pixels), desc="Answering", unit="image", delay=1, leave=False, disable=None
    )
    with bar:
        for start in range(0, len(pixels), few):
            yield pixels[start : start + few]
            bar.update(min(few, len(pixels) - start))


def _skipped(sentence: str) -> str:
    return f"skipped: {sentence}"


def _warn(remarks: Iterable[str]) -> None:
    for remark in remarks:
        warnings.warn(remark, ImagesWarning, stacklevel=3)

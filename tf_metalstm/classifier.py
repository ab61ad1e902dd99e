"""A trained few-shot model as a classifier in the manner of scikit-learn.

    classifier = FewShotClassifier.load("runs/demo").fit(images, labels)
    classifier.predict(other_images)

`fit` adapts the model to a few images of each class. Needs scikit-learn: pip install
'tf_metalstm[sklearn]'.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from tf_metalstm import experiment
from tf_metalstm.argv import FOUND_FLAGS, RUN_FLAGS
from tf_metalstm.data.sources.decoding import plain_image, squeeze
from tf_metalstm.data.sources.pixels import pixels as decode
from tf_metalstm.flags import read_settings
from tf_metalstm.serving.saved_model import (
    FORMAT_VERSION,
    MANIFEST,
    describe_signature,
    read_manifest,
)
from tf_metalstm.serving.signatures import build_signatures

_QUERIES = "query_images"


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Adapts a trained model to a few labelled images, then classifies others.

    Images are pixels 0 ... 255, [B, h, w, c] in the size of the model ([B, h, w] where it is a
    gray one); or a list (or a column of a table) of images of any size, each a path, the bytes of
    a file, a picture of Pillow, or an array uint8 of gray or color. They become pixels as in
    training: `data/sources/decoding.py` says how, and which files are read. Labels are whatever
    scikit-learn takes as classes: numbers, names.

    Args:
        model: the folder of an exported model, or of a run.
        num_steps: T, updates that `fit` makes; None for as many as in training.

    Attributes:
        classes_: the different labels, sorted, [C].
        support_losses_: the loss before each update, [T]; missing where the method makes none.
        trace_: what the rule shows of each update by name, such as "forget_gates" [T, P]; missing
            likewise.
    """

    def __init__(self, model: str | os.PathLike[str], num_steps: int | None = None) -> None:
        self.model = model
        self.num_steps = num_steps

    @classmethod
    def load(cls, model: str | os.PathLike[str], num_steps: int | None = None) -> FewShotClassifier:
        """Returns a classifier whose model has been read, and is there.

        Raises:
            FileNotFoundError: there is neither a model nor a run.
            ValueError: the model is one of functions.
        """
        load_model(model)
        return cls(model, num_steps)

    def fit(self, X: Any, y: Any) -> FewShotClassifier:  # scikit-learn's names
        """Adapts to images and their labels, in any order, any number of each class.

        Raises:
            ValueError: images or labels that the model cannot take.
        """
        model = load_model(self.model)
        check_classification_targets(y)
        labels = column_or_1d(y, warn=True)
        images, ending = _images(X, model.image_shape)
        if len(images) != len(labels):
            raise ValueError(
                f"There are {len(images)} images but {len(labels)} labels: give one for each."
            )
        classes, numbers = np.unique(labels, return_inverse=True)
        if model.num_way is not None and len(classes) > model.num_way:
            raise ValueError(
                f"y has {len(classes)} classes, but the model tells at most {model.num_way} "
                "apart: leave some out, or train a model with more ways."
            )
        adapted = _call(
            model.signatures[f"adapt{ending}"],
            support_images=images,
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
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns the probability of each class, [B, C], in the order of `classes_`."""
        check_is_fitted(self)
        if self._model is None:  # it was pickled
            self._model = load_model(self.model)
        images, ending = _images(X, self._model.image_shape)
        state = {name: tf.constant(value) for name, value in self._state.items()}
        answer = _call(self._model.signatures[f"predict{ending}"], query_images=images, **state)
        return answer["probabilities"][:, : len(self.classes_)]

    def predict(self, X: Any) -> np.ndarray:
        """Returns the most probable label of each image, [B]."""
        probabilities = self.predict_proba(X)
        return self.classes_[np.argmax(probabilities, axis=1)]

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
        if num_steps < 0:
            raise ValueError(f"num_steps must not be negative, got {num_steps}.")
        return {"num_steps": tf.constant(num_steps, tf.int32)}


class LoadedModel(NamedTuple):
    """What `fit` and `predict` need of a model.

    signatures: its functions of tensors, by name.
    image_shape: (h, w, c); () for a model of functions.
    num_way: N, or None for any number.
    num_steps: T of the training, or None.
    state_names: what `predict` takes of that which `adapt` returned.
    """

    signatures: Mapping[str, Callable[..., dict[str, Any]]]
    image_shape: tuple[int, ...]
    num_way: int | None
    num_steps: int | None
    state_names: tuple[str, ...]


def load_model(folder: str | os.PathLike[str]) -> LoadedModel:
    """Returns the model in a folder as it is there now, read only once."""
    path = Path(folder).resolve()
    marks = [path / MANIFEST, path / FOUND_FLAGS, *sorted((path / "best").glob("*.index"))]
    times = tuple(mark.stat().st_mtime_ns for mark in marks if mark.is_file())
    model = _load(str(path), times)
    if not model.image_shape:
        raise ValueError(f"{folder} is a model of functions, not of images.")
    return model


@functools.lru_cache(maxsize=4)
def _load(folder: str, times: tuple[int, ...]) -> LoadedModel:
    """Returns an export, or a run with its best weights; `times` tells one state from the next."""
    del times
    manifest = read_manifest(folder)
    if manifest is not None:
        if manifest["format_version"] != FORMAT_VERSION:
            raise ValueError(
                f"{folder} has format version {manifest['format_version']}, not {FORMAT_VERSION}: "
                "export the run again."
            )
        signatures = tf.saved_model.load(folder).signatures
        shape = tuple(manifest.get("image_shape", ()))
        names = tuple(n for n in manifest["signatures"]["predict"]["inputs"] if n != _QUERIES)
        way, steps = manifest["num_way"], manifest.get("num_steps")
        return LoadedModel(signatures, shape, way, steps, names)
    if not Path(folder, RUN_FLAGS).is_file():
        raise FileNotFoundError(
            f"{folder} is neither a model that python -m tf_metalstm.export wrote nor a run."
        )
    found = Path(folder, FOUND_FLAGS)
    settings = read_settings(folder, *([f"--flagfile={found}"] if found.is_file() else []))
    served = experiment.serve(experiment.load_run(settings))
    _, signatures = build_signatures(served)
    shape = served.input_shape if served.takes_images else ()
    specs = describe_signature(signatures["predict"])["inputs"]
    names = tuple(name for name in specs if name != _QUERIES)
    return LoadedModel(signatures, shape, served.num_way, served.num_steps, names)


def _call(function: Callable[..., dict[str, Any]], **tensors: Any) -> dict[str, np.ndarray]:
    try:
        return {name: value.numpy() for name, value in function(**tensors).items()}
    except tf.errors.InvalidArgumentError as error:  # a file that is no image, and the like
        raise ValueError(error.message) from error


def _images(given: Any, image_shape: tuple[int, ...]) -> tuple[Any, str]:
    """Returns images as the signatures take them, and the ending of the signatures' names."""
    if isinstance(given, (str, bytes, os.PathLike, Image.Image)):
        raise ValueError("Expected a list of images, got a single one: give [image].")
    listed = _listed(given)
    if listed is None:
        pixels = _checked_pixels(np.asarray(given), image_shape)
    else:
        pixels = np.stack([_squeezed(one, image_shape, i) for i, one in enumerate(listed)])
    return tf.constant(pixels, tf.float32), ""


def _listed(given: Any) -> list[Any] | None:
    """Returns files, pictures of Pillow, or arrays of other sizes one by one; None for pixels."""
    if hasattr(given, "to_numpy"):  # a column of a table
        given = given.to_numpy()
    if isinstance(given, np.ndarray) and given.dtype.kind in "OUS":
        given = given.ravel().tolist()
    if not isinstance(given, Sequence) or not given:
        return None
    one_by_one = isinstance(given[0], (str, bytes, os.PathLike, Image.Image))
    shapes = {one.shape for one in given if isinstance(one, np.ndarray) and one.dtype == np.uint8}
    return list(given) if one_by_one or len(shapes) > 1 else None


def _squeezed(one: Any, image_shape: tuple[int, ...], place: int) -> np.ndarray:
    """Returns the pixels [h, w, c] of a file, a picture or an array of any size."""
    if isinstance(one, bytes):
        return decode(one, image_shape, f"image {place} of the list")
    if isinstance(one, (str, os.PathLike)):
        path = Path(one).expanduser()
        return decode(path.read_bytes(), image_shape, str(path))
    try:
        if not isinstance(one, Image.Image):
            one = Image.fromarray(np.squeeze(one, -1) if one.shape[2:] == (1,) else one)
        return squeeze(plain_image(one), image_shape)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"image {place} of the list is neither a file, nor a picture of Pillow, nor an array "
            f"uint8 [h, w], [h, w, 1], [h, w, 3] or [h, w, 4] ({error})."
        ) from error


def _checked_pixels(pixels: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    """Returns pixels [B, h, w, c] that are such."""
    if pixels.ndim == 3 and image_shape[-1] == 1:
        pixels = pixels[..., np.newaxis]
    if pixels.shape[1:] != image_shape or pixels.dtype.kind not in "uif":
        raise ValueError(
            f"Expected numbers [B, {', '.join(map(str, image_shape))}], or a list of image files; "
            f"got {pixels.dtype} {list(pixels.shape)}."
        )
    if not len(pixels):
        raise ValueError("There are no images.")
    pixels = pixels.astype(np.float32)
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and 1 < high <= 255) and not (pixels == 0).all():  # not a number fails too
        raise ValueError(
            f"Pixels go from 0 to 255, these from {low:g} to {high:g}: give them as they come from "
            "a file, without a normalization of your own."
        )
    return pixels

"""Loads a trained model by its signatures: an export, or a run with its best weights."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tqdm

from tf_metalstm import experiment
from tf_metalstm.argv import FOUND_FLAGS, RUN_FLAGS
from tf_metalstm.exported import exported_fingerprint
from tf_metalstm.failures import reason
from tf_metalstm.files import given_path
from tf_metalstm.flags import read_settings
from tf_metalstm.serving.cache import Cache
from tf_metalstm.serving.saved_model import (
    FORMAT_VERSION,
    MANIFEST,
    describe_signature,
    read_manifest,
)
from tf_metalstm.serving.signatures import build_signatures
from tf_metalstm.shipped import model_folder, model_names
from tf_metalstm.training.checkpoints import BEST, LAST, fingerprint_of_weights

_QUERIES = "query_images"
_PIXELS_AT_A_TIME = 2**19  # pixels of images in one call; 74 images of 84 x 84


class LoadedModel(NamedTuple):
    """The parts of a model that `fit` and `predict` need.

    signatures: its functions of tensors, by name.
    image_shape: (h, w, c); () for a model that takes numbers.
    num_way: N; None for any number.
    num_steps: T of the training, or None.
    state_names: names of the outputs of `adapt` that `predict` takes.
    batch_size: number of support images in an update; None for all.
    cache: the features that were computed with this model.
    variables: the variables that its functions use.
    weights: a hash of its weights.
    """

    signatures: Mapping[str, Callable[..., dict[str, Any]]]
    image_shape: tuple[int, ...]
    num_way: int | None
    num_steps: int | None
    state_names: tuple[str, ...]
    batch_size: int | None = None
    cache: Cache | None = None
    variables: Sequence[Any] = ()
    weights: str | None = None

    @property
    def has_features(self) -> bool:
        """Whether it compares features, so that features of an image can be kept."""
        return "adapt_features" in self.signatures

    def features(self, images: np.ndarray) -> np.ndarray:
        """Returns the features of images [B, h, w, c], [B, ...]; computes only new ones."""

        def make(unknown: np.ndarray) -> list[np.ndarray]:
            return [
                row
                for part in in_parts(unknown)
                for row in call(self.signatures["features"], images=tf.constant(part, tf.float32))[
                    "features"
                ]
            ]

        return np.stack((self.cache or Cache()).of(images, make))


def load_model(folder: str | os.PathLike[str]) -> LoadedModel:
    """Returns the model in a folder. A model that has not changed is read only once."""
    path = model_folder(given_path(folder, "model")).resolve()
    found = path / FOUND_FLAGS
    uses_last = found.is_file() and "--checkpoint=last" in found.read_text(encoding="utf-8")
    weights = sorted((path / (LAST if uses_last else BEST)).glob("*.index"))
    marks = [path / MANIFEST, found, *weights]
    times = tuple(mark.stat().st_mtime_ns for mark in marks if mark.is_file())
    model = _load(str(path), times)
    if not model.image_shape:
        raise ValueError(f"{folder} takes numbers, not images.")
    return model


@functools.lru_cache(maxsize=4)
def _load(folder: str, times: tuple[int, ...]) -> LoadedModel:
    """Returns an export, or a run with its best weights; `times` changes when the files change."""
    del times
    manifest = read_manifest(folder)
    if manifest is not None:
        if manifest["format_version"] != FORMAT_VERSION:
            raise ValueError(
                f"{folder} has format version {manifest['format_version']}, not {FORMAT_VERSION}: "
                "export the run again."
            )
        module = tf.saved_model.load(folder)
        shape = tuple(manifest.get("image_shape", ()))
        names = tuple(n for n in manifest["signatures"]["predict"]["inputs"] if n != _QUERIES)
        way, steps = manifest["num_way"], manifest.get("num_steps")
        batch_size = manifest.get("method_settings", {}).get("support_batch_size")
        return LoadedModel(
            module.signatures,
            shape,
            way,
            steps,
            names,
            batch_size,
            Cache(),
            module.meta_parameters,
            exported_fingerprint(folder),
        )
    if not Path(folder, RUN_FLAGS).is_file():
        raise FileNotFoundError(
            f"{folder} is neither a model that python -m tf_metalstm.export wrote, nor a run, nor "
            f"the name of a trained model: {', '.join(model_names()) or 'none'}."
        )
    best_flags = Path(folder, FOUND_FLAGS)
    settings = read_settings(
        folder, *([f"--flagfile={best_flags}"] if best_flags.is_file() else [])
    )
    run = experiment.load_run(settings)
    weights = fingerprint_of_weights(folder, settings.evaluation.checkpoint, run.step)
    served = experiment.serve(run)
    module, signatures = build_signatures(served)
    shape = served.input_shape if served.takes_images else ()
    specs = describe_signature(signatures["predict"])["inputs"]
    names = tuple(name for name in specs if name != _QUERIES)
    batch_size = settings.get("support_batch_size")
    return LoadedModel(
        signatures,
        shape,
        served.num_way,
        served.num_steps,
        names,
        batch_size,
        Cache(),
        module.meta_parameters,
        weights,
    )


def in_parts(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Yields a few images at a time, with a progress bar on a terminal."""
    few = max(1, _PIXELS_AT_A_TIME // int(np.prod(pixels.shape[1:3])))
    bar = tqdm.tqdm(
        total=len(pixels), desc="Answering", unit="image", delay=1, leave=False, disable=None
    )
    with bar:
        for start in range(0, len(pixels), few):
            yield pixels[start : start + few]
            bar.update(min(few, len(pixels) - start))


def call(function: Callable[..., dict[str, Any]], **tensors: Any) -> dict[str, np.ndarray]:
    """Calls a signature.

    Raises:
        ValueError: the model refuses the inputs; the error has its sentence.
    """
    try:
        return {name: value.numpy() for name, value in function(**tensors).items()}
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"The model says: {reason(error)}.") from error

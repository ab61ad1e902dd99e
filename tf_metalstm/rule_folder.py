"""A trained rule as a folder, for use as an optimizer.

    FOLDER/manifest.json    the name and options of the rule, its training, its results
    FOLDER/weights.npz      its weights by name, as NumPy arrays

The folder contains no code, and reading it runs none. The rule must be one that the program knows.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tf_metalstm.failures import not_written, reason
from tf_metalstm.files import given_path, whole_file, write_atomically
from tf_metalstm.options import options_of
from tf_metalstm.rules.base import Rule
from tf_metalstm.rules.catalogue import RULES

MANIFEST, WEIGHTS = "manifest.json", "weights.npz"
FORMAT, FORMAT_VERSION = "tf_metalstm.learned_optimizer", 1


class RuleInFolder(NamedTuple):
    """The contents of a folder.

    rule: the rule with its weights, built for the parameters that it was trained on.
    trained_steps: number of updates that it was trained for; None if it is not known.
    manifest: the whole manifest.
    """

    rule: Rule
    trained_steps: int | None
    manifest: dict[str, Any]


def write_rule(
    rule: Rule,
    options: Mapping[str, Any],
    folder: str | Path,
    trained_steps: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes a built rule; files of an earlier call are replaced.

    Args:
        rule: a rule of the catalogue.
        options: values of its options by name.
        folder: the folder; it is created if it does not exist.
        trained_steps: number of updates that the rule was trained for.
        facts: further entries of the manifest, such as the source of the weights and results.

    Returns:
        The manifest.

    Raises:
        FileExistsError: the folder has other files.
        OSError: a file cannot be written; the error names it.
    """
    folder = Path(folder)
    check_replaceable(folder)
    arrays = {weight.path: weight.numpy() for weight in rule.weights}
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "rule": rule.part.name,
        "options": dict(options),
        "trained_steps": trained_steps,
        "built_for": (rule.get_build_config() or {"blocks": []})["blocks"],
        "weights": {name: list(array.shape) for name, array in arrays.items()},
        "sha256": hashlib.sha256(packed.getvalue()).hexdigest(),
        **(facts or {}),
    }
    with whole_file(folder / WEIGHTS) as partial:
        partial.write_bytes(packed.getvalue())
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return manifest


def check_replaceable(folder: str | Path) -> None:
    """Raises a FileExistsError if the folder has files that `write_rule` did not write."""
    folder = Path(folder)
    if not folder.exists():
        return
    try:
        names = {path.name for path in folder.iterdir()}
    except NotADirectoryError:
        names = {"a file"}
    except OSError as error:
        raise not_written(folder, error) from error
    foreign = sorted(names - {MANIFEST, WEIGHTS})
    if not foreign and MANIFEST in names:
        foreign = [] if _is_ours(folder) else [MANIFEST]
    if foreign:
        raise FileExistsError(
            f"{folder} has files of something else, which are not deleted: move "
            f"{', '.join(foreign[:3])} away."
        )


def read_rule(folder: str | Path) -> RuleInFolder:
    """Returns the rule that `write_rule` wrote, with its weights.

    Raises:
        ValueError: the folder has no such files, or they are damaged.
    """
    folder = given_path(folder, "folder")
    manifest = _read_manifest(folder)
    try:
        rule = _fresh_rule(manifest)
        steps, names = manifest["trained_steps"], dict(manifest["weights"])
        steps = None if steps is None else int(steps)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{folder / MANIFEST} does not describe a known rule ({_words(error)}). If it is from "
            "outside the package, call tf_metalstm.add_part first."
        ) from error
    arrays = _read_weights(folder / WEIGHTS, manifest.get("sha256"))
    needed = {weight.path: tuple(weight.shape) for weight in rule.weights}
    shapes = {name: array.shape for name, array in arrays.items()}
    if not needed == shapes == {name: tuple(shape) for name, shape in names.items()}:
        raise ValueError(
            f"{folder / WEIGHTS} has weights of the shapes {shapes}, but the rule "
            f"{manifest['rule']} of the manifest has {needed}: the two files do not belong "
            "together. Export the run again."
        )
    for weight in rule.weights:
        weight.assign(arrays[weight.path])
    return RuleInFolder(rule, steps, manifest)


def _is_ours(folder: Path) -> bool:
    try:
        _read_manifest(folder)
    except ValueError:
        return False
    return True


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    advice = "LearnedOptimizer.load takes a folder that `python -m tf_metalstm.export` wrote."
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({reason(error)}). {advice}") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): export the run again.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        file_format = (
            manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        )
        raise ValueError(f"{path} has the format {file_format!r} and not {FORMAT!r}. {advice}")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {manifest.get('format_version')}, but this program reads "
            f"{FORMAT_VERSION}: use the release of tf_metalstm that wrote it."
        )
    return manifest


def _fresh_rule(manifest: Mapping[str, Any]) -> Rule:
    member = RULES[manifest["rule"]]
    values = dict(manifest["options"])
    for name, each in options_of(member.part.options).items():
        if each.many and isinstance(values.get(name), list):
            values[name] = tuple(values[name])
    # Always in float32; the dtype policy of the model may be another.
    config = member.from_options(member.part.options(**values)).get_config()
    rule = member.from_config({**config, "dtype": "float32"})
    rule.build_from_config({"blocks": manifest["built_for"]})
    return rule


def _read_weights(path: Path, sha256: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of a file, by name; runs nothing in it."""
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({reason(error)}).") from error
    if hashlib.sha256(contents).hexdigest() != sha256:
        raise ValueError(
            f"{path} is not the file that was exported with its {MANIFEST}: it is truncated or "
            "another one. Export the run again."
        )
    try:
        with np.load(io.BytesIO(contents), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no file of NumPy arrays ({_words(error)}).") from error


def _words(error: BaseException) -> str:
    return f"no entry {error}" if isinstance(error, KeyError) else str(error)

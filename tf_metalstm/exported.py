"""An exported model as the start of another run: its settings and weights, from its folder alone.

The manifest has the settings of the method, and the SavedModel has its weights by name. An export
only has what is used after training: after joint training it has no last layer.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_metalstm.catalogue import FAMILIES
from tf_metalstm.construction import build_method
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.data.tasks import FUNCTIONS, IMAGES
from tf_metalstm.methods.few_shot import FewShotMethod
from tf_metalstm.options import Option, options_of
from tf_metalstm.serving.saved_model import MANIFEST, read_manifest
from tf_metalstm.settings import Settings, known_options, make_settings
from tf_metalstm.task_facts import TaskFacts

# The path of another run has no meaning here.
_LEFT_OUT = {"pretrained_run_dir"}


def is_exported(folder: str | Path) -> bool:
    """Returns whether a folder is an exported model."""
    return read_manifest(folder) is not None


def exported_settings(folder: str | Path) -> Settings:
    """Returns the settings of the method and the source of an exported model's training.

    Raises:
        ValueError: the folder has no manifest with these settings.
    """
    manifest = _manifest(folder)
    known = known_options()
    trained, said = manifest["trained"], dict(manifest["method_settings"])
    said |= {"source": trained["source"]}
    of_source = options_of(FAMILIES["source"][trained["source"]].part.options)
    said |= {name: value for name, value in trained.items() if name in of_source}
    if "normalization" in of_source:
        said.setdefault("normalization", "standard")  # of the exports from before that option
    values = {
        name: _value(known[name], value) if name in known else value
        for name, value in said.items()
        if name not in _LEFT_OUT
    }
    return make_settings(values, str(folder), strict=frozenset())


def load_exported(folder: str | Path) -> FewShotMethod:
    """Returns the method of an exported model. Weights that only training uses are new.

    Raises:
        ValueError: the model lacks a weight of the method in its manifest.
    """
    settings = exported_settings(folder)
    method = build_method(settings, _facts(_manifest(folder), settings))
    variables = {
        variable.name.removesuffix(":0"): variable
        for variable in tf.saved_model.load(str(folder)).meta_parameters
    }
    used = {variable.path for variable in method.served_variables}
    for weight in method.weights:  # not `variables`, which also has the random states of dropout
        if weight.path not in used:
            continue
        trained = variables.get(weight.path)
        if trained is None or trained.shape != tuple(weight.shape):
            has = "nothing" if trained is None else f"shape {tuple(trained.shape)}"
            raise ValueError(
                f"{folder} has {has} for {weight.path}, which is {tuple(weight.shape)} in the "
                f"method that its {MANIFEST} describes: export that run again."
            )
        weight.assign(trained.numpy())
    return method


def exported_step(folder: str | Path) -> int:
    """Returns the number of meta-updates of the weights of an exported model."""
    return int(_manifest(folder)["trained"]["updates"])


def exported_fingerprint(folder: str | Path) -> str:
    """Returns a hash of the weights of an exported model."""
    files = sorted(Path(folder, "variables").glob("variables.data-*"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _manifest(folder: str | Path) -> dict[str, Any]:
    manifest = read_manifest(folder) or {}
    if not {"trained", "method_settings"} <= manifest.keys():
        raise ValueError(
            f"{folder} is not a model that export wrote: its {MANIFEST} lacks the settings of its "
            "training."
        )
    return manifest


def _value(each: Option, value: Any) -> Any:
    """Returns the value of an option from its value in JSON."""
    if value is None or not each.many:
        return value
    return each.parse(",".join(str(one) for one in value))


def _facts(manifest: dict[str, Any], settings: Settings) -> TaskFacts:
    is_of_images = "image_shape" in manifest
    normalization = None
    if is_of_images:
        constants = manifest["normalization"]
        normalization = Normalization(tuple(constants["mean"]), tuple(constants["deviation"]))
    num_way = manifest["num_way"] or settings.get("num_way")
    return TaskFacts(
        name=settings.source,
        kind=IMAGES if is_of_images else FUNCTIONS,
        objective=manifest["objective"],
        input_shape=tuple(manifest["image_shape" if is_of_images else "input_shape"]),
        num_outputs=num_way,
        normalization=normalization,
        training_way=settings.get("training_num_way") or settings.get("num_way"),
    )

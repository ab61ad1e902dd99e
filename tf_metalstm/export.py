"""Exports a run: python -m tf_metalstm.export --run_dir=...

A learned optimizer is written to RUN_DIR/optimizer, for `LearnedOptimizer.load`. Any other method
is written to RUN_DIR/saved_model, a SavedModel that needs TensorFlow but not this package. With
--example_dir the command also writes the images of one episode of classes that are new to the
model:

    EXAMPLE_DIR/support/<class>/<k>.png     K images of each of N classes
    EXAMPLE_DIR/query/<class>/<k>.png       Q further images of the same classes
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image

from tf_metalstm import experiment
from tf_metalstm.argv import FOUND_FLAGS
from tf_metalstm.data.episodes import EpisodeSampler
from tf_metalstm.data.tasks import ImageTasks
from tf_metalstm.experiment import TrainedRun
from tf_metalstm.files import write_new_files
from tf_metalstm.flags import read_settings, run_command
from tf_metalstm.methods.base import Method
from tf_metalstm.methods.learned_optimizer import LearnedOptimizerMethod
from tf_metalstm.objectives import OBJECTIVES
from tf_metalstm.options import OptionError, options_of
from tf_metalstm.rule_folder import read_rule, write_rule
from tf_metalstm.runs import changed_settings
from tf_metalstm.serving.saved_model import check_replaceable, read_manifest, save_method
from tf_metalstm.settings import Settings, known_options
from tf_metalstm.training.checkpoints import fingerprint_of_weights
from tf_metalstm.training.provenance import commits

USES = ("evaluation_seed", "checkpoint", "example_dir")

_EXAMPLE_SPLIT = "test"
_NO_FOLDER_NAME = re.compile(r"[^A-Za-z0-9@+_-]+")


def main(settings: Settings) -> None:
    """Exports the run in --run_dir and prints the paths."""
    tf.get_logger().setLevel("ERROR")
    logging.set_verbosity(logging.ERROR)
    run = experiment.load_run(settings)
    if isinstance(run.method, LearnedOptimizerMethod):
        _export_optimizer(settings, run, run.method)
    else:
        _export_model(settings, run)


def _export_model(settings: Settings, run: TrainedRun) -> None:
    """Writes a SavedModel, and the images of an episode with --example_dir."""
    run_dir = Path(settings.run_dir or "")
    target = run_dir / "saved_model"
    check_replaceable(target)
    replaces = read_manifest(target) is not None
    served = experiment.serve(run)
    example = {}
    if settings.evaluation.example_dir is not None:
        tasks = experiment.tasks_of_run(settings, run)
        if not isinstance(tasks, ImageTasks):
            raise OptionError("example_dir", f"is for images, but the source is {tasks.name}.")
        seed = settings.evaluation.evaluation_seed
        example = example_files(tasks.sampler(_EXAMPLE_SPLIT, seed))
        check_example_dir(settings.evaluation.example_dir, example)
    manifest = save_method(served, target, _facts(settings, run))
    print(
        f"{'Replaced' if replaces else 'Wrote'} {target}: the {settings.evaluation.checkpoint} "
        f"weights, after {run.step} meta-updates. Read back, it answers as the method does."
    )
    print(_describe(manifest, run_dir))
    write_new_files(settings.evaluation.example_dir or "", example)
    found = run_dir / FOUND_FLAGS
    if found.is_file() and _differs_from(settings, found):
        print(f"It does not use the result of search: for that, add --flagfile={found}.")
    if served.has_classes and served.takes_images:
        print(_next_command(target, settings.evaluation.example_dir))


def _export_optimizer(settings: Settings, run: TrainedRun, method: LearnedOptimizerMethod) -> None:
    """Writes the rule of a run to a folder, and reads it back to check it."""
    if settings.evaluation.example_dir is not None:
        raise OptionError("example_dir", "is for images, and an optimizer has none.")
    run_dir = Path(settings.run_dir or "")
    target, trained_steps = run_dir / "optimizer", method.inner_loop.num_steps
    options = dataclasses.asdict(settings.of_member("rule"))
    facts = _facts(settings, run)
    write_rule(method.rule, options, target, trained_steps, facts)
    read_rule(target)
    print(
        f"Wrote {target}: the {settings.evaluation.checkpoint} weights of the rule "
        f"{method.rule.part.name}, after {run.step} meta-updates on {trained_steps} updates."
    )
    print(_measured(facts["measured"], method.objective.name, run_dir))
    print(f'Next: model.compile(optimizer=tf_metalstm.LearnedOptimizer.load("{target}"), loss=...)')


def matching_reports(
    run_dir: str | Path, method: Method, checkpoint: str, step: int, changed: dict[str, Any]
) -> list[dict[str, Any]]:
    """Returns the results of `evaluate` on unseen classes for exactly the exported weights.

    Args:
        run_dir: folder of the run.
        method: the exported method.
        checkpoint: "best" or "last". With averaged weights they differ even at the same step.
        step: number of updates of the exported weights.
        changed: settings of the method that differ from the training, by name.
    """
    expected = {
        "split": "test",
        "checkpoint": checkpoint,
        "step": step,
        "num_steps": method.num_updates,
        "query_normalization": method.query_normalization,
    }
    weights = fingerprint_of_weights(run_dir, checkpoint, step)
    reports = []
    for path in sorted(Path(run_dir, "evaluation").glob("*.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{path} is not the report that evaluate writes ({error}): run evaluate again, or "
                "move the file away."
            ) from error
        matches = all(report.get(name) == value for name, value in expected.items())
        matches = matches and report.get("changed", {}) == changed
        matches = matches and not report.get("other_data", False)
        matches = matches and report.get("weights") in (None, weights)  # earlier reports had none
        # One episode has no interval, and early reports had other names.
        if matches and None not in (report.get("mean"), report.get("interval")):
            # A manifest does not have the scores of single episodes and classes.
            report.get("transductive", {}).pop("scores", None)
            short = {name: v for name, v in report.items() if not isinstance(v, list)}
            short.pop("by_class", None)
            reports.append(short)
    return reports


def example_files(sampler: EpisodeSampler) -> dict[str, bytes]:
    """Returns the images of episode 0 as PNG files, by their path in the example folder."""
    classes, num_shot = sampler.classes, sampler.spec.num_shot
    drawn, members = (tensor.numpy() for tensor in sampler.sample(0))
    first_rows = np.cumsum(classes.class_sizes) - classes.class_sizes
    files = {}
    folders = folder_names([classes.class_names[number] for number in drawn])
    for folder, number, row in zip(folders, drawn, members, strict=True):
        images = classes.images[first_rows[number] + row]
        for part, stretch in (("support", images[:num_shot]), ("query", images[num_shot:])):
            for k, pixels in enumerate(stretch):
                files[f"{part}/{folder}/{k:03d}.png"] = _png(pixels)
    return files


def folder_names(class_names: Sequence[str]) -> list[str]:
    """Returns different names of the classes, which every file system accepts as folders.

    >>> folder_names(["Greek/alpha@090", "Greek alpha@090", ".."])
    ['Greek_alpha@090', 'Greek_alpha@090_2', 'class']
    """
    names: list[str] = []
    taken: set[str] = set()
    for class_name in class_names:
        plain = _NO_FOLDER_NAME.sub("_", class_name).strip("_") or "class"
        name, number = plain, 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}_{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def check_example_dir(directory: str | Path, files: dict[str, bytes]) -> None:
    """Raises a FileExistsError if the folder holds anything but these files."""
    root = Path(directory)
    for path in sorted(root.rglob("*")) if root.is_dir() else [root] if root.exists() else []:
        name = path.relative_to(root).as_posix()
        if not path.is_dir() and (name not in files or path.read_bytes() != files[name]):
            raise FileExistsError(
                f"example_dir={directory} already holds something else ({name}): nothing is "
                "overwritten. Name another folder, or move that one away."
            )


def _facts(settings: Settings, run: TrainedRun) -> dict[str, Any]:
    """Returns the facts about the origin of the weights for the manifest."""
    run_dir = settings.run_dir or ""
    training = read_settings(run_dir)  # not the flags of this command
    weights, changed = settings.evaluation.checkpoint, changed_settings(training, settings)
    trained: dict[str, Any] = {"source": training.source}
    for name, each in options_of(training.member("source").part.options).items():
        if not each.may_change and training.values.get(name) is not None:
            trained[name] = training.values[name]
    trained |= {
        "updates": run.step,
        "checkpoint": weights,
        "learner_precision": training.get("learner_precision"),
        "commits": commits(run_dir),
    }
    of_method = {
        name: settings.values[name]
        for family in settings.chosen
        if family != "source"
        for name in options_of(settings.member(family).part.options)
        if name in settings.values
    }
    chosen = {family: name for family, name in settings.chosen.items() if family != "source"}
    if of_method.get("pretrained_run_dir") is not None:  # a path has no meaning elsewhere
        of_method["pretrained_run_dir"] = Path(of_method["pretrained_run_dir"]).name
    return {
        "method_settings": {**chosen, **of_method},
        "trained": trained,
        "measured": matching_reports(run_dir, run.method, weights, run.step, changed),
    }


def _differs_from(settings: Settings, found: Path) -> bool:
    """Returns whether the settings differ from those in the file that `search` wrote."""
    known = known_options()
    lines = found.read_text(encoding="utf-8").splitlines()
    for line in [line for line in lines if line.startswith("--")]:  # others are comments
        name, _, value = line.removeprefix("--").partition("=")
        try:
            wanted = known[name].parse(value) if name in known else value
        except ValueError:  # changed by hand
            return True
        if settings.get(name) != wanted:
            return True
    return False


def _describe(manifest: dict[str, Any], run_dir: Path) -> str:
    steps = f", in {manifest['num_steps']} updates" if "num_steps" in manifest else ""
    if "image_shape" in manifest:
        height, width, channels = manifest["image_shape"]
        lines = [
            f"  adapts     to {_classes(manifest['num_way'])}{steps}",
            f"  images     {height} x {width}, {'color' if channels == 3 else 'gray'}",
        ]
    else:
        has_classes = OBJECTIVES[manifest["objective"]].has_classes
        what = _classes(manifest["num_way"]) if has_classes else "a function"
        shape = " x ".join(map(str, manifest["input_shape"]))
        lines = [f"  adapts     to {what}{steps}", f"  inputs     {shape} numbers"]
    lines.append(f"  batch norm {manifest['query_normalization']}")
    return "\n".join([*lines, _measured(manifest["measured"], manifest["objective"], run_dir)])


def _measured(reports: list[dict[str, Any]], objective_name: str, run_dir: Path) -> str:
    """Returns the scores for the manifest, or a sentence about how to measure them."""
    objective = OBJECTIVES[objective_name]
    if not reports:
        return (
            f"  {objective.score_name:<10} not measured for these weights. To have it in the "
            f"manifest: python -m tf_metalstm.evaluate --run_dir={run_dir}, then export again."
        )
    return "\n".join(
        f"  {objective.score_name:<10} {objective.text(report['mean'], report['interval'])} "
        f"({report['task']}, {report['num_episodes']} test episodes)"
        for report in reports
    )


def _classes(num_way: int | None) -> str:
    return "any number of classes" if num_way is None else f"at most {num_way} classes"


def _next_command(target: Path, example_dir: str | None) -> str:
    # In a clone the script itself is named, because it shows what a client needs.
    client = "export/adapt.py" if Path("export", "adapt.py").is_file() else "-m tf_metalstm adapt"
    command = f"python {client} --model {target}"
    if example_dir is None:
        return f"Next, with one folder of images a class: {command} --support DIR --query DIR"
    support, query = Path(example_dir, "support"), Path(example_dir, "query")
    return (
        f"Wrote {example_dir}: the images of one episode of classes that training never saw.\n"
        f"Next: {command} --support {support} --query {query}"
    )


def _png(pixels: np.ndarray) -> bytes:
    """Returns an image, uint8 [h, w, 1 or 3], as a PNG file."""
    png = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(png, format="PNG")
    return png.getvalue()


if __name__ == "__main__":
    run_command(main, continues_a_run=True, uses=USES, data_for="example_dir")

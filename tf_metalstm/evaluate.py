"""Evaluates a trained run on a fixed list of episodes: python -m tf_metalstm.evaluate --run_dir=...

It prints a table and writes RUN_DIR/evaluation/*.json with the score of every episode, so that two
methods can be compared episode by episode. Where classes have names it also says which classes are
confused. The confusion matrix is in the report and, as a figure, in RUN_DIR/figures.
"""

from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tf_metalstm import experiment
from tf_metalstm.confusion import Confusion
from tf_metalstm.data.episodes import Episodes, ImageEpisodes
from tf_metalstm.data.streams import StreamEpisodes
from tf_metalstm.files import result_name, write_atomically
from tf_metalstm.flags import read_settings, run_command
from tf_metalstm.objectives import OBJECTIVES
from tf_metalstm.runs import changed_settings
from tf_metalstm.scoring import episode_scores, questions
from tf_metalstm.settings import Settings
from tf_metalstm.showings import AccuracyByShowing
from tf_metalstm.training.checkpoints import fingerprint_of_weights
from tf_metalstm.training.metrics import estimate
from tf_metalstm.visualization.confusion import confusion_figure

_HARDEST = 5  # classes that are printed

USES = ("split", "num_episodes", "evaluation_seed", "checkpoint")


def main(settings: Settings) -> None:
    """Evaluates the run in --run_dir, prints the result and writes a report."""
    run = experiment.load_run(settings)
    method, evaluation = run.method, settings.evaluation
    # Taken now: a training may go on and replace the file.
    weights = fingerprint_of_weights(settings.run_dir or "", evaluation.checkpoint, run.step)
    tasks = experiment.tasks_of_run(settings, run)
    episodes = tasks.episodes(evaluation.split, evaluation.evaluation_seed)
    stream, answer = questions(method, episodes, evaluation.num_episodes, both_modes=True)
    confusion, each = _by_class(episodes)
    by_showing = AccuracyByShowing() if isinstance(episodes, StreamEpisodes) else None
    if by_showing is not None:
        confusion, each = None, by_showing.add
    scores, num_diverged, transductive = episode_scores(method, stream, each=each, answer=answer)
    data, trained_on = tasks.data_fingerprint(), run.facts.fingerprint
    report = {
        "objective": tasks.objective,
        "score": method.objective.score_name,
        **_estimated(scores),
        "num_episodes": evaluation.num_episodes,
        "method": settings.method,
        "query_normalization": method.query_normalization,
        "changed": changed_settings(read_settings(settings.run_dir or ""), settings),
        "batch_norm": method.describe_normalization(),
        "source": settings.source,
        "split": evaluation.split,
        "task": tasks.task,
        **tasks.sizes(),
        "num_steps": method.num_updates,
        "checkpoint": evaluation.checkpoint,
        "step": run.step,
        "weights": weights,
        "evaluation_seed": evaluation.evaluation_seed,
        "list_fingerprint": episodes.fingerprint(evaluation.num_episodes),
        "data_fingerprint": data,
        "other_data": trained_on not in (None, data),
        "num_diverged": num_diverged,
        **({} if confusion is None else {"by_class": confusion.report()}),
        **({} if by_showing is None else {"by_showing": by_showing.report()}),
        **_listed(scores),
    }
    if transductive is not None:
        mode = getattr(method, "transductive_mode", None)
        report["transductive"] = {
            **_estimated(transductive),
            "batch_norm": mode,
            **_listed(transductive),
        }
    path = write_report(report, settings.run_dir or "")
    print(describe(report))
    if by_showing is not None:
        print(textwrap.indent(by_showing.table(), "  "))
    if report["other_data"] and settings.source == run.facts.name:
        print(
            f"These are not the data that the run was trained on (fingerprint {data}, not "
            f"{trained_on}). Images are normalized as in the training."
        )
    print(f"Written to {path}")
    if confusion is not None:
        print("Accuracy by class, the lowest first. Shares are of episodes that have both classes:")
        print(textwrap.indent(confusion.table(_HARDEST), "  "))
        figure = confusion_figure(confusion, f"{tasks.name}/{evaluation.split}, {tasks.task}")
        drawn = path.parent.with_name("figures") / f"confusion_{path.stem}.png"
        drawn.parent.mkdir(exist_ok=True)
        figure.savefig(drawn)
        print(f"Written to {drawn}")


def _estimated(scores: np.ndarray) -> dict[str, float | None]:
    mean, interval = estimate(scores)
    return {"mean": finite_or_none(mean), "interval": finite_or_none(interval)}


def _listed(scores: np.ndarray) -> dict[str, list[float | None]]:
    return {"scores": [finite_or_none(round(float(score), 6)) for score in scores]}


def _by_class(
    episodes: Episodes,
) -> tuple[Confusion | None, Callable[[np.ndarray, np.ndarray], None] | None]:
    """Returns counts by class and a function that adds an episode; None if classes lack names."""
    if not isinstance(episodes, ImageEpisodes):
        return None, None
    confusion, numbers = Confusion(episodes.sampler.classes.class_names), itertools.count()

    def add(labels: np.ndarray, outputs: np.ndarray) -> None:
        confusion.add(episodes.classes(next(numbers)), labels, outputs)

    return confusion, add


def write_report(report: dict, run_dir: str | Path) -> Path:
    """Writes a report, whose name tells what was evaluated; returns its path."""
    way = "{num_steps}steps_" if report["num_steps"] is not None else ""
    way += "{query_normalization}_" if report["query_normalization"] is not None else ""
    way += "".join(f"{key}{value}_" for key, value in report["changed"].items())
    if report.get("other_data") or "source" in report["changed"]:
        way += "data{data_fingerprint}_"
    queries = "{num_query}queries_" if "num_query" in report else ""
    name = (
        "{split}_{task}_" + queries + way + "{checkpoint}{step}"
        "_{num_episodes}episodes_seed{evaluation_seed}"
    ).format(**report)
    name = result_name(name.replace("-", "").replace(" ", "_"))  # it has "5-way 1-shot"
    path = Path(run_dir, "evaluation", f"{name}.json")
    write_atomically(path, json.dumps(report, indent=1) + "\n")
    return path


def finite_or_none(value: float) -> float | None:
    """Returns a number, or None for infinity and not-a-number, which JSON lacks."""
    return float(value) if np.isfinite(value) else None


def describe(report: dict) -> str:
    """Returns the table of a report."""
    task = report["task"]
    if "num_query" in report:
        each = "" if report["num_way"] == 1 else " a class"
        task += f", {report['num_query']} queries{each}"
    rows = {
        "episodes": "{num_episodes} of {source}/{split}, seed {evaluation_seed}, "
        "list {list_fingerprint}",
        "task": task if report["num_steps"] is None else f"{task}, {{num_steps}} updates",
        "weights": "{checkpoint}, after {step} meta-updates",
        "batch norm": "{batch_norm}",
    }
    text = {name: row.format(**report) for name, row in rows.items()}
    if report["mean"] is None:
        text[report["score"]] = (
            f"none: {report['num_diverged']} of {report['num_episodes']} episodes diverged, their "
            f"{report['score']} is not a number. Try fewer updates or a lower rate"
        )
    else:
        mean = report["mean"]
        interval = float("nan") if report["interval"] is None else report["interval"]
        score = OBJECTIVES[report["objective"]].text(mean, interval)
        text[report["score"]] = f"{score} (95 %)"
        other = report.get("transductive") or {"mean": None}
        if other["mean"] is not None:
            interval = float("nan") if other["interval"] is None else other["interval"]
            score = OBJECTIVES[report["objective"]].text(other["mean"], interval)
            text["the same"] = f"{score}, {other['batch_norm']}"
        if report["num_diverged"]:
            count = f"{report['num_diverged']} of {report['num_episodes']} episodes"
            text["diverged"] = f"{count}, counted as wrong. Try fewer updates or a lower rate"
    return "\n".join(f"{name:>10}  {value}" for name, value in text.items())


if __name__ == "__main__":
    run_command(main, continues_a_run=True, uses=USES)

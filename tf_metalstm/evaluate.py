"""Evaluates a trained run on a fixed list of episodes: python -m tf_metalstm.evaluate --run_dir=...

Prints a table and writes RUN_DIR/evaluation/*.json with the score of every episode, so
that two methods can be compared episode by episode.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tf_metalstm import experiment
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.files import write_atomically
from tf_metalstm.flags import changed_settings, run_command
from tf_metalstm.objectives import OBJECTIVES
from tf_metalstm.scoring import episode_scores
from tf_metalstm.settings import Settings
from tf_metalstm.training.metrics import estimate


def main(settings: Settings) -> None:
    """Evaluates the run in --run_dir and writes what came out."""
    tasks = experiment.build_tasks(settings.data)
    method, checkpoints = experiment.load_method(settings, tasks)
    evaluation = settings.evaluation
    episodes = tasks.episodes(evaluation.split, evaluation.evaluation_seed)
    stream = episode_dataset(episodes, num_episodes=evaluation.num_episodes)
    scores, num_diverged = episode_scores(method, stream, tasks.num_outputs)
    mean, interval = estimate(scores)
    report = {
        "objective": tasks.objective,
        "score": method.objective.score_name,
        "mean": finite_or_none(mean),
        "interval": finite_or_none(interval),
        "num_episodes": evaluation.num_episodes,
        "method": settings.method.method,
        "query_normalization": method.query_normalization,
        "changed": changed_settings(settings),
        "batch_norm": method.describe_normalization(),
        "source": settings.data.source,
        "split": evaluation.split,
        "task": tasks.spec.task,
        "num_way": tasks.spec.num_way,
        "num_shot": tasks.spec.num_shot,
        "num_query": tasks.spec.num_query,
        "num_steps": method.num_updates,
        "checkpoint": evaluation.checkpoint,
        "step": int(checkpoints.step.numpy()),
        "evaluation_seed": evaluation.evaluation_seed,
        "list_fingerprint": episodes.fingerprint(evaluation.num_episodes),
        "num_diverged": num_diverged,
        "scores": [finite_or_none(round(float(score), 6)) for score in scores],
    }
    path = write_report(report, settings.run_dir or "")
    print(describe(report, str(tasks.spec)))
    print(f"Written to {path}")


def write_report(report: dict, run_dir: str | Path) -> Path:
    """Writes a report under a name that says what was evaluated; returns its path."""
    way = "{num_steps}steps_{query_normalization}_" if report["num_steps"] is not None else ""
    way += "".join(f"{key}{value}_" for key, value in report["changed"].items())
    name = (
        "{split}_{task}_{num_query}queries_" + way + "{checkpoint}{step}"
        "_{num_episodes}episodes_seed{evaluation_seed}.json"
    ).format(**report)
    name = name.replace("-", "").replace(" ", "_")  # "5-way 1-shot" in the name of a file
    path = Path(run_dir, "evaluation", name)
    write_atomically(path, json.dumps(report, indent=1) + "\n")
    return path


def finite_or_none(value: float) -> float | None:
    """Returns a number, or None for what JSON has no word for."""
    return float(value) if np.isfinite(value) else None


def describe(report: dict, task: str) -> str:
    """Returns a report as the table that is printed; `task` says how large an episode is."""
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
        if report["num_diverged"]:
            count = f"{report['num_diverged']} of {report['num_episodes']} episodes"
            text["diverged"] = f"{count}, taken as wrong. Try fewer updates or a lower rate"
    return "\n".join(f"{name:>10}  {value}" for name, value in text.items())


if __name__ == "__main__":
    run_command(main, continues_a_run=True)

"""Evaluates a trained run on a fixed list of episodes: python -m tf_metalstm.evaluate --run_dir=...

Prints a table and writes RUN_DIR/evaluation/*.json with the accuracy of every episode,
so that two methods can be compared episode by episode.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
import tqdm

from tf_metalstm import experiment
from tf_metalstm.data.episodes import EpisodeSampler, episode_dataset
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.flags import run_command
from tf_metalstm.methods.base import FewShotMethod
from tf_metalstm.methods.gradient_based import describe_normalization
from tf_metalstm.settings import Settings
from tf_metalstm.training.metrics import estimate


def main(settings: Settings) -> None:
    """Evaluates the run in --run_dir and writes what came out."""
    source = experiment.build_source(settings.data)
    normalization = experiment.build_normalization(settings.data, source)
    method, checkpoints = experiment.load_method(settings, source)
    evaluation = settings.evaluation
    sampler = experiment.build_sampler(
        settings.data, source, evaluation.split, evaluation.evaluation_seed
    )
    accuracies = episode_accuracies(method, sampler, normalization, evaluation.num_episodes)
    mean, interval = estimate(accuracies)
    report = {
        "accuracy": mean,
        "interval": interval,
        "num_episodes": evaluation.num_episodes,
        "query_normalization": settings.method.query_normalization,
        "source": settings.data.source,
        "split": evaluation.split,
        "num_way": settings.data.num_way,
        "num_shot": settings.data.num_shot,
        "num_query": settings.data.num_query,
        "num_steps": settings.method.num_steps,
        "checkpoint": evaluation.checkpoint,
        "step": int(checkpoints.step.numpy()),
        "evaluation_seed": evaluation.evaluation_seed,
        "list_fingerprint": sampler.fingerprint(evaluation.num_episodes),
        "accuracies": [round(float(accuracy), 6) for accuracy in accuracies],
    }
    path = write_report(report, settings.run_dir or "")
    print(_table(report))
    print(f"Written to {path}")


def episode_accuracies(
    method: FewShotMethod,
    sampler: EpisodeSampler,
    normalization: Normalization,
    num_episodes: int,
) -> np.ndarray:
    """Returns the accuracy of each of the first `num_episodes` episodes, [num_episodes].

    With fewer ways than the learner has outputs, only the outputs in use can be answers.
    """
    num_way = sampler.spec.num_way
    classify = tf.function(lambda inputs: method(inputs, training=False)[..., :num_way])
    episodes = episode_dataset(sampler, normalization, num_episodes=num_episodes)
    accuracies = []
    for inputs, labels in tqdm.tqdm(episodes, total=num_episodes, unit="episode", mininterval=1):
        answers = np.argmax(classify(inputs), axis=-1)
        accuracies.append(np.mean(answers == labels.numpy()))
    return np.asarray(accuracies)


def write_report(report: dict, run_dir: str | Path) -> Path:
    """Writes a report under a name that says what was evaluated; returns its path."""
    name = (
        "{split}_{num_way}way_{num_shot}shot_{num_steps}steps_{query_normalization}_{checkpoint}"
        "_{num_episodes}episodes_seed{evaluation_seed}.json"
    ).format(**report)
    path = Path(run_dir, "evaluation", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path


def _table(report: dict) -> str:
    rows = {
        "episodes": "{num_episodes} of {source}/{split}, seed {evaluation_seed}, "
        "list {list_fingerprint}",
        "task": "{num_way}-way {num_shot}-shot, {num_query} queries a class, {num_steps} updates",
        "weights": "{checkpoint}, after {step} meta-updates",
    }
    text = {name: row.format(**report) for name, row in rows.items()}
    text["batch norm"] = describe_normalization(report["query_normalization"])
    text["accuracy"] = f"{100 * report['accuracy']:.2f} +- {100 * report['interval']:.2f} % (95 %)"
    return "\n".join(f"{name:>10}  {value}" for name, value in text.items())


if __name__ == "__main__":
    run_command(main, continues_a_run=True)

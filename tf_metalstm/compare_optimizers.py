"""Compares a learned optimizer with others: python -m tf_metalstm.compare_optimizers --run_dir=...

Each of Keras's optimizers, or Adam and those in --baselines, gets the best of 14 learning rates,
chosen on --validation_episodes problems of the validation split. All are then tested on the same
--num_episodes problems of --split, and Adam also at Keras's default rate. The
command prints a table, writes it to RUN_DIR/comparison as .json, .txt and .png, and writes the
curves for TensorBoard. With --num_evaluation_steps there can be more updates than in training;
--source and its options choose other problems. Exported learned optimizers in --optimizer_dirs are
tested on the same problems.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_metalstm import experiment
from tf_metalstm.comparison.keras_optimizers import (
    BASELINES,
    Baseline,
    Minimizer,
    applicable,
    search_rate,
)
from tf_metalstm.comparison.statistics import Comparison, compare, curve
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.files import result_name, write_atomically
from tf_metalstm.flags import read_settings, run_command
from tf_metalstm.keras_optimizer import fitted
from tf_metalstm.methods.learned_optimizer import LearnedOptimizerMethod
from tf_metalstm.options import OptionError
from tf_metalstm.parameters import Blocks
from tf_metalstm.rule_folder import read_rule
from tf_metalstm.runs import changed_settings
from tf_metalstm.settings import Settings
from tf_metalstm.visualization.optimizers import curves_figure

USES = (
    "split",
    "num_episodes",
    "evaluation_seed",
    "checkpoint",
    "validation_episodes",
    "optimizer_dirs",
    "baselines",
)

ADAM, LEARNED, UNTUNED = "Adam", "learned", "Adam, not tuned"
DEFAULT_RATE = 1e-3  # of Keras's Adam


def main(settings: Settings) -> None:
    """Compares the rule of the run in --run_dir with tuned optimizers."""
    run = experiment.load_run(settings)
    method = run.method
    if not isinstance(method, LearnedOptimizerMethod):
        raise ValueError(
            f"method={settings.method} is no learned optimizer: give the run of one, trained with "
            "method=learned_optimizer."
        )
    tasks, evaluation = method.tasks, settings.evaluation
    listed = tasks.episodes(evaluation.split, evaluation.evaluation_seed)
    searched = tasks.episodes("validation", evaluation.evaluation_seed)
    test = _batch(listed, evaluation.num_episodes)
    search = _batch(searched, settings.training.validation_episodes)

    others = exported_methods(evaluation.optimizer_dirs, method)
    losses = {LEARNED: np.array(method(test, training=False))}
    losses |= {name: np.array(other(test, training=False)) for name, other in others.items()}
    rates: dict[str, dict[float, float]] = {}
    chosen: dict[str, float] = {}
    for baseline in _chosen_baselines(evaluation.baselines, tasks.blocks):
        minimizer = Minimizer(baseline, tasks, search, method.num_updates)
        rate, rates[baseline.name] = search_rate(minimizer)
        chosen[baseline.name] = rate
        tested = Minimizer(baseline, tasks, test, method.num_updates)
        losses[baseline.name] = tested.losses(rate)
        print(f"{baseline.name:>20}  learning rate {rate:.2g}", flush=True)
        if baseline.name == ADAM:
            losses[UNTUNED] = tested.losses(DEFAULT_RATE)
    best = best_baseline({name: losses[name] for name in chosen})
    chosen[UNTUNED] = DEFAULT_RATE
    comparisons = {name: compare(each, losses[best], losses[ADAM]) for name, each in losses.items()}
    facts = {
        "source": settings.source,
        "task": tasks.task,
        "split": evaluation.split,
        "num_steps": method.num_updates,
        "num_episodes": evaluation.num_episodes,
        "evaluation_seed": evaluation.evaluation_seed,
        "list_fingerprint": listed.fingerprint(evaluation.num_episodes),
        "search_episodes": settings.training.validation_episodes,
        "changed": changed_settings(read_settings(settings.run_dir or ""), settings),
        "rule": method.facts()["rule"],
        "baselines": list(evaluation.baselines),
        "exported": dict(zip(others, evaluation.optimizer_dirs, strict=True)),
        "seed": settings.training.seed,
        "checkpoint": evaluation.checkpoint,
        "step": run.step,
        "best_baseline": best,
    }
    _write(settings.run_dir or "", facts, comparisons, losses, chosen, rates)


def _chosen_baselines(names: Sequence[str], blocks: Blocks) -> list[Baseline]:
    """Returns Adam and the named optimizers; all that apply to these blocks if there are none."""
    usable = applicable(blocks)
    for name in names:
        if name not in {each.name for each in usable}:
            raise OptionError(
                "baselines",
                f"has {name}, which needs matrices, but these problems have none: leave it out.",
            )
    return [each for each in usable if not names or each.name in (ADAM, *names)]


def exported_methods(
    folders: Sequence[str], method: LearnedOptimizerMethod
) -> dict[str, LearnedOptimizerMethod]:
    """Returns exported rules as methods for the same problems and number of updates, by name.

    Args:
        folders: folders that export wrote. The name is that of the folder, or of the run around it.
        method: the method of the run.

    Raises:
        OptionError: a folder has no rule, or two have the same name.
        ValueError: a rule does not fit the problems.
    """
    methods: dict[str, LearnedOptimizerMethod] = {}
    for folder in folders:
        path = Path(folder).resolve()
        name = path.parent.name if path.name == "optimizer" else path.name
        if name in {*methods, *(each.name for each in BASELINES), LEARNED, UNTUNED}:
            raise OptionError(
                "optimizer_dirs", f"has two optimizers called {name}: rename a folder."
            )
        try:
            rule = read_rule(folder).rule
        except ValueError as error:
            raise OptionError("optimizer_dirs", f"cannot be used: {error}") from error
        rule = fitted(type(rule).from_config(rule.get_config()), rule, method.blocks)
        methods[name] = LearnedOptimizerMethod(rule, method.tasks, method.evaluation_loop)
    return methods


def best_baseline(losses: Mapping[str, np.ndarray]) -> str:
    """Returns the name of the baseline with the lowest mean last loss.

    Args:
        losses: losses of each baseline by name, [E, T + 1].
    """
    last = {name: each[:, -1].mean() for name, each in losses.items()}
    return min(last, key=lambda name: last[name] if np.isfinite(last[name]) else np.inf)


def table(facts: Mapping[str, Any], comparisons: Mapping[str, Comparison], rates: Mapping) -> str:
    """Returns the printed table. A row is an optimizer; the lowest loss comes first.

    Args:
        facts: facts about the comparison.
        comparisons: results of each optimizer, by name.
        rates: learning rate of each baseline, by name.
    """
    lines = [
        f"{facts['source']}/{facts['split']}, {facts['task']}: {facts['num_episodes']} problems, "
        f"list {facts['list_fingerprint']}, {facts['num_steps']} updates",
        f"{'':20} {'rate':>8}  {'log10 of mean final loss':>26}  {'below the best baseline':>26}  "
        f"{'speed-up':>8}  {'over Adam, IQM':>22}",
    ]
    for name in sorted(comparisons, key=lambda name: comparisons[name].log10_final.value):
        one = comparisons[name]
        rate = f"{rates[name]:.2g}" if name in rates else "-"
        speed = "-" if one.speed_up is None else f"{one.speed_up:.2f}"
        lines.append(
            f"{name:20} {rate:>8}  {_text(one.log10_final):>26}  {_text(one.below_best):>26}  "
            f"{speed:>8}  {_text(one.over_adam):>22}"
        )
    lines.append("Intervals are 95 %; the speed-up is over tuned Adam.")
    return "\n".join(lines)


def _text(interval: tuple[float, float, float]) -> str:
    value, low, high = interval
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def _batch(episodes: Any, number: int) -> dict[str, tf.Tensor]:
    """Returns the tensors of all problems of a list, [E, ...] each."""
    stream = episode_dataset(episodes, num_episodes=number, episodes_per_step=number)
    return dict(next(iter(stream))[0])


def _write(
    run_dir: str,
    facts: dict[str, Any],
    comparisons: Mapping[str, Comparison],
    losses: Mapping[str, np.ndarray],
    chosen: Mapping[str, float],
    rates: Mapping[str, Mapping[float, float]],
) -> None:
    """Prints the table and writes everything."""
    text = table(facts, comparisons, chosen)
    print(text)
    curves = {name: curve(each) for name, each in losses.items()}
    report = {
        **facts,
        "optimizers": {
            name: {
                "learning_rate": chosen.get(name),
                "log10_final": _numbers(one.log10_final),
                "below_best": _numbers(one.below_best),
                "speed_up": one.speed_up,
                "over_adam": _numbers(one.over_adam),
                "mean_losses": _numbers(curves[name][0]),
                "intervals": _numbers(curves[name][1]),
                "final_losses": _numbers(losses[name][:, -1]),
                "searched": {f"{k:.3g}": _numbers([v])[0] for k, v in rates.get(name, {}).items()},
            }
            for name, one in comparisons.items()
        },
    }
    changed = "".join(f"{key}{value}_" for key, value in facts["changed"].items())
    name = f"{facts['split']}_{facts['source']}_{facts['num_steps']}updates_{changed}"
    name += f"{facts['checkpoint']}{facts['step']}_{facts['num_episodes']}problems"
    name += f"_seed{facts['evaluation_seed']}_{facts['search_episodes']}searched"
    name += "".join(f"_{other}" for other in (*facts["exported"], *facts["baselines"]))
    path = Path(run_dir, "comparison", f"{result_name(name)}.json")
    write_atomically(path, json.dumps(report, indent=1) + "\n")
    write_atomically(path.with_suffix(".txt"), text + "\n")
    others = [name for name in comparisons if name != LEARNED]
    order = [LEARNED, *sorted(others, key=lambda name: comparisons[name].log10_final.value)]
    number = f"{facts['num_episodes']} problems of the {facts['split']} split"
    caption = f"{facts['source']}, {facts['task']}, {number}"
    curves_figure({name: curves[name] for name in order}, caption).savefig(path.with_suffix(".png"))
    _write_events(Path(run_dir, "tensorboard", "comparison"), path.stem, curves)
    print(f"Written to {path}, .txt and .png beside it")


def _write_events(folder: Path, title: str, curves: Mapping[str, tuple]) -> None:
    """Writes the mean losses as curves to TensorBoard, a run for each optimizer."""
    for name, (mean, _) in curves.items():
        writer = tf.summary.create_file_writer(str(folder / re.sub(r"\W", "_", name)))
        with writer.as_default():
            for step, value in enumerate(mean):
                tf.summary.scalar(f"comparison/{title}", float(value), step=step)
        writer.close()


def _numbers(values: Any) -> list[float | None]:
    """Returns numbers for JSON, which has no infinity."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


if __name__ == "__main__":
    run_command(main, continues_a_run=True, uses=USES)

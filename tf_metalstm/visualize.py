"""Draws the updates of a trained rule: python -m tf_metalstm.visualize --run_dir=...

It uses the first 20 tasks of the fixed list of --split, or --num_episodes if that is less. (The
authors of the meta-LSTM used validation.) It writes RUN_DIR/figures/trace.png, as figure 3 of the
paper, and RUN_DIR/figures/loss.png. For a run on functions it also writes RUN_DIR/figures/fits.png,
with the run of --baseline_run_dir below. The same figures are written to
RUN_DIR/tensorboard/visualize, which TensorBoard shows as a separate run. Histograms are written in
the training only: TensorBoard's DISTRIBUTIONS are empty where there is one step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from tf_metalstm import experiment
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.data.tasks import EpisodeTasks, Tasks
from tf_metalstm.episode import Support
from tf_metalstm.files import whole_file
from tf_metalstm.flags import read_settings, run_command
from tf_metalstm.methods.base import LOSSES
from tf_metalstm.methods.few_shot import FewShotMethod
from tf_metalstm.options import OptionError
from tf_metalstm.settings import Settings
from tf_metalstm.visualization.figures import figure_image, loss_figure, title_of, trace_figure
from tf_metalstm.visualization.fits import Fit, fit, fit_figure
from tf_metalstm.visualization.traces import (
    WEIGHT_DECAY,
    collect,
    curves_at,
    first_tasks,
    trace_function,
    with_weight_decay,
)

USES = ("split", "num_episodes", "evaluation_seed", "checkpoint", "baseline_run_dir")

_CURVES = 20  # as many as in the paper's figure
_FUNCTIONS = 3


def main(settings: Settings) -> None:
    """Draws the updates of the run in --run_dir."""
    run_dir, evaluation = Path(settings.run_dir or ""), settings.evaluation
    run = experiment.load_run(settings)
    method, tasks = run.method, experiment.tasks_of_run(settings, run)
    if method.num_updates is None:
        raise ValueError(
            f"run_dir={run_dir} is a run of method={settings.method}, which makes no updates: "
            "there is nothing to draw. Choose a run of a method with updates."
        )
    if method.num_updates < 1:
        raise ValueError("There are no updates to draw, num_steps is 0: set num_evaluation_steps.")
    plot_range = tasks.plot_range if isinstance(tasks, EpisodeTasks) else None
    if evaluation.baseline_run_dir and plot_range is None:
        raise OptionError(
            "baseline_run_dir", f"is for functions that can be drawn, not for source={tasks.name}."
        )
    episodes = episode_dataset(
        tasks.episodes(evaluation.split, evaluation.evaluation_seed),
        num_episodes=evaluation.num_episodes,
    )
    traces = with_weight_decay(collect(trace_function(method), first_tasks(episodes, _CURVES)))
    curves = curves_at(traces, method.blocks)
    caption = (
        f"{run_dir.resolve().name} after {run.step:,} meta-updates: {len(traces[LOSSES])} "
        f"{evaluation.split} tasks of {tasks.name}, {tasks.task}, {method.num_updates} updates each"
    )
    losses = loss_figure(traces[LOSSES], caption, method.objective.loss_name)
    written = [
        _save(losses, run_dir / "figures" / "loss.png"),
        # Not in the folder of train: if a step is written twice, TensorBoard assumes a restart and
        # hides the later events of the first writing.
        run_dir / "tensorboard" / "visualize",
    ]
    figure = trace_figure(curves, caption) if curves.values else None
    if figure is not None:
        written.insert(0, _save(figure, run_dir / "figures" / "trace.png"))
    writer = tf.summary.create_file_writer(str(run_dir / "tensorboard" / "visualize"))
    with writer.as_default(step=run.step):
        if figure is not None:
            tf.summary.image("trace/figure", figure_image(figure))
        tf.summary.image("trace/loss", figure_image(losses))
        if plot_range is not None and isinstance(method, FewShotMethod):
            fits = _fits(settings, tasks, plot_range, method)
            tf.summary.image("fits", figure_image(fits))
            written.append(_save(fits, run_dir / "figures" / "fits.png"))
    writer.close()
    print(caption)
    for name, values in traces.items():
        if name != LOSSES:
            title = title_of(name).replace("$", "")  # the dollars are for figures
            print(f"{title:>18}  {_in_words(name, values)}")
    print("\n".join(f"Written to {path}" for path in written))


def _fits(
    settings: Settings,
    tasks: Tasks,
    plot_range: tuple[float, float],
    method: FewShotMethod,
) -> Figure:
    """Returns a figure of the first functions, fitted by this run and by the baseline."""
    evaluation, run_dir = settings.evaluation, settings.run_dir or ""
    other_dir = evaluation.baseline_run_dir
    methods = {_name(run_dir, other_dir): method}
    if other_dir is not None:
        of_baseline = read_settings(other_dir, f"--checkpoint={evaluation.checkpoint}")
        other = experiment.load_run(of_baseline).method
        if other.objective.has_classes or not isinstance(other, FewShotMethod):
            raise OptionError("baseline_run_dir", "is not a run on functions: name another run.")
        methods[_name(other_dir, run_dir)] = other
    episodes: Any = tasks.episodes(evaluation.split, evaluation.evaluation_seed)
    x = np.linspace(*plot_range, 200).astype(np.float32)
    rows: dict[str, list[Fit]] = {name: [] for name in methods}
    for index in range(_FUNCTIONS):
        inputs, _ = episodes(tf.constant(index))
        support = Support(inputs["support_inputs"], inputs["support_labels"])
        truth = episodes.function(tf.constant(index))(x).numpy()
        for name, one in methods.items():
            rows[name].append(fit(one, support, x, truth))
    caption = f"the first {_FUNCTIONS} {evaluation.split} functions of {tasks.name}, {tasks.task}"
    return fit_figure(rows, caption)


def _name(run_dir: str, other_dir: str | None) -> str:
    """Returns the name of a run in a figure: that of its folder, or its path beside a namesake."""
    name = Path(run_dir).resolve().name
    is_alone = other_dir is None or Path(other_dir).resolve().name != name
    return name if is_alone else str(run_dir)


def _save(figure: Figure, path: Path) -> Path:
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")
    return path


def _in_words(name: str, values: np.ndarray) -> str:
    """Returns a text with mean and range of a trace [E, T, ...] in the first and last update."""
    digits = ".1e" if name == WEIGHT_DECAY else ".5f"
    num_steps = values.shape[1]
    return "; ".join(
        f"update {t}: mean {values[:, t - 1].mean():{digits}}, "
        f"{values[:, t - 1].min():{digits}} to {values[:, t - 1].max():{digits}}"
        for t in sorted({1, num_steps})
    )


if __name__ == "__main__":
    run_command(main, continues_a_run=True, uses=USES)

"""Draws figure 3 of the paper for a run: python -m tf_metalstm.visualize --run_dir=...

Takes the first episodes of the fixed list of --split (the authors took validation), 20 of
them or --num_episodes where that is less, and writes RUN_DIR/figures/gates.png and
RUN_DIR/figures/support_loss.png; of a run on functions also RUN_DIR/figures/fits.png, where
--baseline_run_dir puts another run below it. The same pictures and histograms of all gates go to
TensorBoard, as a run of its own, RUN_DIR/tensorboard/visualize.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from tf_metalstm import experiment
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.data.sine import INPUTS, SineTasks
from tf_metalstm.episode import Support
from tf_metalstm.flags import read_settings, run_command
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.settings import Settings
from tf_metalstm.visualization.figures import figure_image, gate_figure, loss_figure
from tf_metalstm.visualization.fits import Fit, fit, fit_figure
from tf_metalstm.visualization.gates import (
    choose_coordinates,
    collect,
    curves_at,
    first_supports,
    trajectory_function,
)
from tf_metalstm.visualization.tensorboard import write_gates

_CURVES = 20  # as many as in the paper's figure
_WAVES = 3


def main(settings: Settings) -> None:
    """Draws the gates of the run in --run_dir."""
    run_dir = Path(settings.run_dir or "")
    tasks = experiment.build_tasks(settings.data)
    method, checkpoints = experiment.load_gradient_based(settings, tasks)
    if settings.evaluation.baseline_run_dir and not isinstance(tasks, SineTasks):
        raise ValueError(f"--baseline_run_dir is for functions, but the source is {tasks.name}.")
    if method.evaluation_loop.num_steps < 1:
        raise ValueError("There are no updates to draw: --num_steps is 0.")
    step = int(checkpoints.step.numpy())
    episodes = episode_dataset(
        tasks.episodes(settings.evaluation.split, settings.evaluation.evaluation_seed),
        num_episodes=settings.evaluation.num_episodes,
    )
    trajectory = collect(trajectory_function(method), first_supports(episodes, _CURVES))
    curves = curves_at(trajectory, choose_coordinates(method.learner.parameter_blocks))
    caption = (
        f"{run_dir.name} after {step:,} meta-updates: {len(trajectory.losses)} "
        f"{settings.evaluation.split} episodes of {tasks.name}, {tasks.spec.task}, "
        f"{method.evaluation_loop.num_steps} updates each"
    )
    losses = loss_figure(trajectory.losses, caption, method.objective.loss_name)
    written = [
        _save(gate_figure(curves, caption), run_dir / "figures" / "gates.png"),
        _save(losses, run_dir / "figures" / "support_loss.png"),
        # Apart from the events of train: TensorBoard takes a step that comes again for a restart,
        # and what was written after it for obsolete.
        run_dir / "tensorboard" / "visualize",
    ]
    fits = _fits(settings, tasks, {run_dir.name: method}) if isinstance(tasks, SineTasks) else None
    writer = tf.summary.create_file_writer(str(written[-1]))
    with writer.as_default(step=step):
        write_gates(trajectory, curves, caption, step)
        tf.summary.image("gates/support_loss", figure_image(losses))
        if fits is not None:
            tf.summary.image("fits", figure_image(fits))
            written.append(_save(fits, run_dir / "figures" / "fits.png"))
    writer.close()
    print(caption)
    for name, gates in (("forget", trajectory.forget), ("input", trajectory.input)):
        print(f"{name:>6} gate  {_in_words(gates)}")
    print("\n".join(f"Written to {path}" for path in written))


def _fits(
    settings: Settings,
    tasks: SineTasks,
    methods: dict[str, GradientBasedMethod],
) -> Figure:
    """Returns the fits of the first waves by this run and by the baseline."""
    evaluation = settings.evaluation
    if evaluation.baseline_run_dir is not None:
        baseline = read_settings(evaluation.baseline_run_dir)
        method, _ = experiment.load_gradient_based(baseline, experiment.build_tasks(baseline.data))
        methods = {**methods, Path(evaluation.baseline_run_dir).name: method}
    episodes = tasks.episodes(evaluation.split, evaluation.evaluation_seed)
    x = np.linspace(*INPUTS, 200).astype(np.float32)
    rows: dict[str, list[Fit]] = {name: [] for name in methods}
    for index in range(_WAVES):
        inputs, _ = episodes(tf.constant(index))
        support = Support(inputs["support_inputs"], inputs["support_labels"])
        truth = episodes.wave(tf.constant(index))(x).numpy()
        for name, method in methods.items():
            rows[name].append(fit(method, support, x, truth))
    caption = f"the first {_WAVES} {evaluation.split} waves, {tasks.spec.task}"
    return fit_figure(rows, caption)


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _in_words(gates: np.ndarray) -> str:
    """Returns mean and range over all episodes and parameters, of gates [E, T, P]."""
    num_steps = gates.shape[1]
    return "; ".join(
        f"update {t}: mean {gates[:, t - 1].mean():.5f}, "
        f"{gates[:, t - 1].min():.5f} to {gates[:, t - 1].max():.5f}"
        for t in sorted({1, num_steps})
    )


if __name__ == "__main__":
    run_command(main, continues_a_run=True)

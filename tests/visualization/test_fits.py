"""The figures of functions show the outputs of the learner."""

import numpy as np
import tensorflow as tf
import toy
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tf_metalstm import visualize
from tf_metalstm.construction import build_method, build_tasks
from tf_metalstm.data.sine import SineTasks
from tf_metalstm.episode import Support
from tf_metalstm.flags import write_settings
from tf_metalstm.rules.sgd import SGD
from tf_metalstm.settings import make_settings
from tf_metalstm.task_facts import write_facts
from tf_metalstm.training.checkpoints import RunCheckpoints
from tf_metalstm.visualization.fits import fit, fit_figure


def test_a_fit_is_the_learner_before_after_one_and_after_all_updates():
    method = toy.regression_method(SGD(0.05, dtype="float64"), 1, num_evaluation_steps=4)
    inputs, _ = SineTasks(5, 3).episodes("test", 0)(tf.constant(0))
    support = Support(*(tf.cast(inputs[f"support_{x}"], tf.float64) for x in ("inputs", "labels")))
    x = np.linspace(-5, 5, 11)
    found = fit(method, support, x, np.sin(x))
    assert list(found.after) == [0, 1, 4]
    np.testing.assert_allclose(found.support[:, 1], support.labels[:, 0])
    last = method.query_outputs(method.adapt(support), tf.constant(x[:, np.newaxis]))
    np.testing.assert_allclose(found.after[4], last[:, 0])
    untouched, _ = method.learner.apply(
        method.c_0, tf.zeros([0], tf.float64), tf.constant(x[:, np.newaxis]), False
    )
    np.testing.assert_allclose(found.after[0], untouched[:, 0])
    (axes,) = fit_figure({"MAML": [found]}, "caption").axes
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(drawn) == [
        "true function",
        "before",
        "after 1 update",
        "after 4 updates",
        "support",
    ]
    np.testing.assert_array_equal(drawn["after 1 update"], found.after[1])
    np.testing.assert_array_equal(drawn["true function"], np.sin(x))


def test_the_command_draws_a_run_above_its_baseline(tmp_path):
    said = {"source": "sine", "num_shot": 4, "num_query": 2, "rule": "sgd", "learner": "mlp"}
    said |= {"num_steps": 2, "num_outputs": 1, "num_episodes": 3}
    settings = make_settings(said)
    tasks = build_tasks(settings)
    for name in ("run", "other"):
        of_run = settings.placed(tmp_path / name)
        write_settings(of_run, of_run.run_dir)
        write_facts(tasks, of_run.run_dir)
        method = build_method(of_run, tasks)
        RunCheckpoints(of_run.run_dir, method).save_best(0.5, step=7)
    beside = settings.changed(baseline_run_dir=str(tmp_path / "other"))
    visualize.main(beside.placed(tmp_path / "run"))
    picture = Image.open(tmp_path / "run" / "figures" / "fits.png")
    assert picture.width == 800
    assert picture.height > 500  # two rows
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "visualize"))
    events.Reload()
    assert "fits" in events.Tags()["tensors"]


def test_two_runs_of_one_name_are_told_apart():
    assert visualize._name("a/sine", "b/maml") == "sine"
    assert visualize._name("a/sine", None) == "sine"
    assert (visualize._name("a/sine", "b/sine"), visualize._name("b/sine", "a/sine")) == (
        "a/sine",
        "b/sine",
    )

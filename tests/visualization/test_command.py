"""Tests the command: from a run directory to pictures, events and text."""

import re
import types

import numpy as np
import pytest
import toy
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tf_metalstm import visualize
from tf_metalstm.construction import build_method, build_tasks
from tf_metalstm.flags import with_dashes, write_settings
from tf_metalstm.methods.base import LOSSES
from tf_metalstm.options import OptionError
from tf_metalstm.rules.base import FORGET_GATES, INPUT_GATES
from tf_metalstm.settings import make_settings
from tf_metalstm.task_facts import write_facts
from tf_metalstm.training.checkpoints import RunCheckpoints
from tf_metalstm.visualization import traces


def write_run(settings):
    """Writes the folder of a run after 7 meta-updates; returns the method."""
    tasks = build_tasks(settings)
    write_settings(settings, settings.run_dir)
    write_facts(tasks, settings.run_dir)
    method = build_method(settings, tasks)
    if settings.get("rule") == "meta_lstm":
        method.rule.second_layer.input_kernel.assign(np.linspace(-2.0, 2.0, 6)[:, np.newaxis])
    RunCheckpoints(settings.run_dir, method).save_best(0.5, step=7)
    return method


@pytest.fixture
def run(tmp_path):
    """A run of 7 meta-updates: its settings and its folder."""
    settings = toy.settings(
        tmp_path / "my_run",
        num_way=5,
        num_shot=1,
        num_query=1,
        hidden_units=4,
        num_steps=3,
        num_outputs=5,
        split="validation",
        num_episodes=3,
        **toy.CONV4,
    )
    write_run(settings)
    toy.ToySource.asked.clear()
    return types.SimpleNamespace(settings=settings, folder=tmp_path / "my_run")


def test_pictures_events_and_numbers(run, capsys, monkeypatch):
    collected = []

    def collect(*arguments):
        collected.append(traces.collect(*arguments))
        return collected[0]

    monkeypatch.setattr(visualize, "collect", collect)
    visualize.main(run.settings)
    assert toy.ToySource.asked == ["validation"]
    for name in ("trace.png", "loss.png"):
        assert Image.open(run.folder / "figures" / name).width == 800
    events = EventAccumulator(str(run.folder / "tensorboard" / "visualize"))
    events.Reload()
    tags = events.Tags()["tensors"]
    assert set(tags) == {"trace/figure", "trace/loss"}  # no histograms of a single step
    assert {event.step for tag in tags for event in events.Tensors(tag)} == {7}
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == (
        "my_run after 7 meta-updates: 3 validation tasks of toys, 5-way 1-shot, 3 updates each"
    )
    shown = [collected[0][name] for name in (FORGET_GATES, INPUT_GATES)]
    assert collected[0].keys() == {LOSSES, FORGET_GATES, INPUT_GATES}
    assert "weight decay 1 - f_t" in printed[2]
    for line, values in zip((printed[1], printed[3]), shown, strict=True):
        assert re.findall(r"update (\d)", line) == ["1", "3"]
        found = list(map(float, re.findall(r"\d\.\d{5}", line)))
        first_and_last = (values[:, 0], values[:, 2])
        expected = [f(part) for part in first_and_last for f in (np.mean, np.min, np.max)]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(collected[0][INPUT_GATES]) > 1e-3
    written = [line.removeprefix("Written to ") for line in printed[4:]]
    assert written == [
        str(run.folder / part)
        for part in ("figures/trace.png", "figures/loss.png", "tensorboard/visualize")
    ]


def test_at_most_twenty_curves(run, monkeypatch):
    drawn = []
    monkeypatch.setattr(visualize, "trace_figure", lambda curves, caption: drawn.append(curves))
    monkeypatch.setattr(visualize, "_save", lambda figure, path: path)
    visualize.main(run.settings.changed(num_episodes=600))
    entry = drawn[0].values[INPUT_GATES]
    assert drawn[0].values[FORGET_GATES].shape == entry.shape == (20, 5, 3)
    assert not np.array_equal(entry[0], entry[1])


def test_no_updates_are_refused(run):
    with pytest.raises(ValueError, match=r"no updates to draw, num_steps is 0"):
        visualize.main(run.settings.changed(num_evaluation_steps=0))


def test_a_method_that_makes_no_updates_is_refused(tmp_path):
    settings = toy.settings(tmp_path / "run", method="matching_networks")
    write_run(settings)
    with pytest.raises(ValueError, match=r"of method=matching_networks, which makes no updates"):
        visualize.main(settings)


def test_only_functions_are_drawn_beside_a_baseline(run):
    with pytest.raises(
        OptionError, match=r"^baseline_run_dir is for functions .* source=toys"
    ) as error:
        visualize.main(run.settings.changed(baseline_run_dir="runs/other"))
    assert with_dashes(str(error.value)).startswith("--baseline_run_dir is for functions")


def test_a_learned_optimizer_is_looked_at_too(tmp_path, capsys):
    """Its tasks have no support set. The trace is that of the rule on the problem."""
    said = {"source": "quadratics", "quadratic_size": 4, "method": "learned_optimizer"}
    said |= {"hidden_units": 4, "num_steps": 3, "num_evaluation_steps": 6, "num_episodes": 2}
    settings = make_settings(said).placed(tmp_path / "run")
    write_run(settings)
    visualize.main(settings)
    assert capsys.readouterr().out.splitlines()[0] == (
        "run after 7 meta-updates: 2 test tasks of quadratics, 4-dimensional, 6 updates each"
    )
    for name in ("trace.png", "loss.png"):
        assert Image.open(tmp_path / "run" / "figures" / name).width == 800
    assert not (tmp_path / "run" / "figures" / "fits.png").exists()

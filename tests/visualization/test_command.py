"""The command: from a run directory to pictures, events and lines to read."""

import dataclasses
import re
import types

import numpy as np
import pytest
import toy
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tf_metalstm import experiment, visualize
from tf_metalstm.construction import build_method
from tf_metalstm.settings import (
    DataSettings,
    EvaluationSettings,
    MethodSettings,
    Settings,
    TrainingSettings,
)
from tf_metalstm.training.checkpoints import RunCheckpoints
from tf_metalstm.visualization import gates


class ToySource:
    name = "toys"
    image_shape = (16, 16, 1)

    def load(self, split):
        self.loaded = split
        return toy.glyph_like_classes()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of 7 meta-updates: its settings, and the source that the command will read."""
    source = ToySource()
    monkeypatch.setattr(experiment, "make_source", lambda *args, **options: source)
    settings = Settings(
        DataSettings(normalization="unit", num_shot=1, num_query=1),
        MethodSettings(filters=4, hidden_units=4, num_steps=3, num_outputs=5),
        TrainingSettings(),
        EvaluationSettings(split="validation", num_episodes=3),
        run_dir=str(tmp_path / "my_run"),
    )
    method = build_method(settings, experiment.build_tasks(settings.data))
    method.rule.second_layer.input_kernel.assign(np.linspace(-2.0, 2.0, 6)[:, np.newaxis])
    RunCheckpoints(settings.run_dir, method).save_best(0.5, step=7)
    return types.SimpleNamespace(settings=settings, source=source, folder=tmp_path / "my_run")


def test_pictures_events_and_numbers(run, capsys, monkeypatch):
    collected = []

    def collect(*arguments):
        collected.append(gates.collect(*arguments))
        return collected[0]

    monkeypatch.setattr(visualize, "collect", collect)
    visualize.main(run.settings)
    assert run.source.loaded == "validation"
    for name in ("gates.png", "support_loss.png"):
        assert Image.open(run.folder / "figures" / name).width == 800
    events = EventAccumulator(str(run.folder / "tensorboard" / "visualize"))
    events.Reload()
    tags = events.Tags()["tensors"]
    assert {"gates/figure", "gates/support_loss", "gates/forget/update_3"} <= set(tags)
    assert {event.step for tag in tags for event in events.Tensors(tag)} == {7}
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == (
        "my_run after 7 meta-updates: 3 validation episodes of toys, 5-way 1-shot, 3 updates each"
    )
    for line, values in zip(printed[1:3], (collected[0].forget, collected[0].input), strict=True):
        assert re.findall(r"update (\d)", line) == ["1", "3"]
        found = list(map(float, re.findall(r"\d\.\d{5}", line)))
        first_and_last = (values[:, 0], values[:, 2])
        expected = [f(part) for part in first_and_last for f in (np.mean, np.min, np.max)]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(collected[0].input) > 1e-3
    written = [line.removeprefix("Written to ") for line in printed[3:]]
    assert written == [
        str(run.folder / part)
        for part in ("figures/gates.png", "figures/support_loss.png", "tensorboard/visualize")
    ]


def test_at_most_twenty_curves(run, monkeypatch):
    many = dataclasses.replace(run.settings.evaluation, num_episodes=600)
    drawn = []
    monkeypatch.setattr(visualize, "gate_figure", lambda curves, caption: drawn.append(curves))
    monkeypatch.setattr(visualize, "_save", lambda figure, path: path)
    monkeypatch.setattr(visualize, "write_gates", lambda *arguments: None)
    visualize.main(dataclasses.replace(run.settings, evaluation=many))
    assert drawn[0].forget.shape == (20, 5, 3)
    assert not np.array_equal(drawn[0].input[0], drawn[0].input[1])


def test_no_updates_are_refused(run):
    still = dataclasses.replace(run.settings.method, num_steps=0)
    with pytest.raises(ValueError, match="no updates to draw: --num_steps is 0"):
        visualize.main(dataclasses.replace(run.settings, method=still))

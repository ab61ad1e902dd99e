"""Figures show the right data in the right panel, on honest axes."""

import numpy as np
import pytest

from tf_metalstm.rules.base import FORGET_GATES, INPUT_GATES
from tf_metalstm.visualization.figures import (
    adaptation_figure,
    figure_image,
    loss_figure,
    title_of,
    trace_figure,
)
from tf_metalstm.visualization.traces import Coordinate, Curves, with_weight_decay

LAYERS = ("conv_1", "conv_2", "linear")


def curves(num_episodes=4, num_steps=5, forget=None, entry=None):
    generator = np.random.default_rng(2)
    shape = (num_episodes, len(LAYERS), num_steps)
    kept = 0.95 + 0.05 * generator.random(shape) if forget is None else np.full(shape, forget)
    taken = 0.01 + 0.01 * generator.random(shape) if entry is None else np.full(shape, entry)
    return Curves(
        tuple(Coordinate(layer, "kernel[0, 1]", i) for i, layer in enumerate(LAYERS)),
        {FORGET_GATES: kept, INPUT_GATES: taken},
    )


def panels(figure):
    """Returns the axes as [L, 2]."""
    return np.asarray(figure.axes).reshape(len(LAYERS), 2)


def test_a_row_a_layer_a_column_a_gate_a_curve_an_episode():
    drawn = curves()
    axes = panels(trace_figure(drawn, "caption"))
    for layer, name in enumerate(LAYERS):
        assert axes[layer, 0].get_ylabel().startswith(name)
        for column, gates in enumerate(drawn.values.values()):
            lines = axes[layer, column].get_lines()
            assert len(lines) == 4
            for episode, line in enumerate(lines):
                np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4, 5])
                np.testing.assert_array_equal(line.get_ydata(), gates[episode, layer])
    assert [a.get_title() for a in axes[0]] == ["forget gate $f_t$", "input gate $i_t$"]


def test_the_caption_is_in_the_figure():
    assert trace_figure(curves(), "three words here").get_supxlabel() == "three words here"


def test_a_column_has_one_scale_that_spans_its_values():
    drawn = curves()
    axes = panels(trace_figure(drawn, "caption"))
    for column, gates in enumerate(drawn.values.values()):
        limits = {a.get_ylim() for a in axes[:, column]}
        assert len(limits) == 1
        low, high = limits.pop()
        assert low < gates.min() < gates.max() < high
        assert high - low < 1.3 * np.ptp(gates)


def test_the_weight_decay_has_a_column_with_a_logarithmic_scale():
    """Forget gates of 0.999 to 1 differ there; a gate of 1 has no place on this scale."""
    drawn = curves(num_episodes=1, forget=1.0)
    drawn.values[FORGET_GATES][:] = 1.0 - np.logspace(-3, -6, 15).reshape(1, 3, 5)
    drawn.values[FORGET_GATES][0, 2, 4] = 1.0
    drawn = Curves(drawn.coordinates, with_weight_decay(drawn.values))
    figure = trace_figure(drawn, "caption")
    axes = np.asarray(figure.axes).reshape(len(LAYERS), 3)
    assert [a.get_title() for a in axes[0]][1] == "weight decay $1 - f_t$"
    assert {a.get_yscale() for a in axes[:, 1]} == {"log"}
    assert {a.get_yscale() for a in axes[:, [0, 2]].flat} == {"linear"}
    np.testing.assert_allclose(axes[0, 1].get_ylim(), (1e-6, 1e-2), rtol=1e-6)
    decay = axes[1, 1].get_lines()[0].get_ydata()
    np.testing.assert_allclose(decay, 1.0 - drawn.values[FORGET_GATES][0, 1])
    figure_image(figure)
    labels = [text.get_text() for text in axes[0, 1].get_yticklabels()]
    assert len(set(labels)) == len(labels) >= 2
    shut = Curves(drawn.coordinates, with_weight_decay(curves(forget=1.0).values))
    assert figure_image(trace_figure(shut, "caption")).ndim == 4  # 1 - f is 0 everywhere


@pytest.mark.parametrize("rate", [0.01, 0.5])
def test_rounding_is_not_blown_up_to_a_curve(rate):
    drawn = curves(forget=1.0, entry=rate)
    drawn.values[FORGET_GATES][0] -= 1e-7
    axes = panels(trace_figure(drawn, "caption"))
    np.testing.assert_allclose(axes[0, 0].get_ylim(), (1.0, 1.0), atol=0.15)
    assert np.ptp(axes[0, 0].get_ylim()) > 0.1
    low, high = axes[0, 1].get_ylim()
    assert 0.8 * rate < low < 0.9 * rate < 1.1 * rate < high < 1.2 * rate


@pytest.mark.parametrize(
    ("middle", "spread"), [(0.97, 0.02), (0.99973, 9e-6), (0.01, 2e-3), (1e-6, 1e-7), (5e5, 3e5)]
)
def test_tick_labels_are_plain_numbers_that_differ(middle, spread):
    drawn = curves(forget=middle, entry=middle)
    for gates in drawn.values.values():
        gates += np.random.default_rng(0).uniform(-spread, spread, gates.shape)
    figure = trace_figure(drawn, "caption")
    figure_image(figure)
    for axes in figure.axes:
        assert axes.yaxis.get_offset_text().get_text() == ""
        labels = [text.get_text() for text in axes.get_yticklabels()]
        assert len(set(labels)) == len(labels) >= 2
        np.testing.assert_allclose(list(map(float, labels)), axes.get_yticks(), rtol=1e-6)


def test_losses_are_drawn_one_curve_an_episode():
    losses = np.random.default_rng(0).random((4, 5))
    (axes,) = loss_figure(losses, "caption").axes
    assert [line.get_ydata().tolist() for line in axes.get_lines()] == losses.tolist()


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_degenerate_values_still_give_a_picture(value):
    assert figure_image(loss_figure(np.full([2, 1], value), "caption")).ndim == 4
    assert figure_image(trace_figure(curves(1, 1, value, value), "caption")).ndim == 4


def test_no_updates_are_refused():
    with pytest.raises(ValueError, match="no updates to draw: num_steps is 0"):
        trace_figure(curves(num_steps=0), "caption")
    with pytest.raises(ValueError, match="no updates to draw: num_steps is 0"):
        loss_figure(np.zeros([4, 0]), "caption")


def test_an_image_is_what_tensorboard_takes():
    pixels = figure_image(trace_figure(curves(), "caption"))
    assert pixels.dtype == np.uint8
    assert pixels.shape[0] == 1
    assert pixels.shape[2:] == (800, 3)
    assert 0.5 < np.mean(pixels == 255) < 0.99  # curves on white


def test_nothing_global_is_left_behind():
    import matplotlib.pyplot as plt

    trace_figure(curves(), "caption")
    assert plt.get_fignums() == []


@pytest.mark.parametrize("names", [("rates",), ("momentum", "step_sizes", "input_gates")])
def test_a_rule_shows_what_it_has_under_its_names(names):
    """Each trace has a column, whatever its name and however many there are."""
    drawn = curves()
    values = drawn.values[FORGET_GATES]
    drawn = Curves(drawn.coordinates, {name: values + i for i, name in enumerate(names)})
    axes = np.asarray(trace_figure(drawn, "caption").axes).reshape(len(LAYERS), len(names))
    assert [each.get_title() for each in axes[0]] == [title_of(name) for name in names]
    for column in range(len(names)):
        np.testing.assert_array_equal(
            axes[1, column].get_lines()[2].get_ydata(), values[2, 1] + column
        )
    assert title_of("step_sizes") == "step sizes"
    assert title_of("input_gates") == "input gate $i_t$"


def test_a_rule_that_shows_nothing_has_no_figure():
    with pytest.raises(ValueError, match="has no trace of its updates"):
        trace_figure(Curves(curves().coordinates, {}), "caption")


def test_an_adaptation_is_drawn_as_loss_and_the_middle_of_each_trace():
    generator = np.random.default_rng(0)
    losses, rates = generator.random(4), generator.random((4, 3, 50))
    first, second = adaptation_figure(losses, {"rates": rates}).axes
    np.testing.assert_array_equal(first.get_lines()[0].get_ydata(), losses)
    np.testing.assert_allclose(
        second.get_lines()[0].get_ydata(), np.median(rates.reshape(4, -1), axis=1)
    )
    assert second.get_title() == "rates of all parameters: median, 5 to 95 %"
    assert len(adaptation_figure(losses, {}).axes) == 1
    with pytest.raises(ValueError, match="no updates to draw: num_steps is 0"):
        adaptation_figure(np.zeros([0]), {})

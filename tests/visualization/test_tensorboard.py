"""Events are read back from their files as TensorBoard reads them."""

import numpy as np
import pytest
import tensorflow as tf
import toy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.methods.matching_networks import MatchingNetworks
from tf_metalstm.rules.base import FORGET_GATES, INPUT_GATES
from tf_metalstm.visualization.tensorboard import (
    trace_summaries,
    write_hyper_parameters,
    write_traces,
)
from tf_metalstm.visualization.traces import (
    collect,
    curves_at,
    first_tasks,
    trace_function,
    with_weight_decay,
)

NUM_STEPS = 3
SHOWN = (FORGET_GATES, "log10_weight_decay", INPUT_GATES)
HISTOGRAMS = {f"trace/{g}/update_{t}" for g in SHOWN for t in (1, 2, 3)}


def make_method(num_steps=NUM_STEPS):
    toy.seed(0)
    rule = toy.lively_rule(dtype="float32")
    return GradientBasedMethod(toy.conv_learner(), rule, InnerLoop(num_steps))


def episodes():
    found = toy.image_episodes(EpisodeSpec(5, 1, 2), "validation")
    return episode_dataset(found, num_episodes=4)


def write(folder, hook, steps=(500,)):
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        for step in steps:
            hook(step)
    writer.close()
    return read(folder)


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events


def values(events, tag):
    return {e.step: tf.make_ndarray(e.tensor_proto) for e in events.Tensors(tag)}


def test_the_hook_writes_histograms_and_the_figure_at_the_step(tmp_path):
    method = make_method()
    events = write(tmp_path, trace_summaries(method, episodes(), num_tasks=2))
    assert set(events.Tags()["tensors"]) == HISTOGRAMS | {"trace/figure"}
    traces = collect(trace_function(method), first_tasks(episodes(), 2))
    for name in (FORGET_GATES, INPUT_GATES):
        gates = traces[name]
        for t in range(NUM_STEPS):
            buckets = values(events, f"trace/{name}/update_{t + 1}")[500]
            assert buckets[:, 2].sum() == gates[:, t].size == 2 * method.learner.num_parameters
            np.testing.assert_allclose(buckets[0, 0], gates[:, t].min(), rtol=1e-4)
            np.testing.assert_allclose(buckets[-1, 1], gates[:, t].max(), rtol=1e-4)
    width, height, png = values(events, "trace/figure")[500]
    assert tf.io.decode_png(png).shape == (int(height), int(width), 3)


def test_the_weight_decay_is_shown_by_its_logarithm(tmp_path):
    """Forget gates of 1 - 1e-3 and 1 - 1e-6 have decays of -3 and -6; 1 has that of float32."""
    gates = np.float32([[[1.0 - 1e-3, 1.0 - 1e-6, 1.0]]])
    shown = with_weight_decay({FORGET_GATES: gates})
    nothing = curves_at({}, make_method().blocks)
    events = write(tmp_path, lambda step: write_traces(shown, nothing, "", step))
    buckets = values(events, "trace/log10_weight_decay/update_1")[500]
    drawn = buckets[buckets[:, 2] > 0]
    for (low, high, number), decay in zip(drawn, (-7.2247, -6.0, -3.0), strict=True):
        assert number == 1
        assert low - 0.02 <= decay <= high + 0.02


def test_the_hook_follows_the_weights_without_tracing_again(tmp_path, monkeypatch):
    method, traced = make_method(), []
    original = method.adapt_and_trace

    def counted(support):
        traced.append(support)
        return original(support)

    monkeypatch.setattr(method, "adapt_and_trace", counted)
    hook = trace_summaries(method, episodes(), num_tasks=3)

    def change_and_write(step):
        method.rule.second_layer.forget_bias.assign(0.0 if step == 500 else 4.0)
        hook(step)

    events = write(tmp_path, change_and_write, steps=(500, 1000))
    assert len(traced) == 1
    histogram = values(events, "trace/forget_gates/update_1")
    assert histogram[500][-1, 1] < histogram[1000][-1, 1]


def test_the_hook_works_for_a_mirrored_method(tmp_path):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        method = make_method()
    hook = trace_summaries(method, episodes(), num_tasks=1)

    def within_scope(step):
        with strategy.scope():
            hook(step)

    alone = trace_summaries(make_method(), episodes(), num_tasks=1)
    expected = write(tmp_path / "alone", alone)
    outside, inside = write(tmp_path / "a", hook), write(tmp_path / "b", within_scope)
    for tag in HISTOGRAMS:
        limits = values(expected, tag)[500][:, :2]
        for events in (outside, inside):
            np.testing.assert_allclose(values(events, tag)[500][:, :2], limits, rtol=1e-4)


def test_a_method_without_updates_has_nothing_to_write():
    assert trace_summaries(make_method(num_steps=0), episodes()) is None
    assert trace_summaries(MatchingNetworks(toy.conv_learner().model, 5), episodes()) is None


@pytest.mark.parametrize("shown", [{"temperature": np.arange(6.0).reshape(2, 3)}, {}])
def test_what_is_not_one_number_a_coordinate_is_no_figure(tmp_path, shown):
    """One number for each update makes a histogram. A rule without a trace makes no error."""
    traces = {"losses": np.ones([2, 3]), **shown}
    curves = curves_at(traces, make_method().blocks)
    events = write(tmp_path, lambda step: write_traces(traces, curves, "", step))
    expected = {f"trace/{name}/update_{t}" for name in shown for t in (1, 2, 3)}
    assert set(events.Tags()["tensors"]) == expected


def test_weights_that_are_no_numbers_do_not_hide_the_error_of_training(tmp_path):
    method = make_method()
    method.c_0.assign(np.full(method.c_0.shape, np.nan))
    events = write(tmp_path, trace_summaries(method, episodes(), num_tasks=1))
    assert "trace/figure" in events.Tags()["tensors"]


def test_hyper_parameters_and_the_flags_as_text(tmp_path):
    given = {
        "rule": "meta_lstm",
        "num_steps": 5,
        "learning_rate": 1e-3,
        "second_order": False,
        "augmentation": ["flip", "crop"],
        "support_batch_size": None,
    }
    write_hyper_parameters(tmp_path, given, "# Data.\n--num_way=5\n", name="my_run")
    events = read(tmp_path)
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    session = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert session.group_name == "my_run"
    found = session.hparams
    assert set(found) == set(given) - {"support_batch_size"}
    assert found["rule"].string_value == "meta_lstm"
    assert found["num_steps"].number_value == 5
    assert found["learning_rate"].number_value == 1e-3
    assert found["second_order"].HasField("bool_value")
    assert found["augmentation"].string_value == "flip,crop"
    (text,) = values(events, "run.flags").values()
    assert text.item().decode() == "    # Data.\n    --num_way=5\n"

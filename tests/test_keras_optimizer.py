"""A rule as a Keras optimizer makes the rule's updates, and behaves as Keras's optimizers do."""

import functools
import gc
import json
import logging
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm import LearnedOptimizer
from tf_metalstm.parameters import blocks_of
from tf_metalstm.rule_folder import write_rule
from tf_metalstm.rules.base import Rule
from tf_metalstm.rules.meta_lstm import MetaLSTM
from tf_metalstm.rules.meta_sgd import MetaSGD
from tf_metalstm.rules.sgd import SGD

SHAPES = ((2, 3), (), (4,))
P = 11


@keras.saving.register_keras_serializable("tests")
class ByLoss(Rule):
    """A rule theta <- theta - loss, which makes the loss visible. It counts its traces."""

    traces = 0

    def build(self, blocks=()):
        self.built = True

    def initial_state(self, theta):
        return ()

    def call(self, gradient, loss, theta, state):
        ByLoss.traces += 1
        return theta - loss, state


def variables(seed=0, shapes=SHAPES, dtype="float32"):
    generator = np.random.default_rng(seed)
    return [
        keras.Variable(generator.normal(size=shape), dtype=dtype, name=f"v_{i}")
        for i, shape in enumerate(shapes)
    ]


def gradients(seed, shapes=SHAPES):
    generator = np.random.default_rng(100 + seed)
    return [tf.constant(generator.normal(size=shape), tf.float32) for shape in shapes]


def flat(tensors):
    return np.concatenate([np.reshape(tensor, [-1]) for tensor in tensors])


def lstm(**options):
    return LearnedOptimizer(toy.lively_rule(dtype="float32"), **options)


def state_of_rule():
    return tf.nest.flatten(toy.lively_rule(dtype="float32").initial_state(tf.zeros([P])))


def steps(optimizer, moved, num_steps=3, loss=0.5):
    for step in range(num_steps):
        optimizer.scale_loss(tf.constant(loss + step))
        optimizer.apply(gradients(step), moved)
    return flat(v.numpy() for v in moved)


def one_update(optimizer, moved):
    optimizer.scale_loss(tf.constant(1.0))
    optimizer.apply(gradients(0), moved)


def model():
    toy.seed(0)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])


def data(num_rows=8):
    generator = np.random.default_rng(0)
    return generator.normal(size=(num_rows, 3)), generator.normal(size=(num_rows, 1))


def test_it_moves_all_variables_as_the_rule_moves_their_flat_vector():
    """The variables are matrices, scalars and vectors. Each of the three updates has its loss."""
    rule, moved = toy.lively_rule(dtype="float32"), variables()
    theta = tf.constant(flat(v.numpy() for v in moved))
    state = rule.initial_state(theta)
    for step in range(3):
        gradient = tf.constant(flat(gradients(step)))
        theta, state = rule(gradient, tf.constant(0.5 + step), theta, state)
    found = steps(LearnedOptimizer(rule), moved)
    np.testing.assert_allclose(found, theta, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clipnorm": 0.5},
        {"global_clipnorm": 0.5},
        {"clipvalue": 0.2},
        {"use_ema": True, "ema_overwrite_frequency": 2},
        {"gradient_accumulation_steps": 2},
        {"loss_scale_factor": 8.0},
    ],
)
def test_with_gradient_descent_as_its_rule_it_is_the_sgd_of_keras(options):
    mine, its = variables(), variables()
    found = steps(LearnedOptimizer(SGD(0.1), **options), mine, 4)
    expected = steps(keras.optimizers.SGD(0.1, **options), its, 4)
    assert np.abs(expected - flat(variables())).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_weight_decay_is_the_share_that_is_lost_in_an_update():
    mine, its = variables(), variables()
    optimizer = LearnedOptimizer(SGD(0.1), weight_decay=0.02)
    optimizer.exclude_from_weight_decay(var_names=["v_2"])
    found = steps(optimizer, mine, 2)
    expected = keras.optimizers.SGD(0.1, weight_decay=0.2)
    expected.exclude_from_weight_decay(var_names=["v_2"])
    np.testing.assert_allclose(found, steps(expected, its, 2), rtol=1e-5)


def test_the_learning_rate_is_a_factor_on_the_step():
    start = flat(v.numpy() for v in variables())
    whole = steps(lstm(), variables(), 1) - start
    half = steps(lstm(learning_rate=0.5), variables(), 1) - start
    np.testing.assert_allclose(half, whole / 2, atol=1e-6)
    falling = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.0])
    found = steps(lstm(learning_rate=falling), variables(), 3) - start
    np.testing.assert_allclose(found, whole, atol=1e-6)


def test_a_gradient_of_none_leaves_its_variable():
    moved, zeros = variables(), variables()
    for optimizer, given in ((lstm(), None), (lstm(), tf.zeros([4]))):
        optimizer.scale_loss(tf.constant(1.0))
        chosen = moved if given is None else zeros
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns and names the variable
            optimizer.apply([*gradients(0)[:2], given], chosen)
    np.testing.assert_array_equal(moved[2].numpy(), variables()[2].numpy())
    assert np.abs(zeros[2].numpy() - moved[2].numpy()).max() > 1e-4  # the rule would move it
    for one, other in zip(moved[:2], zeros[:2], strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    with pytest.raises(ValueError, match="No gradients provided"):
        lstm().apply([None, None, None], variables())


def test_gradients_of_other_shapes_are_refused_and_nothing_moves():
    moved = variables()
    with pytest.raises(ValueError, match=r"for v_0 has the shape \(4,\), but .* \(2, 3\): give"):
        LearnedOptimizer(SGD(0.1)).apply(gradients(0)[::-1], moved)
    np.testing.assert_array_equal(moved[0].numpy(), variables()[0].numpy())


def test_nan_goes_into_its_coordinate_and_no_other():
    moved, broken = variables(), gradients(0)
    broken[2] = tf.constant([1.0, np.nan, 1.0, 1.0])
    optimizer = lstm()
    optimizer.scale_loss(tf.constant(1.0))
    optimizer.apply(broken, moved)
    assert np.isnan(flat(v.numpy() for v in moved)).nonzero()[0].tolist() == [8]


def test_a_sparse_gradient_is_its_dense_one():
    rows = tf.IndexedSlices(tf.ones([3, 3]), tf.constant([1, 0, 1]), tf.constant([2, 3]))
    found = []
    for gradient in (rows, tf.constant([[1.0] * 3, [2.0] * 3])):
        optimizer, moved = lstm(clipnorm=1.0, gradient_accumulation_steps=2), variables()
        for _ in range(2):
            optimizer.scale_loss(tf.constant(1.0))
            optimizer.apply([gradient, *gradients(0)[1:]], moved)
        found.append(flat(v.numpy() for v in moved))
    np.testing.assert_array_equal(*found)


def test_the_loss_reaches_the_rule_whole():
    """The loss is not scaled. With accumulation it is the mean since the last update."""
    moved = variables(shapes=[()])
    optimizer = LearnedOptimizer(
        ByLoss(), gradient_accumulation_steps=2, loss_scale_factor=4.0, learning_rate=1.0
    )
    for loss in (1.0, 2.0, 4.0, 8.0):
        assert float(optimizer.scale_loss(tf.constant(loss))) == 4.0 * loss
        optimizer.apply([tf.constant(1.0)], moved)
    expected = variables(shapes=[()])[0].numpy() - 1.5 - 6.0
    np.testing.assert_allclose(moved[0].numpy(), expected, rtol=1e-6)


def test_a_rule_that_wants_the_loss_is_not_left_without():
    with pytest.raises(ValueError, match=r"meta_lstm needs the loss .* optimizer.scale_loss"):
        lstm().apply(gradients(0), variables())


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_gives_the_loss_and_traces_once(jit_compile):
    trained = model()
    trained.compile(LearnedOptimizer(ByLoss(), learning_rate=0.1), "mse", jit_compile=jit_compile)
    before = flat(trained.get_weights())
    ByLoss.traces = 0
    losses = trained.fit(*data(), batch_size=8, epochs=2, verbose=0).history["loss"]
    assert losses[0] != losses[1]
    moved = before - flat(trained.get_weights())
    np.testing.assert_allclose(moved, 0.1 * sum(losses), rtol=1e-5)
    assert ByLoss.traces == 1


def test_a_graph_may_build_it_although_nobody_keeps_the_rule_that_was_given():
    optimizer, moved = lstm(), variables()
    update = tf.function(functools.partial(one_update, optimizer, moved))
    update()
    gc.collect()
    update()
    assert int(optimizer.iterations) == 2


def test_two_devices_do_what_one_does(monkeypatch):
    """Gradients and losses are summed over devices. Each device has its share of the mean."""
    # Strategies in one process would use the same keys for tensors of other shapes.
    monkeypatch.setattr(tf.distribute.MirroredStrategy, "_collective_key_base", 10_000)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        optimizer, moved = lstm(), variables()
        optimizer.build(moved)

    @tf.function
    def update():
        share = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
        optimizer.scale_loss(0.1 + share * 0.3)
        optimizer.apply([g * (0.25 + 0.5 * share) for g in gradients(0)], moved)

    alone, other = lstm(), variables()
    for _ in range(2):
        strategy.run(update)
        alone.scale_loss(tf.constant(0.5))
        alone.apply(gradients(0), other)
    for one, its in zip(moved, other, strict=True):
        on_both = [tensor.numpy() for tensor in one.value.values]
        np.testing.assert_array_equal(*on_both)
        np.testing.assert_allclose(on_both[0], its.numpy(), rtol=1e-4, atol=1e-6)


def test_a_saved_model_goes_on_bit_for_bit(tmp_path):
    """Loads it from .keras, and from a checkpoint into another optimizer of the same kind."""
    trained, restored = model(), model()
    trained.compile(lstm(trained_steps=100, learning_rate=0.5), "mse", run_eagerly=True)
    trained.train_on_batch(*data())
    trained.save(tmp_path / "model.keras")
    tf.train.Checkpoint(model=trained).write(str(tmp_path / "checkpoint"))
    loaded = keras.models.load_model(tmp_path / "model.keras")
    restored.compile(LearnedOptimizer(MetaLSTM(3), learning_rate=0.1), "mse", run_eagerly=True)
    restored.optimizer.build(restored.trainable_variables)
    tf.train.Checkpoint(model=restored).read(str(tmp_path / "checkpoint")).assert_consumed()
    ends = []
    for each in (trained, loaded, restored):
        each.train_on_batch(*data())
        ends.append([*each.get_weights(), *(v.numpy() for v in each.optimizer.variables)])
    for other in ends[1:]:
        for one, its in zip(ends[0], other, strict=True):
            np.testing.assert_array_equal(one, its)
    assert (loaded.optimizer.trained_steps, loaded.optimizer.rule.hidden_units) == (100, 3)


def test_its_config_has_the_weights_of_the_rule():
    optimizer = lstm(trained_steps=7, weight_decay=0.1, use_ema=True)
    config = json.loads(json.dumps(optimizer.get_config()))
    copy = LearnedOptimizer.from_config(config)
    assert copy.get_config() == optimizer.get_config()
    for one, other in zip(optimizer.rule.weights, copy.rule.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    np.testing.assert_array_equal(steps(copy, variables()), steps(optimizer, variables()))
    assert (
        LearnedOptimizer.from_config(LearnedOptimizer(MetaLSTM(2)).get_config()).trained_steps
        is None
    )


def test_its_variables_are_its_state_alone():
    optimizer, moved = lstm(), variables()
    optimizer.build(moved)
    shapes = [tuple(v.shape) for v in optimizer.variables]
    of_rule = [tuple(s.shape) for s in state_of_rule()]
    assert shapes == [(), (), (), *of_rule]  # iteration, learning rate, loss
    assert not {id(v) for v in optimizer.variables} & {id(v) for v in moved}


def test_the_memory_of_the_state_is_said_before_it_is_taken(caplog):
    optimizer = lstm()
    num_bytes = 4 * sum(int(tf.size(each)) for each in state_of_rule())
    assert optimizer.memory(variables()) == num_bytes
    assert not optimizer.built
    with caplog.at_level(logging.INFO, "absl"):
        optimizer.build(variables())
    assert f"takes {num_bytes / 1e6:.3g} MB: {num_bytes / P:.0f} bytes for each" in caplog.text


def test_more_updates_than_the_rule_was_trained_for_are_said_once():
    message = "beyond the 2 updates"
    for compiled in (False, True):
        optimizer, moved = lstm(trained_steps=2), variables()
        optimizer.build(moved)

        update = functools.partial(one_update, optimizer, moved)
        update = tf.function(update) if compiled else update
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                update()
        with pytest.warns(UserWarning, match=message):
            update()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            update()


def test_where_xla_compiles_it_is_said_at_the_end_of_fit():
    optimizer, moved = LearnedOptimizer(SGD(0.1), trained_steps=1), variables()
    optimizer.build(moved)
    update = tf.function(lambda: optimizer.apply(gradients(0), moved), jit_compile=True)
    for _ in range(2):
        update()
    with pytest.warns(UserWarning, match="beyond the 1 updates"):
        optimizer.finalize_variable_values(moved)


def test_scaled_losses_of_half_precision():
    """LossScaleOptimizer does not pass on the loss, so a rule that needs it raises an error."""
    moved, scaled = variables(), keras.optimizers.LossScaleOptimizer
    optimizer = scaled(LearnedOptimizer(SGD(0.1)), initial_scale=8.0)
    optimizer.apply([8.0 * g for g in gradients(0)], moved)
    expected = flat(v.numpy() for v in variables()) - 0.1 * flat(gradients(0))
    np.testing.assert_allclose(flat(v.numpy() for v in moved), expected, rtol=1e-5)
    optimizer.apply([np.inf * g for g in gradients(0)], moved)  # this update is skipped
    np.testing.assert_allclose(flat(v.numpy() for v in moved), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="auto_scale_loss=False to compile"):
        scaled(lstm()).apply(gradients(0), variables())


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_variables_keep_their_type(dtype):
    moved = variables(dtype=dtype)
    optimizer = LearnedOptimizer(SGD(0.5))
    optimizer.apply([tf.cast(g, dtype) for g in gradients(0)], moved)
    assert {v.dtype for v in moved} == {dtype}
    expected = flat(v.numpy() for v in variables(dtype=dtype)) - 0.5 * flat(gradients(0))
    tolerance = 1e-6 if dtype == "float64" else 2e-2
    np.testing.assert_allclose(
        flat(v.numpy() for v in moved).astype(float), expected, atol=tolerance
    )


def test_a_rule_with_rates_for_each_parameter_fits_its_own_network_alone():
    rule = MetaSGD()
    rule.build(blocks_of([("w", (P,))]))
    steps(LearnedOptimizer(rule), variables(), 1)
    other = variables(shapes=[(2,)])
    with pytest.raises(ValueError, match=r"meta_sgd has weights of the shapes \[\(11,\)\]"):
        LearnedOptimizer(rule).apply(gradients(0, [(2,)]), other)


def test_something_else_than_a_rule_is_refused():
    with pytest.raises(ValueError, match=r"rule must be a tf_metalstm\.Rule, such as"):
        LearnedOptimizer("adam")


def test_a_folder_is_an_optimizer(tmp_path):
    rule = toy.lively_rule(dtype="float32")
    write_rule(rule, {"hidden_units": 3}, tmp_path / "rule", trained_steps=20)
    loaded = LearnedOptimizer.load(tmp_path / "rule", weight_decay=0.5)
    assert (loaded.trained_steps, loaded.weight_decay) == (20, 0.5)
    loaded = LearnedOptimizer.load(tmp_path / "rule")
    np.testing.assert_array_equal(steps(loaded, variables()), steps(lstm(), variables()))


def test_a_model_with_nothing_to_train():
    optimizer = lstm()
    optimizer.build([])
    optimizer.apply([], [])
    assert int(optimizer.iterations) == 0

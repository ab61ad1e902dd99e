"""Tests a Keras model as a function of a flat vector, and the networks in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.learners.catalogue import LEARNERS
from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.learners.pretrained import PretrainedLearner
from tf_metalstm.methods.relation_networks import relation_module
from tf_metalstm.objectives import cross_entropy


def images(batch=6, size=16, channels=1, dtype="float32", seed=0):
    generator = np.random.default_rng(seed)
    return tf.constant(generator.normal(2.0, 3.0, (batch, size, size, channels)), dtype)


def test_conv4_has_the_published_size():
    learner = FunctionalLearner(conv4((84, 84, 3), 5))
    assert learner.num_parameters == 32_901
    assert len(learner.parameter_blocks) == 18
    assert learner.num_statistics == 4 * 2 * 32
    assert learner.parameter_blocks[-2].shape == (800, 5)


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize(
    "model",
    [
        lambda: conv4((32, 32, 3), 5, 4),
        lambda: relation_module((5, 5, 3), 4, 8),  # its max-pool pads
    ],
    ids=["conv4", "relation_module"],
)
def test_max_pool_before_the_relu_is_as_in_the_paper(model, second_order):
    model = model()
    layers = {layer.name: layer for layer in model.layers[1:]}
    names = list(layers)
    pools = [i for i, name in enumerate(names) if "pool" in name]
    assert pools
    for i in pools:
        assert "relu" in names[i + 1]
        names[i], names[i + 1] = names[i + 1], names[i]
    inputs = x = keras.Input(model.input_shape[1:])
    for name in names:
        x = layers[name](x)
    paper = keras.Model(inputs, x)
    x = toy.noise(6, *model.input_shape[1:])

    def gradients(model):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = tf.reduce_sum(model(x, training=True) ** 2)
            found = inner.gradient(loss, model.trainable_variables)
            total = tf.add_n([tf.reduce_sum(g**2) for g in found])
        if second_order:
            found = outer.gradient(total, model.trainable_variables)
        return [loss, *found]

    for expected, found in zip(gradients(paper), gradients(model), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("training", [True, False])
def test_apply_is_the_model_itself(training):
    model = conv4((16, 16, 1), 5, 4)
    learner = FunctionalLearner(model)
    x = images()
    logits, statistics = learner.apply(
        tf.constant(learner.initial_parameters()),
        tf.constant(learner.initial_statistics()),
        x,
        training,
    )
    np.testing.assert_allclose(logits, model(x, training=training), rtol=1e-5, atol=1e-6)
    after = np.concatenate([v.numpy().ravel() for v in model.non_trainable_variables])
    np.testing.assert_allclose(statistics, after, rtol=1e-5)


def test_apply_leaves_the_model_alone():
    model = conv4((16, 16, 1), 5, 4)
    learner = FunctionalLearner(model)
    before = [v.numpy().copy() for v in model.variables]
    learner.apply(
        toy.noise(learner.num_parameters),
        tf.constant(learner.initial_statistics()),
        images(),
        True,
    )
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def same_convolution(x, kernel):
    """A 3 x 3 convolution with zero padding, in NumPy."""
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = x.shape[1:3]
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
    )


def by_hand(x):
    """Batch norm with the moments of the batch, then ReLU."""
    axes = tuple(range(x.ndim - 1))
    return np.maximum((x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-3), 0.0)


def test_conv4_is_four_blocks_and_a_linear_layer():
    model = conv4((16, 16, 1), 3, 2, dtype="float64")
    inputs = images(3, dtype="float64")
    x = inputs.numpy()
    for i in range(1, 5):
        kernel, bias = model.get_layer(f"conv_{i}").get_weights()
        x = by_hand(same_convolution(x, kernel) + bias)
        half = x.shape[1] // 2
        x = x.reshape(3, half, 2, half, 2, -1).max(axis=(2, 4))
    kernel, bias = model.get_layer("linear").get_weights()
    expected = x.reshape(3, -1) @ kernel + bias
    np.testing.assert_allclose(model(inputs, training=True), expected, rtol=1e-8, atol=1e-10)


def test_mlp_is_what_it_says():
    model = mlp((4,), 3, (6, 5), batch_normalization=True, dtype="float64")
    inputs = np.random.default_rng(0).normal(size=(7, 4))
    x = inputs
    for i in (1, 2):
        kernel, bias = model.get_layer(f"hidden_{i}").get_weights()
        x = by_hand(x @ kernel + bias)
    kernel, bias = model.get_layer("linear").get_weights()
    found = model(tf.constant(inputs), training=True)
    np.testing.assert_allclose(found, x @ kernel + bias, rtol=1e-8, atol=1e-10)


def test_a_linear_layer_of_zeros_prefers_no_class():
    plain, zero = (
        conv4((16, 16, 1), 5, 4, initialization=name) for name in ("glorot", "zero_linear")
    )
    images = np.random.default_rng(0).random((3, 16, 16, 1), np.float32)
    np.testing.assert_array_equal(zero(images), np.zeros([3, 5]))
    assert np.abs(plain(images)).max() > 1e-3
    for one, other in zip(
        plain.trainable_variables[:-2], zero.trainable_variables[:-2], strict=True
    ):
        assert (np.std(one) > 0) == (np.std(other) > 0), one.path


def test_original_initialization_is_that_of_the_lua_code():
    toy.seed(1)
    model = conv4((32, 32, 3), 5, 32, initialization="original")
    kernel, bias = model.get_layer("conv_2").get_weights()
    bound = (9 * 32) ** -0.5
    assert 0.9 * bound < np.abs(kernel).max() <= bound
    assert 0.5 * bound < np.abs(bias).max() <= bound
    kernel, bias = model.get_layer("linear").get_weights()
    bound = kernel.shape[0] ** -0.5
    assert 0.9 * bound < np.abs(kernel).max() <= bound
    assert 0.0 < np.abs(bias).max() <= bound
    gamma, beta = model.get_layer("norm_1").get_weights()[:2]
    assert 0 <= gamma.min() < 0.2 < 0.8 < gamma.max() <= 1
    assert not beta.any()


# Networks with weights from elsewhere are in test_pretrained.py.
FRESH = [each.part.name for each in LEARNERS if not issubclass(each, PretrainedLearner)]


@pytest.mark.parametrize("name", FRESH)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_learner_keeps_the_contract(name, dtype):
    build = {"conv4": conv4, "mlp": mlp}[name]  # a new learner must be listed here
    learner = FunctionalLearner(build((16, 16, 1), 3, dtype=dtype))
    theta = tf.constant(learner.initial_parameters())
    statistics = tf.constant(learner.initial_statistics())
    assert theta.shape == (learner.num_parameters,)
    assert theta.dtype == statistics.dtype == tf.as_dtype(dtype)
    assert (learner.num_outputs, learner.input_shape) == (3, (16, 16, 1))
    last = learner.parameter_blocks[-1]
    assert last.start + last.size == learner.num_parameters
    x = images(dtype=dtype)
    with tf.GradientTape() as tape:
        tape.watch(theta)
        logits, new = learner.apply(theta, statistics, x, training=True)
        total = tf.reduce_sum(logits[:, 0])
    assert logits.shape == (6, 3)
    assert new.shape == statistics.shape
    assert np.isfinite(tape.gradient(total, theta)).all()
    _, unchanged = learner.apply(theta, statistics, x, training=False)
    np.testing.assert_array_equal(unchanged, statistics)


def test_an_unknown_learner_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"learner must be one of conv4, mlp, .*, got 'resnet'"):
        LEARNERS["resnet"]


def test_conv4_says_how_large_images_must_be():
    with pytest.raises(ValueError, match="at least 16 x 16 pixels, got 8 x 20"):
        conv4((8, 20, 1), 5)


def test_state_that_is_no_float_is_refused():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dropout(0.5)(keras.layers.Dense(2)(inputs)))
    with pytest.raises(ValueError, match="leave out layers that draw random numbers"):
        FunctionalLearner(model)


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="is not built: call it once"):
        FunctionalLearner(keras.Sequential([keras.layers.Dense(2)]))


def test_the_learner_of_maml_on_omniglot():
    """Strides of two give 28 -> 14 -> 7 -> 4 -> 2, then the mean over the image. No gamma."""
    model = conv4(
        (28, 28, 1), 5, 64, downsampling="stride", features="mean", batch_norm_scale=False
    )
    assert [model.get_layer(f"conv_{i}").output.shape[1] for i in range(1, 5)] == [14, 7, 4, 2]
    assert not [layer for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    assert FunctionalLearner(model).parameter_blocks[-2].shape == (64, 5)
    sizes = [(9 + 3 * 9 * 64) * 64, 4 * 2 * 64, 65 * 5]  # kernels; biases and betas; the last layer
    assert FunctionalLearner(model).num_parameters == sum(sizes)


def test_second_order_through_the_fused_kernel_is_that_of_float64():
    """MAML differentiates the gradient of batch norm, max-pooling and strided convolutions."""
    x = images()
    for options in ({}, {"downsampling": "stride", "features": "mean"}):
        found = {}
        for dtype in ("float32", "float64"):
            learner = FunctionalLearner(conv4((16, 16, 1), 2, 3, dtype=dtype, **options))
            generator = np.random.default_rng(4)
            theta = tf.constant(generator.normal(0.0, 0.3, learner.num_parameters), dtype)
            statistics = tf.constant(learner.initial_statistics())
            with tf.GradientTape() as outer:
                outer.watch(theta)
                with tf.GradientTape() as inner:
                    inner.watch(theta)
                    logits, _ = learner.apply(theta, statistics, tf.cast(x, dtype), True)
                    loss = tf.reduce_mean(tf.square(logits[:, 0]))
                gradient = inner.gradient(loss, theta)
                size = tf.reduce_sum(tf.square(gradient))
            found[dtype] = outer.gradient(size, theta).numpy()
        scale = np.abs(found["float64"]).max()
        np.testing.assert_allclose(found["float32"], found["float64"], atol=2e-3 * scale)


def test_an_mlp_with_batch_norm_keeps_statistics():
    learner = FunctionalLearner(mlp((4,), 3, (8, 6), batch_normalization=True))
    assert learner.num_statistics == 2 * (8 + 6)
    assert learner.num_parameters == (4 * 8 + 8 + 16) + (8 * 6 + 6 + 12) + (6 * 3 + 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"downsampling": "pool"}, "downsampling must be one of max_pool, stride, got 'pool'"),
        ({"features": "max"}, "features must be one of flatten, mean, got 'max'"),
    ],
)
def test_unknown_choices_list_the_known_ones(options, message):
    with pytest.raises(ValueError, match=message):
        conv4((16, 16, 1), 2, 3, **options)


@pytest.mark.parametrize("make", [conv4, mlp])
def test_bfloat16_inside_is_float32_outside_and_close_to_it(make):
    shape = (16, 16, 1)
    options = {"batch_normalization": True} if make is mlp else {"filters": 8}
    models = []
    for dtype in ("float32", "mixed_bfloat16"):
        toy.seed(0)
        models.append(make(shape, 3, dtype=dtype, **options))
    full, half = map(FunctionalLearner, models)
    assert any(layer.compute_dtype == "bfloat16" for layer in models[1].layers)
    assert half.dtype == "float32"
    np.testing.assert_array_equal(full.initial_parameters(), half.initial_parameters())
    inputs, labels = images(20), tf.range(20) % 3
    gradients, moments = [], []
    for learner in (full, half):
        theta = tf.constant(learner.initial_parameters())
        with tf.GradientTape() as tape:
            tape.watch(theta)
            logits, statistics = learner.apply(theta, learner.initial_statistics(), inputs, True)
            loss = cross_entropy(labels, logits)
        assert logits.dtype == tf.float32
        assert statistics.dtype == tf.float32
        gradients.append(tape.gradient(loss, theta).numpy())
        moments.append(statistics.numpy())
    one, other = gradients
    assert not np.array_equal(one, other)
    assert np.dot(one, other) > 0.98 * np.linalg.norm(one) * np.linalg.norm(other)
    np.testing.assert_allclose(*moments, rtol=0.05, atol=0.02)

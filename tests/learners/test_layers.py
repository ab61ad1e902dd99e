"""Tests which layers of a user's model are kept, replaced, refused, or cause a warning."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.learners.batch_normalization import BatchNormalization
from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.learners.layers import EPISODE_MOMENTUM, adaptable
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.learners.normalization import GroupNormalization, LayerNormalization

L = keras.layers
KERAS_OWN = (L.BatchNormalization, L.GroupNormalization, L.LayerNormalization)
OURS = (BatchNormalization, GroupNormalization, LayerNormalization)


def sequential(*layers, shape=(6, 6, 3)):
    return keras.Sequential([L.Input(shape), *layers, L.Flatten(), L.Dense(2)])


def plain():
    return sequential(
        L.Conv2D(4, 3),
        L.BatchNormalization(scale=False, epsilon=1e-2, name="batch"),
        L.GroupNormalization(2, epsilon=1e-2),
        L.LayerNormalization(center=False),
        L.RMSNormalization(),
    )


def not_built_by_an_input():
    model = keras.Sequential([L.Flatten(), L.Dense(4), L.BatchNormalization(), L.Dense(2)])
    model(np.zeros((2, 6, 6, 3), "float32"))
    return model


def nested():
    inner = sequential(L.Conv2D(4, 3), L.BatchNormalization(axis=1))
    images = keras.Input((6, 6, 3))
    once = inner(images)
    return keras.Model(images, L.LayerNormalization()(once + L.BatchNormalization()(once)))


def shared():
    norm, images = L.BatchNormalization(), keras.Input((6, 6, 3))
    return keras.Model(images, L.Dense(2)(L.Flatten()(norm(L.Conv2D(3, 3)(norm(images))))))


def wrapped():
    return sequential(
        L.Reshape((6, 18)),
        L.TimeDistributed(L.BatchNormalization()),
        L.TimeDistributed(keras.Sequential([L.Dense(3), L.GroupNormalization(3)])),
        L.Bidirectional(L.GRU(2)),
    )


def partly_frozen():
    frozen = L.BatchNormalization(trainable=False)
    return sequential(L.Conv2D(4, 3, trainable=False), frozen, L.Conv2D(4, 3), KERAS_OWN[0]())


MODELS = [plain, not_built_by_an_input, nested, shared, wrapped, partly_frozen]
images = np.random.default_rng(0).normal(1.0, 2.0, (5, 6, 6, 3)).astype("float32")


def randomized(model):
    generator = np.random.default_rng(1)
    model.set_weights([generator.uniform(0.2, 1.0, w.shape) for w in model.get_weights()])
    return model


def kinds(model, which):
    return [layer for layer in model._flatten_layers() if type(layer) in which]


@pytest.mark.filterwarnings("ignore:The momentum of")
@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("make", MODELS)
def test_a_copy_with_layers_replaced_says_the_same(make, second_order):
    model = randomized(make())
    copy = adaptable(model, second_order)
    assert copy is not model
    assert type(copy) is type(model)
    which = slice(None) if second_order else slice(1)
    assert not kinds(copy, KERAS_OWN[which])
    assert len(kinds(copy, OURS)) == len(kinds(model, KERAS_OWN[which])) > 0
    names = [[v.path.split("/")[-2:] for v in m.weights] for m in (model, copy)]
    assert names[0] == names[1]
    assert len(copy.trainable_variables) == len(model.trainable_variables)
    for training in (False, True, False):  # the last pass uses statistics that have moved
        one, other = (m(images, training=training).numpy() for m in (model, copy))
        if training or not kinds(model, KERAS_OWN[:1]):
            np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4)
        for layer in kinds(model, KERAS_OWN[:1]):  # moves them as an ordinary training does
            layer.momentum = EPISODE_MOMENTUM
    settings = [
        {k: v for k, v in layer.get_config().items() if k != "momentum"}
        for m, which in ((model, KERAS_OWN), (copy, KERAS_OWN + OURS))
        for layer in kinds(m, which)
    ]
    half = len(settings) // 2
    assert settings[:half] == settings[half:]


@pytest.mark.parametrize(
    "model",
    [
        lambda: conv4((16, 16, 1), 2, 3),
        lambda: mlp((4,), 2, batch_normalization=True),
        lambda: sequential(L.Conv2D(2, 3, activation="gelu"), L.MaxPooling2D()),
        lambda: sequential(BatchNormalization(momentum=0.9), GroupNormalization(3)),
        lambda: sequential(L.LayerNormalization(rms_scaling=True), L.UnitNormalization()),
    ],
)
@pytest.mark.filterwarnings("ignore:You passed `rms_scaling")
def test_what_is_right_is_left_as_it_is(model):
    model = model()
    assert adaptable(model) is model
    assert adaptable(model, second_order=True) is model
    assert FunctionalLearner(model).model is model


def test_first_order_leaves_group_and_layer_normalization():
    model = sequential(L.GroupNormalization(3), L.LayerNormalization())
    assert adaptable(model) is model
    assert adaptable(model, second_order=True) is not model
    assert FunctionalLearner(model).model is model
    assert len(kinds(FunctionalLearner(model, second_order=True).model, OURS)) == 2


def five_passes(learner):
    """Returns the running mean and variance after five batches of mean 8 and variance 4."""
    batch = tf.constant([[6.0], [10.0], [6.0], [10.0]])
    statistics = tf.constant(learner.initial_statistics())
    theta = tf.constant(learner.initial_parameters())
    for _ in range(5):
        _, statistics = learner.apply(theta, statistics, batch, training=True)
    return statistics.numpy()


def normalized(layer):
    return keras.Sequential([L.Input((1,)), layer, L.Dense(1)])


def test_five_passes_leave_the_statistics_of_the_episode():
    """Keras's momentum of 0.99 takes 5 % of the batch statistics; ours takes 1 - 0.05^5."""
    with pytest.warns(UserWarning, match="The momentum of") as said:
        learner = FunctionalLearner(normalized(L.BatchNormalization(name="norm")))
    assert [str(each.message) for each in said if each.category is UserWarning] == [
        "The momentum of BatchNormalization 'norm' is set to 0.05, because running statistics are "
        "collected in a few support passes. To choose another momentum, use "
        "tf_metalstm.learners.batch_normalization.BatchNormalization."
    ]
    share = 1.0 - 0.05**5
    unbiased = 4.0 * 4 / 3
    expected = [8.0 * share, unbiased * share + 0.05**5]
    np.testing.assert_allclose(five_passes(learner), expected, rtol=1e-5)
    kept = FunctionalLearner(normalized(BatchNormalization(momentum=0.99)))
    np.testing.assert_allclose(five_passes(kept)[0], 8.0 * (1.0 - 0.99**5), rtol=1e-4)  # = 0.39


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_small_momentum_is_kept_and_nothing_said():
    learner = FunctionalLearner(normalized(L.BatchNormalization(momentum=0.25)))
    assert kinds(learner.model, OURS)[0].momentum == 0.25
    frozen = FunctionalLearner(normalized(L.BatchNormalization(trainable=False)))
    assert five_passes(frozen).size == 0  # frozen statistics are not statistics of an episode
    theta, image = tf.constant(frozen.initial_parameters()), tf.constant([[2.0]])
    outputs, _ = frozen.apply(theta, tf.zeros([0]), image, training=True)
    np.testing.assert_allclose(outputs, frozen.model(image))


RANDOM = {
    "AlphaDropout": L.AlphaDropout(0.1),
    "AugMix": L.AugMix(),
    "Dropout": L.Dropout(0.1),
    "GaussianDropout": L.GaussianDropout(0.1),
    "GaussianNoise": L.GaussianNoise(0.1),
    "MixUp": L.MixUp(),
    "RandAugment": L.RandAugment(),
    "RandomBrightness": L.RandomBrightness(0.1),
    "RandomCrop": L.RandomCrop(4, 4),
    "RandomErasing": L.RandomErasing(),
    "RandomFlip": L.RandomFlip(),
    "RandomRotation": L.RandomRotation(0.1),
    "SpatialDropout2D": L.SpatialDropout2D(0.1),
}


@pytest.mark.parametrize("name", RANDOM)
def test_layers_that_draw_random_numbers_are_refused(name):
    layer = RANDOM[name]
    with pytest.raises(ValueError, match="leave out layers that draw random numbers") as refused:
        FunctionalLearner(sequential(layer))
    inside = {type(each).__name__ for each in layer._flatten_layers()}
    assert any(f"The learner's {each} '" in str(refused.value) for each in inside)


def test_a_layer_that_draws_random_numbers_is_named_wherever_it_is():
    inner = sequential(L.Conv2D(2, 3), L.Dropout(0.5, name="deep"))
    with pytest.raises(ValueError, match="The learner's Dropout 'deep' keeps"):
        FunctionalLearner(keras.Sequential([L.Input((6, 6, 3)), inner]))
    recurrent = sequential(L.Reshape((6, 18)), L.LSTM(2, dropout=0.1, name="recurrent"))
    with pytest.raises(ValueError, match="The learner's LSTMCell 'lstm_cell' keeps"):
        FunctionalLearner(recurrent)
    FunctionalLearner(sequential(L.Dropout(0.0)))  # draws no random numbers


def mixed_types():
    inputs = keras.Input((3,))
    return keras.Model(inputs, L.Dense(2, dtype="float64")(L.Dense(2)(inputs)))


def two_inputs():
    one, other = keras.Input((3,)), keras.Input((3,))
    return keras.Model([one, other], L.Dense(2)(one + other))


def two_outputs():
    inputs = keras.Input((3,))
    return keras.Model(inputs, [L.Dense(2)(inputs), L.Dense(2)(inputs)])


def stateful():
    inputs = keras.Input((3, 4), batch_size=2)
    return keras.Model(inputs, L.LSTM(2, stateful=True, name="it")(inputs))


REFUSED = {
    "renorm": (
        lambda: sequential(L.BatchNormalization(renorm=True, name="it")),
        "The learner's BatchNormalization 'it' corrects its moments by those of many batches, and "
        "an episode has few: leave out renorm.",
    ),
    "ours with renorm": (
        lambda: sequential(BatchNormalization(renorm=True, name="it")),
        "The learner's BatchNormalization 'it' corrects",
    ),
    "synchronized": (
        lambda: sequential(L.BatchNormalization(synchronized=True, name="it")),
        "The learner's BatchNormalization 'it' takes its moments over devices, of which each has "
        "its own episode: leave out synchronized.",
    ),
    "spectral": (
        lambda: sequential(L.SpectralNormalization(L.Conv2D(2, 3), name="it")),
        "The learner's SpectralNormalization 'it' writes its kernel while it runs, which is a "
        "parameter to adapt: use its layer without it.",
    ),
    "stateful": (
        stateful,
        "The learner's LSTM 'it' carries its state from one batch to the next: leave out stateful.",
    ),
    "counts": (
        lambda: sequential(L.Normalization(name="it")),
        "The learner's Normalization 'it' keeps .*it/count of type int64; only floating point "
        "variables can be adapted: leave it out, or use constants instead of variables if it "
        "accepts them.",
    ),
    "mixed types": (
        mixed_types,
        "The learner's model '.*' has variables of the types float32, float64, but they become one "
        "vector: give all layers the same type of variables.",
    ),
    "two inputs": (two_inputs, "The learner's model '.*' has 2 inputs, not one."),
    "two outputs": (two_outputs, "The learner's model '.*' has 2 outputs, not one."),
    "nothing": (
        lambda: keras.Sequential([L.Input((3,)), L.Dense(2, trainable=False)]),
        "The learner's model '.*' has nothing to adapt.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_by_name(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        FunctionalLearner(make())


def test_regularizers_and_constraints_are_said_to_have_no_part():
    model = sequential(
        L.Conv2D(2, 3, kernel_regularizer="l2", name="one"),
        L.Conv2D(2, 3, bias_constraint="non_neg", name="other"),
    )
    message = "The regularizers and constraints of Conv2D 'one', Conv2D 'other' are ignored in an"
    with pytest.warns(UserWarning, match=message):
        FunctionalLearner(model)


class Block(keras.layers.Layer):
    """A block as users write them: only Keras tells its layers whether this is training."""

    def __init__(self, norm=None, **options):
        super().__init__(**options)
        self.dense = L.Dense(4)
        self.norm = norm or BatchNormalization(momentum=0.05)

    def call(self, inputs):
        return self.norm(self.dense(inputs))


class OwnModel(keras.Model):
    def __init__(self, norm=None):
        super().__init__()
        self.block, self.linear = Block(norm), L.Dense(3)

    def call(self, inputs):
        return self.linear(self.block(inputs))


@pytest.mark.parametrize("make", [OwnModel, lambda: keras.Sequential([Block(), L.Dense(3)])])
def test_a_model_of_ones_own_is_adapted_as_it_is(make):
    """Support images use their own moments even if `call` has no argument `training`."""
    model, inputs = make(), images[:, 0, 0]
    model(inputs)
    learner = FunctionalLearner(model)
    assert learner.model is model
    assert (learner.input_shape, learner.num_outputs) == ((3,), 3)
    assert len(learner.parameter_blocks) == 6
    start = learner.initial_parameters(), tf.constant(learner.initial_statistics())
    logits, statistics = learner.apply(*start, inputs, training=True)
    hidden = inputs @ model.layers[0].dense.kernel.numpy()
    expected = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-3)
    head = model.layers[1].kernel.numpy()
    np.testing.assert_allclose(logits, expected @ head, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(statistics[:4], 0.95 * hidden.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.layers[0].norm.moving_mean, np.zeros(4))


@pytest.mark.filterwarnings("ignore:The momentum of")
def test_a_layer_that_cannot_be_replaced_is_named_with_what_to_use():
    def own():
        model = OwnModel(L.BatchNormalization(name="theirs"))
        model(images[:, 0, 0])
        return model

    def inner():
        inputs = keras.Input((3,))
        return keras.Model(inputs, own()(inputs))

    def block():
        layer = Block(L.BatchNormalization(name="theirs"))
        return keras.Sequential([L.Input((3,)), layer, L.Dense(3)])

    for make in (own, inner, block):
        with pytest.raises(ValueError) as refused:
            FunctionalLearner(make())
        text = str(refused.value)
        assert "BatchNormalization 'theirs' of the learner's model '" in text
        assert (
            "use tf_metalstm.learners.batch_normalization.BatchNormalization in the model" in text
        )


def test_a_recurrent_network_that_drops_nothing_is_adapted():
    """Keras gives the layer a random generator, which it never uses."""
    model = keras.Sequential([L.Input((5, 3)), L.Bidirectional(L.LSTM(2)), L.Dense(2)])
    learner = FunctionalLearner(model)
    assert learner.num_statistics == 0
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    theta = tf.constant(learner.initial_parameters())
    with tf.GradientTape() as tape:
        tape.watch(theta)
        logits, _ = learner.apply(theta, tf.constant(learner.initial_statistics()), x, True)
    np.testing.assert_allclose(logits, model(x), rtol=1e-5, atol=1e-6)
    assert np.count_nonzero(tape.gradient(logits, theta)) > 0.9 * learner.num_parameters

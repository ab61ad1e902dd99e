"""Tests the exported model: answers, refused inputs, and what does not change the answers."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.adaptation import unroll
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.episode import Support
from tf_metalstm.methods.pixel_nearest_neighbor import PixelNearestNeighbor
from tf_metalstm.problems import SupportProblem
from tf_metalstm.serving import saved_model
from tf_metalstm.serving.pictures import picture_decoder
from tf_metalstm.serving.saved_model import ReloadError, save_method
from tf_metalstm.serving.served import ServedMethod
from tf_metalstm.serving.signatures import build_signatures, name_keys

SHAPE = (16, 16, 1)
NUM_WAY = 3
NUM_STEPS = 2


def served_method(learned_rows=False, gradient_divisor="none", **options):
    """Makes a method whose c_0 has different rows for the classes, or equal ones (symmetric)."""
    toy.seed(1)
    method = toy.image_method(NUM_STEPS, NUM_WAY, **options)
    method.gradient_divisor = gradient_divisor
    if not learned_rows:
        same_rows(method)
    # An untrained rule hardly moves theta. So its gates depend on their inputs, with rate 0.2.
    generator = np.random.default_rng(2)
    for weight in method.rule.weights:
        weight.assign(weight + generator.normal(0.0, 0.1, weight.shape))
        if weight.name == "input_bias":
            weight.assign(-1.4)
    served = ServedMethod(method, Normalization((120.0,), (70.0,)), SHAPE, NUM_WAY)
    # With mini-batches the order of the classes matters.
    assert served.relabellings == (NUM_WAY if learned_rows or method.batch_size else 1)
    return served


def same_rows(method):
    """Gives all outputs of the linear layer of c_0 the weights of the first output."""
    start = method.c_0.numpy().copy()
    for block in method.learner.last_layer_blocks():
        rows = start[block.start : block.start + block.size].reshape(block.shape)
        rows[:] = rows[..., :1]
    method.c_0.assign(start)


def pixels(number, seed=0):
    generator = np.random.default_rng(seed)
    return tf.constant(generator.integers(0, 256, [number, *SHAPE]), tf.float32)


def labels(number):
    return tf.range(number) % NUM_WAY


STEPS = {"num_steps": tf.constant(NUM_STEPS)}


def adapt(signatures, ending="", **support):
    """Returns the outputs of `adapt` that `predict` takes, and the others."""
    returned = signatures[f"adapt{ending}"](**{**STEPS, **support})
    taken = signatures[f"predict{ending}"].structured_input_signature[1]
    adapted = {name: value for name, value in returned.items() if name in taken}
    return adapted, {name: value for name, value in returned.items() if name not in taken}


def probabilities(served, support_images, support_labels, query_images):
    """Returns probabilities by ordinary calls of the method, only of classes with support images.

    If c_0 is not symmetric, they are the mean over the cyclic relabellings.
    """
    total = 0.0
    for shift in range(served.relabellings):
        given = (support_labels + shift) % NUM_WAY
        order = tf.argsort(NUM_WAY * (tf.range(len(given)) // NUM_WAY) + given)  # shot by shot
        episode = {
            "support_inputs": served.normalization(tf.gather(support_images, order))[tf.newaxis],
            "support_labels": tf.gather(given, order)[tf.newaxis],
            "query_inputs": served.normalization(query_images)[tf.newaxis],
        }
        every_way = tf.nn.softmax(served.method(episode, training=False)[0]).numpy()
        present = every_way * np.isin(np.arange(NUM_WAY), given)
        total += np.roll(present / present.sum(axis=1, keepdims=True), -shift, axis=1)
    return total / served.relabellings


def test_what_takes_long_is_traced_once(monkeypatch):
    served, calls = served_method(learned_rows=True), []
    method = type(served.method)
    adapt = method.adapt_and_trace
    monkeypatch.setattr(
        method, "adapt_and_trace", lambda *arguments: calls.append(1) or adapt(*arguments)
    )
    for signature in build_signatures(served)[1].values():
        signature.get_concrete_function()
    assert len(calls) == 1  # though it is called for each relabelling, by three kinds of signatures
    # Other models of images of this size use the same graph.
    assert picture_decoder(SHAPE).experimental_get_tracing_count() == 1


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("running", False), id="running"),
        # The contract tests compare this one with the method too.
        pytest.param(("support", False), id="support", marks=pytest.mark.slow),
        pytest.param(("running", True), id="running-relabelled"),
    ],
)
def exported(request, tmp_path_factory):
    query_normalization, learned_rows = request.param
    served = served_method(learned_rows, query_normalization=query_normalization)
    directory = tmp_path_factory.mktemp("run") / "saved_model"
    save = save_method if request.param == ("running", False) else toy.save
    save(served, directory, {"trained": {"updates": 7}})
    return served, directory, tf.saved_model.load(str(directory)).signatures


@pytest.mark.parametrize(("num_support", "num_queries"), [(3, 1), (15, 4), (7, 1), (1, 2)])
def test_any_number_of_images(exported, num_support, num_queries):
    served, _, signatures = exported
    support = {"support_images": pixels(num_support), "support_labels": labels(num_support)}
    queries = pixels(num_queries, seed=1)
    expected = probabilities(served, *support.values(), queries)
    assert expected.shape == (num_queries, NUM_WAY)

    adapted, extras = adapt(signatures, **support)
    in_two = signatures["predict"](query_images=queries, **adapted)["probabilities"]
    in_one = signatures["classify"](query_images=queries, **support, **STEPS)["probabilities"]

    num_parameters = served.method.learner.num_parameters
    assert extras["support_losses"].shape == [NUM_STEPS]
    assert (
        extras["forget_gates"].shape == extras["input_gates"].shape == [NUM_STEPS, num_parameters]
    )
    np.testing.assert_allclose(in_two, expected, atol=1e-5)
    np.testing.assert_allclose(in_one, expected, atol=1e-5)


def test_queries_do_not_see_each_other(exported):
    _, _, signatures = exported
    support = {"support_images": pixels(6), "support_labels": labels(6)}
    queries = pixels(5, seed=1)
    support |= STEPS
    together = signatures["classify"](query_images=queries, **support)["probabilities"]
    alone = signatures["classify"](query_images=queries[2:3], **support)["probabilities"]
    np.testing.assert_allclose(alone[0], together[2], atol=1e-5)


def test_adaptation_matters(exported):
    _, _, signatures = exported
    queries = pixels(4, seed=1)
    first, second = (
        signatures["classify"](
            support_images=pixels(6), support_labels=given, query_images=queries, **STEPS
        )["probabilities"]
        for given in (labels(6), labels(6)[::-1])
    )
    assert np.max(np.abs(first - second)) > 1e-2


@pytest.mark.parametrize(
    ("images", "given", "message"),
    [
        (2, [0, NUM_WAY], r"support_labels must be in \[0, 3\): the model has 3 ways"),
        (2, [-1, 0], r"support_labels must be in \[0, 3\)"),
        (0, [], "the support set is empty"),
        (3, [0, 1], "as many support_labels as support_images"),
    ],
)
@pytest.mark.parametrize("signature", ["adapt", "classify"])
def test_wrong_support_sets_are_refused(exported, signature, images, given, message):
    _, _, signatures = exported
    inputs = {"support_images": pixels(images), "support_labels": tf.constant(given, tf.int32)}
    inputs |= STEPS
    if signature == "classify":
        inputs["query_images"] = pixels(1)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures[signature](**inputs)


@pytest.mark.parametrize("signature", ["predict", "classify"])
def test_no_queries_are_refused(exported, signature):
    _, _, signatures = exported
    support = {"support_images": pixels(3), "support_labels": labels(3)}
    given = support | STEPS
    if signature == "predict":
        given, _ = adapt(signatures, **support)
    with pytest.raises(tf.errors.InvalidArgumentError, match="there are no query_images"):
        signatures[signature](query_images=pixels(0), **given)


def test_manifest_says_what_a_client_needs(exported):
    served, directory, _ = exported
    manifest = json.loads((directory / "manifest.json").read_text())
    learner = served.method.learner
    assert manifest["format"] == "tf_metalstm.saved_model"
    assert manifest["image_shape"] == [16, 16, 1]
    assert manifest["num_way"] == NUM_WAY
    assert manifest["num_steps"] == NUM_STEPS
    assert manifest["normalization"] == {"mean": [120.0], "deviation": [70.0]}
    assert manifest["query_normalization"].startswith("inductive")
    assert manifest["trained"] == {"updates": 7}
    assert manifest["versions"]["tensorflow"] == tf.__version__
    images = {"dtype": "float32", "shape": [None, 16, 16, 1]}
    steps = {"num_steps": {"dtype": "int32", "shape": []}}
    support = {"support_images": images, "support_labels": {"dtype": "int32", "shape": [None]}}
    relabellings = [NUM_WAY] if served.relabellings > 1 else []
    assert manifest.get("relabellings") == (NUM_WAY if relabellings else None)
    adapted = {
        "parameters": {"dtype": "float32", "shape": [*relabellings, learner.num_parameters]},
        "statistics": {"dtype": "float32", "shape": [*relabellings, learner.num_statistics]},
        "class_mask": {"dtype": "float32", "shape": [NUM_WAY]},
    }
    gates = {"dtype": "float32", "shape": [None, learner.num_parameters]}
    seen = {
        "support_losses": {"dtype": "float32", "shape": [None]},
        "forget_gates": gates,
        "input_gates": gates,
    }
    answer = {"probabilities": {"dtype": "float32", "shape": [None, NUM_WAY]}}
    signatures = manifest["signatures"]
    assert signatures["adapt"] == {"inputs": support | steps, "outputs": adapted | seen}
    assert signatures["predict"] == {
        "inputs": adapted | {"query_images": images},
        "outputs": answer,
    }
    assert signatures["classify"] == {
        "inputs": support | {"query_images": images} | steps,
        "outputs": answer,
    }
    strings = {"dtype": "string", "shape": [None]}
    assert signatures["adapt_encoded"]["inputs"]["support_images"] == strings
    assert signatures["predict_encoded_named"] == {
        "inputs": {name: adapted[name] for name in ("parameters", "statistics")}
        | {"query_images": strings, "class_names": strings},
        "outputs": {
            "class_names": strings,
            "labels": strings,
            "probabilities": {"dtype": "float32", "shape": [None, None]},
        },
    }
    endings = ("", "_encoded", "_named", "_encoded_named")
    assert signatures.keys() == {
        name + ending for name in ("adapt", "predict", "classify") for ending in endings
    } | {"pixels_encoded"}


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_any_number_of_updates(exported, steps):
    served, _, signatures = exported
    support = {"support_images": pixels(6), "support_labels": labels(6)}
    adapted, extras = adapt(signatures, **support, num_steps=tf.constant(steps))
    method = served.method
    loop = dataclasses.replace(method.evaluation_loop, num_steps=steps)
    images = served.normalization(support["support_images"])
    for shift in range(served.relabellings):
        given = Support(images, (support["support_labels"] + shift) % NUM_WAY)
        problem, theta_0 = SupportProblem(method.learner, given), tf.convert_to_tensor(method.c_0)
        theta, statistics, trajectory = unroll(method.rule, problem, theta_0, loop)
        if method.query_normalization == "support" or steps == 0:
            _, statistics = method.learner.apply(theta, statistics, images, training=True)
        found = adapted
        if served.relabellings > 1:
            found = {name: value[shift] for name, value in adapted.items()}
        np.testing.assert_allclose(found["parameters"], theta, atol=1e-5)
        np.testing.assert_allclose(found["statistics"], statistics, rtol=1e-4, atol=1e-5)
        if shift == 0:  # the traces are of the first relabelling
            np.testing.assert_allclose(extras["support_losses"], trajectory.losses, atol=1e-5)
            assert extras.keys() == {"support_losses", *trajectory.traces}
            for name in ("input_gates", "forget_gates"):
                np.testing.assert_allclose(extras[name], trajectory.traces[name], atol=1e-5)


def test_mini_batches_are_taken_in_turn_as_in_training_however_images_are_given():
    served = served_method(batch_size=4, gradient_divisor="batch_size")
    assert served.relabellings == NUM_WAY  # the order of the classes matters
    _, signatures = build_signatures(served)  # other tests read them from a file
    by_class = np.argsort(labels(9), kind="stable")
    found = signatures["classify"](
        support_images=tf.gather(pixels(9), by_class),
        support_labels=tf.gather(labels(9), by_class),
        query_images=pixels(4, seed=1),
        **STEPS,
    )
    expected = probabilities(served, pixels(9), labels(9), pixels(4, seed=1))
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)


def test_fewer_than_no_updates_are_refused(exported):
    _, _, signatures = exported
    with pytest.raises(tf.errors.InvalidArgumentError, match="num_steps must not be negative"):
        adapt(
            signatures,
            support_images=pixels(3),
            support_labels=labels(3),
            num_steps=tf.constant(-1),
        )


def test_what_is_left_out_is_as_in_training(exported):
    """Checks it for clients that run the graph, as servers do, and for the functions in Python."""
    served, directory, _ = exported
    support, queries = (pixels(3), labels(3)), pixels(2, seed=1)
    expected = probabilities(served, *support, queries)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(directory))
        signature = graph.signature_def["classify"]
        given = {"support_images": support[0], "support_labels": support[1]}
        feed = {
            signature.inputs[name].name: value.numpy()
            for name, value in (given | {"query_images": queries}).items()
        }
        answer = session.run(signature.outputs["probabilities"].name, feed)
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    loaded = tf.saved_model.load(str(directory))
    np.testing.assert_allclose(
        loaded.classify(*support, queries)["probabilities"], expected, atol=1e-5
    )


def test_classes_that_the_support_set_lacks_get_nothing(exported):
    _, _, signatures = exported
    adapted, _ = adapt(signatures, support_images=pixels(4), support_labels=tf.constant([0, 2] * 2))
    np.testing.assert_array_equal(adapted["class_mask"], [1, 0, 1])
    answer = signatures["predict"](query_images=pixels(5, seed=1), **adapted)["probabilities"]
    np.testing.assert_array_equal(answer[:, 1], 0.0)
    np.testing.assert_allclose(tf.reduce_sum(answer, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("names", [["cat", "ant", "Zürich"], ["only", "two"]])
@pytest.mark.parametrize("encoded", [False, True])
def test_names_come_back(exported, names, encoded):
    served, _, signatures = exported
    images, queries = pixels(6), pixels(4, seed=1)
    given = tf.constant([names[number % len(names)] for number in range(6)])
    if served.relabellings > 1:  # their numbers follow the order of their keys
        names = [names[i] for i in np.argsort(name_keys(tf.constant(names)))]
    numbers = [names.index(name.decode()) for name in given.numpy()]
    expected = probabilities(served, images, tf.constant(numbers), queries)[:, : len(names)]
    if encoded:
        images, queries = map(png_files, (images, queries))
    ending = "_encoded_named" if encoded else "_named"
    adapted, _ = adapt(signatures, ending, support_images=images, support_labels=given)
    in_two = signatures[f"predict{ending}"](query_images=queries, **adapted)
    in_one = signatures[f"classify{ending}"](
        support_images=images, support_labels=given, query_images=queries, **STEPS
    )
    for answer in (in_one, in_two):
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
        assert [name.decode() for name in answer["class_names"].numpy()] == names
        best = [names[number] for number in np.argmax(expected, axis=1)]
        assert [name.decode() for name in answer["labels"].numpy()] == best


def png_files(images):
    return tf.stack([tf.io.encode_png(tf.cast(image, tf.uint8)) for image in images])


@pytest.mark.parametrize(
    ("ending", "images", "given", "message"),
    [
        ("_named", pixels(4), ["a", "b", "c", "d"], "tells at most 3 classes apart"),
        ("_encoded", [b"%PDF-1.7"], [0], r"support_images\[0\]: it is not a JPEG"),
    ],
)
def test_what_names_and_files_cannot_be_is_refused(exported, ending, images, given, message):
    _, _, signatures = exported
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        adapt(
            signatures,
            ending,
            support_images=tf.constant(images),
            support_labels=tf.constant(given),
        )


def test_transductive_methods_are_refused():
    with pytest.raises(ValueError, match=r"query_normalization=running or .*=support"):
        served_method(query_normalization="batch")


def without_training():
    return ServedMethod(PixelNearestNeighbor(), Normalization((0.0,), (255.0,)), SHAPE, None)


@pytest.fixture
def nothing_to_train():
    return without_training()


@pytest.fixture(scope="module")
def its_export(tmp_path_factory):
    """Returns the folder of an export. Tests must not change it."""
    directory = tmp_path_factory.mktemp("nothing_to_train") / "saved_model"
    toy.save(without_training(), directory)
    return directory


def test_other_methods_can_be_exported(its_export):
    manifest = json.loads((its_export / "manifest.json").read_text())
    assert manifest["method"] == {"class": "PixelNearestNeighbor"}
    assert manifest["query_normalization"] == "none"
    remembered = {
        "features": {"dtype": "float32", "shape": [None, 256]},
        "labels": {"dtype": "int32", "shape": [None]},
    }
    assert manifest["num_way"] is None
    mask = {"class_mask": {"dtype": "float32", "shape": [None]}}
    signatures = manifest["signatures"]
    assert signatures["adapt"]["inputs"].keys() == {"support_images", "support_labels"}
    assert signatures["adapt"]["outputs"] == {**remembered, **mask}
    assert signatures["predict"]["inputs"].keys() == {"query_images", *remembered, *mask}


@pytest.mark.usefixtures("untraced")
def test_an_earlier_export_is_replaced(nothing_to_train, its_export, tmp_path):
    shutil.copytree(its_export, tmp_path / "model")
    (tmp_path / "model" / "variables" / "of_before").touch()
    save_method(nothing_to_train, tmp_path / "model", {"number": 2})
    assert not (tmp_path / "model" / "variables" / "of_before").exists()
    assert json.loads((tmp_path / "model/manifest.json").read_text())["number"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("an_export", [True, False])
def test_what_is_not_ours_is_left_alone(nothing_to_train, its_export, tmp_path, an_export):
    target = tmp_path / "model"
    if an_export:
        shutil.copytree(its_export, target)
    target.mkdir(exist_ok=True)
    (target / "thesis.tex").touch()
    before = toy.files_in(tmp_path)
    with pytest.raises(FileExistsError, match=r"move thesis\.tex away"):
        save_method(nothing_to_train, target)
    assert toy.files_in(tmp_path) == before


def test_a_failure_leaves_the_earlier_export(
    nothing_to_train, its_export, tmp_path, monkeypatch, request
):
    target = tmp_path / "model"
    shutil.copytree(its_export, target)
    before = toy.files_in(tmp_path)

    def wrong_in_the_model(adapted, images, embed=None, self=nothing_to_train):
        answers = ServedMethod.answers(self, adapted, images, embed)
        return answers + 0.1 if tf.inside_function() else answers

    # The class is frozen, so monkeypatch cannot set the attribute.
    object.__setattr__(nothing_to_train, "answers", wrong_in_the_model)
    with pytest.raises(ReloadError, match="classify differs from the method by 1"):
        save_method(nothing_to_train, target, {"number": 2})
    assert toy.files_in(tmp_path) == before
    assert "number" not in json.loads((target / "manifest.json").read_text())

    # No difference is small enough, as if the loaded model differed from the written one.
    object.__delattr__(nothing_to_train, "answers")
    with monkeypatch.context() as patched:
        patched.setattr(saved_model, "_READ_BACK", -1.0)
        with pytest.raises(ReloadError, match="classify differs from the method by 0"):
            save_method(nothing_to_train, target, {"number": 2})
    assert toy.files_in(tmp_path) == before

    request.getfixturevalue("untraced")
    monkeypatch.setattr(saved_model.Path, "rename", failing_rename(saved_model.Path.rename))
    with pytest.raises(OSError, match="disk is gone"):
        save_method(nothing_to_train, target, {"number": 2})
    assert toy.files_in(tmp_path) == before


def failing_rename(rename):
    def renamed(path, target):
        if path.name.endswith(".partial"):
            raise OSError("the disk is gone")
        return rename(path, target)

    return renamed

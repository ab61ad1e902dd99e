"""Tests how many classes a model takes, and that the numbers of the classes do not matter."""

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.matching_networks import MatchingNetworks
from tf_metalstm.methods.nearest_neighbor import NearestNeighbor
from tf_metalstm.methods.pixel_nearest_neighbor import PixelNearestNeighbor
from tf_metalstm.methods.prototypical_networks import PrototypicalNetworks
from tf_metalstm.rules.sgd import SGD
from tf_metalstm.serving.served import MAX_CLASSES, ServedMethod
from tf_metalstm.serving.signatures import build_signatures

SHAPE = (16, 16, 1)
ENDINGS = ("", "_named", "_encoded", "_encoded_named")
NAMED = ("_named", "_encoded_named")
NORMALIZATION = Normalization((120.0,), (70.0,))


def network(num_outputs):
    toy.seed(1)
    return mlp(SHAPE, num_outputs, (8,))


METHODS = {
    "nearest_neighbor": lambda: NearestNeighbor(network(8)),
    "matching_networks": lambda: MatchingNetworks(embedding_of(network(1)), training_way=5),
    "prototypical_networks": lambda: PrototypicalNetworks(embedding_of(network(1)), training_way=5),
    "pixel_nearest_neighbor": PixelNearestNeighbor,
}


def pixels(number, seed=0):
    generator = np.random.default_rng(seed)
    return tf.constant(generator.integers(0, 256, [number, *SHAPE]), tf.float32)


def files(images):
    return tf.stack([tf.io.encode_png(tf.cast(image, tf.uint8)) for image in images])


def inputs_of(signature):
    """Returns the input names of a signature, before or after loading."""
    traced = getattr(signature, "get_concrete_function", lambda: signature)()
    named, others = traced.structured_input_signature
    return {spec.name for spec in named} | set(others)


def answers(signatures, ending, images, labels, queries):
    """Returns probabilities by `classify`, and by `adapt` and `predict`, if these exist."""
    if ending.startswith("_encoded"):
        images, queries = files(images), files(queries)
    support = {"support_images": images, "support_labels": tf.constant(labels)}
    taken = {name: inputs_of(signature) for name, signature in signatures.items()}
    steps = {"num_steps": tf.constant(2)} if "num_steps" in taken[f"adapt{ending}"] else {}
    adapted = signatures[f"adapt{ending}"](**support, **steps)
    adapted = {name: v for name, v in adapted.items() if name in taken[f"predict{ending}"]}
    found = (
        signatures[f"classify{ending}"](**support, **steps, query_images=queries),
        signatures[f"predict{ending}"](**adapted, query_images=queries),
    )
    for each in found:
        columns = np.transpose(each["probabilities"])
        if ending in NAMED:
            names = each["class_names"].numpy().tolist()
            assert each["labels"].numpy().tolist() == [names[i] for i in columns.argmax(axis=0)]
            yield dict(zip(names, columns, strict=True))
        else:
            yield dict(enumerate(columns))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Writes and loads one model. The contract tests do this for all methods."""
    served = ServedMethod(METHODS["prototypical_networks"](), NORMALIZATION, SHAPE, None)
    folder = tmp_path_factory.mktemp("run") / "saved_model"
    manifest = toy.save(served, folder)
    assert manifest["num_way"] is None
    assert "relabellings" not in manifest
    return served, tf.saved_model.load(str(folder)).signatures


@pytest.fixture(scope="module", params=METHODS)
def any_number(request):
    served = ServedMethod(METHODS[request.param](), NORMALIZATION, SHAPE, None)
    return served, build_signatures(served)[1]


@pytest.mark.parametrize("num_way", [2, 5, 12, 50])
def test_an_exported_model_takes_any_number_of_classes(exported, num_way):
    check_number_of_classes(*exported, num_way, ENDINGS)


@pytest.mark.parametrize("num_way", [2, 12])
def test_any_number_of_classes(any_number, num_way):
    check_number_of_classes(*any_number, num_way, ("", "_named"))


def check_number_of_classes(served, signatures, num_way, endings):
    images, queries = pixels(2 * num_way), pixels(4, seed=1)
    numbers = np.arange(2 * num_way, dtype=np.int32) % num_way
    episode = {"support_inputs": images, "support_labels": numbers, "query_inputs": queries}
    for part in ("support_inputs", "query_inputs"):
        episode[part] = served.normalization(episode[part])
    episode = {name: tf.constant(value)[tf.newaxis] for name, value in episode.items()}
    expected = tf.nn.softmax(served.method(episode, training=False)[0]).numpy()
    assert expected.shape == (4, num_way)
    np.testing.assert_allclose(expected.sum(axis=1), 1.0, atol=1e-5)
    for ending in endings:
        labels = [b"name %d" % n for n in numbers] if ending in NAMED else numbers
        for found in answers(signatures, ending, images, labels, queries):
            assert len(found) == num_way
            for number in range(num_way):
                wanted = expected[:, number]
                key = b"name %d" % number if ending in NAMED else number
                np.testing.assert_allclose(found[key], wanted, atol=1e-5)


def test_features_that_were_kept_give_the_same_answers(exported):
    """An image gives the same features alone and beside others. A left-out image has no effect."""
    _, signatures = exported
    images, queries = pixels(7), pixels(2, seed=1)
    numbers = tf.constant([0, 1, 2, 0, 1, 2, 0])
    of_support = signatures["features"](images=images)["features"]
    of_queries = signatures["features_encoded"](images=files(queries))["features"]
    alone = signatures["features"](images=images[2:3])["features"]
    np.testing.assert_allclose(alone[0], of_support[2], atol=1e-5)
    for left in (7, 6):  # once with all pictures, once without the last
        adapted = signatures["adapt_features"](
            support_features=of_support[:left], support_labels=numbers[:left]
        )
        logits = signatures["predict_features"](query_features=of_queries, **adapted)["logits"]
        expected = signatures["classify"](
            support_images=images[:left], support_labels=numbers[:left], query_images=queries
        )["probabilities"]
        np.testing.assert_allclose(tf.nn.softmax(logits), expected, atol=1e-5)
    for wrong, number, said in ((of_support[:1], 7, "as many"), (of_support[:0], 0, "empty")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=said):
            signatures["adapt_features"](support_features=wrong, support_labels=numbers[:number])


def test_too_many_classes_are_refused(any_number):
    _, signatures = any_number
    images = pixels(1)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must be in \[0, 1000\)"):
        signatures["adapt"](support_images=images, support_labels=tf.constant([MAX_CLASSES]))
    names = tf.strings.as_string(tf.range(MAX_CLASSES + 1))
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 1000 classes apart"):
        signatures["adapt_named"](
            support_images=tf.repeat(images, MAX_CLASSES + 1, axis=0), support_labels=names
        )


NUM_WAY = 4


@pytest.fixture(scope="module", params=[True, False], ids=["learned rows", "equal rows"])
def gradient_based(request):
    toy.seed(2)
    # The meta-LSTM is left out: its preprocessing amplifies rounding in the sum over images.
    method = toy.image_method(num_steps=2, num_way=NUM_WAY, rule=SGD(0.5))
    if not request.param:
        toy.zero_head(method)
    served = ServedMethod(method, NORMALIZATION, SHAPE, NUM_WAY)
    assert served.relabellings == (NUM_WAY if request.param else 1)
    return build_signatures(served)[1]


def test_relabelled_classes_have_the_same_probabilities(gradient_based):
    images, queries = pixels(8), pixels(3, seed=1)
    numbers = np.arange(8, dtype=np.int32) % NUM_WAY
    for ending in ("", "_encoded"):
        for number_of in range(2):  # for classify, then for adapt and predict
            asked = [
                list(answers(gradient_based, ending, images, (numbers + shift) % NUM_WAY, queries))
                for shift in range(NUM_WAY)
            ]
            first, *others = (each[number_of] for each in asked)
            assert np.ptp([first[i] for i in range(NUM_WAY)], axis=0).max() > 1e-2
            for shift, other in enumerate(others, 1):
                for number in range(NUM_WAY):
                    rolled = other[(number + shift) % NUM_WAY]
                    np.testing.assert_allclose(rolled, first[number], atol=1e-5)


@pytest.mark.parametrize("names", [["pear", "apple", "fig", "plum"], ["one", "two", "three"]])
def test_names_do_not_depend_on_the_order_of_the_images(gradient_based, names):
    images, queries = pixels(12), pixels(3, seed=1)
    given = np.array([names[i % len(names)] for i in range(12)])
    generator = np.random.default_rng(0)
    orders = [np.arange(12), *(generator.permutation(12) for _ in range(3))]
    for ending in NAMED:
        found = [
            each
            for order in orders
            for each in answers(
                gradient_based, ending, tf.gather(images, order), given[order].tolist(), queries
            )
        ]
        for other in found:
            assert other.keys() == {name.encode() for name in names}
            for name, wanted in found[0].items():
                np.testing.assert_allclose(other[name], wanted, atol=1e-5)


def test_a_single_call_prefers_a_class_where_c_0_does():
    """Without the average over relabellings, the number of a class matters."""
    toy.seed(2)
    method = toy.image_method(num_steps=2, num_way=NUM_WAY)
    assert not method.is_symmetric
    inputs, queries = NORMALIZATION(pixels(8)), NORMALIZATION(pixels(3, seed=1))

    def asked(labels):
        episode = {"support_inputs": inputs, "support_labels": labels, "query_inputs": queries}
        episode = {name: tf.constant(value)[tf.newaxis] for name, value in episode.items()}
        return tf.nn.softmax(method(episode, training=False)[0]).numpy()

    numbers = np.arange(8, dtype=np.int32) % NUM_WAY
    moved = np.roll(asked((numbers + 1) % NUM_WAY), -1, axis=1)
    assert np.abs(moved - asked(numbers)).max() > 1e-2
    toy.zero_head(method)
    assert method.is_symmetric
    moved = np.roll(asked((numbers + 1) % NUM_WAY), -1, axis=1)
    np.testing.assert_allclose(moved, asked(numbers), atol=1e-5)

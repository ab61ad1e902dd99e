"""The trained models of the repository load, adapt or optimize, and have complete manifests."""

import json
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden import EPISODE

from tf_metalstm.classifier import FewShotClassifier
from tf_metalstm.keras_optimizer import LearnedOptimizer

ROOT = pathlib.Path(__file__).parents[1]
MODELS = ROOT / "models"
FOLDERS = sorted(path.parent for path in MODELS.glob("*/manifest.json"))
COMPARED = json.loads((ROOT / "docs" / "tables" / "optimizers.json").read_text())


def labelled_files(part):
    files = sorted(path for path in (EPISODE / part).rglob("*") if path.is_file())
    return files, [path.parent.name for path in files]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_it_says_how_good_it_is_and_the_readme_says_the_same(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    [row] = [
        line
        for line in (MODELS / "README.md").read_text().splitlines()
        if folder.name in line and line.startswith("|")
    ]
    assert manifest["measured"]
    for report in manifest["measured"]:
        assert (report["num_episodes"], report["split"]) == (600, "test")
        assert report["batch_norm"] == manifest["query_normalization"]
        assert report["batch_norm"].startswith("inductive")
        assert f"{100 * report['mean']:.2f} +- {100 * report['interval']:.2f} %" in row
    assert re.search(f" {manifest['trained']['updates']:,} (meta-)?updates", row)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_it_carries_the_terms_of_its_data(folder):
    source = json.loads((folder / "manifest.json").read_text())["trained"]["source"]
    name = {"omniglot": "Omniglot", "mini_imagenet": "mini-ImageNet"}[source]
    assert f"trained on {name}" in (folder / "TERMS.md").read_text()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_it_learns_signs_of_another_kind(folder):
    """Five characters of unseen scripts, drawn by a font. They are easy even for other models."""
    classifier = FewShotClassifier.load(folder).fit(*labelled_files("support"))
    queries, labels = labelled_files("query")
    enough = {"mini_imagenet_5way_1shot": 0.35}.get(
        folder.name, 0.6 if "mini" in folder.name else 0.8
    )
    assert np.mean(classifier.predict(queries) == np.array(labels)) > enough


def last_loss(optimizer, seed, updates=100):
    """Returns the loss after some updates of a quadratic. The quadratics are drawn here."""
    generator = np.random.default_rng(seed)
    matrix, target = (tf.constant(generator.uniform(size=s), "float32") for s in ((10, 10), 10))
    theta = keras.Variable(generator.normal(0.0, 0.01, 10).astype("float32"))
    optimizer.build([theta])

    @tf.function
    def update():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(tf.linalg.matvec(matrix, theta.value) - target))
        optimizer.apply([tape.gradient(loss, theta.value)], [theta])
        return loss

    return [float(update()) for _ in range(updates + 1)][-1]


def tuned_rate(comparison, name):
    """Returns the learning rate that was best for an optimizer of Keras in a comparison."""
    return COMPARED[comparison]["optimizers"][name]["learning_rate"]


def test_the_optimizer_minimizes_new_quadratics():
    """Its loss is below that of momentum, at the best rate for quadratics of the same kind."""
    rate = tuned_rate("quadratics, code's convention", "momentum")
    ours, momentum = (
        np.mean([last_loss(make(), seed) for seed in range(6)])
        for make in (
            lambda: LearnedOptimizer.load(MODELS / "optimizers" / "quadratics"),
            lambda: keras.optimizers.SGD(rate, momentum=0.9),
        )
    )
    assert ours < 0.8 * momentum


def test_the_hierarchical_rnn_goes_on_for_more_updates_than_it_was_trained_with():
    """After 1,000 updates its loss is below that of Adam at its default rate."""
    folder = MODELS / "optimizers" / "hierarchical_rnn"
    with pytest.warns(UserWarning, match="trained"):
        ours = last_loss(LearnedOptimizer.load(folder), 0, 1000)
    assert ours < last_loss(keras.optimizers.Adam(0.001), 0, 1000)


def last_losses_of_networks(optimizer, seeds):
    """The losses of networks 64-20-10 on new images after 100 updates, with 128 images in each.

    The classes are random templates with noise, and no images of MNIST. The network and the
    optimizer are set back to the beginning for each seed, so that they are compiled only once.
    """
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(20, "sigmoid"), keras.layers.Dense(10)]
    )
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    optimizer.build(model.trainable_variables)
    beginning = [(each, each.numpy()) for each in optimizer.variables]

    def images(generator, templates, number):
        labels = generator.integers(0, 10, number)
        noise = 0.25 * generator.normal(size=(number, 64))
        return np.clip(templates[labels] + noise, 0.0, 1.0), labels

    for seed in seeds:
        generator = np.random.default_rng(seed)
        templates = generator.random((10, 64)) * (generator.random((10, 64)) > 0.6)
        for variable, value in beginning:
            variable.assign(value)
        model.set_weights([0.01 * generator.normal(size=w.shape) for w in model.weights])
        images_to_learn = images(generator, templates, 12_800)
        model.fit(*images_to_learn, batch_size=128, shuffle=False, verbose=0)
        yield model.evaluate(*images(generator, templates, 2_000), batch_size=500, verbose=0)


def test_the_optimizer_of_mnist_trains_a_network_on_other_images():
    """Its loss is below half of that of Adam on each of three networks, with the same images.

    Adam has the rate that is best on MNIST. It was not tuned on these images.
    """
    rate = tuned_rate("784-20-10 on MNIST, 100 updates", "Adam")
    learned = LearnedOptimizer.load(MODELS / "optimizers" / "mnist")
    ours, adam = (
        np.array(list(last_losses_of_networks(each, range(3))))
        for each in (learned, keras.optimizers.Adam(rate))
    )
    assert (ours < 0.5 * adam).all(), (ours, adam)

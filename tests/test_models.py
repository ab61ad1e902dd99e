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

MODELS = pathlib.Path(__file__).parents[1] / "models"
FOLDERS = sorted(path.parent for path in MODELS.glob("*/manifest.json"))


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


def last_loss(optimizer, seed):
    """Returns the loss after 100 updates of a quadratic. The quadratics are drawn here."""
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

    return [float(update()) for _ in range(101)][-1]


def test_the_optimizer_minimizes_new_quadratics():
    """Its loss is below that of momentum at the best learning rate."""
    ours, momentum = (
        np.mean([last_loss(make(), seed) for seed in range(6)])
        for make in (
            lambda: LearnedOptimizer.load(MODELS / "optimizers" / "quadratics"),
            lambda: keras.optimizers.SGD(0.03, momentum=0.9),
        )
    )
    assert ours < 0.8 * momentum


def last_loss_of_network(optimizer, seed):
    """The loss of a network 64-20-10 on new images after 100 updates, with 128 images in each.

    The classes are random templates with noise, and no images of MNIST.
    """
    generator = np.random.default_rng(seed)
    templates = generator.random((10, 64)) * (generator.random((10, 64)) > 0.6)

    def images(number):
        labels = generator.integers(0, 10, number)
        noise = 0.25 * generator.normal(size=(number, 64))
        return np.clip(templates[labels] + noise, 0.0, 1.0), labels

    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(20, "sigmoid"), keras.layers.Dense(10)]
    )
    model.set_weights([0.01 * generator.normal(size=w.shape) for w in model.weights])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*images(12_800), batch_size=128, shuffle=False, verbose=0)
    return model.evaluate(*images(2_000), verbose=0)


def test_the_optimizer_of_mnist_trains_a_network_on_other_images():
    """Its loss is below half of that of Adam at the rate that is best on MNIST."""
    ours = last_loss_of_network(LearnedOptimizer.load(MODELS / "optimizers" / "mnist"), 0)
    assert ours < 0.5 * last_loss_of_network(keras.optimizers.Adam(0.03), 0)

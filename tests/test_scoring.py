"""The quick evaluation of a list gives the same scores of the same episodes."""

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm import feature_cache, scoring
from tf_metalstm.data.episodes import ImageEpisodes, episode_dataset
from tf_metalstm.data.feature_episodes import FeatureEpisodes
from tf_metalstm.data.preprocessing import Augmentation, Normalization
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.nearest_neighbor import NearestNeighbor
from tf_metalstm.methods.pixel_nearest_neighbor import PixelNearestNeighbor
from tf_metalstm.methods.ridge_regression import RidgeRegression
from tf_metalstm.scoring import episode_scores, questions

SHAPE = (16, 16, 1)
LENGTH = 12


def network(num_outputs=1):
    toy.seed(0)
    return mlp(SHAPE, num_outputs, (4,))


METHODS = {
    "pixels": PixelNearestNeighbor,
    "nearest_neighbor": lambda: NearestNeighbor(network(3)),
    "ridge_regression": lambda: RidgeRegression(embedding_of(network())),
}


def episodes():
    return toy.image_episodes(split="test", seed=1)


def asked(method, stream, answer=None):
    """Returns the scores, and the outputs of each episode."""
    outputs = []
    scores, *_ = episode_scores(
        method, stream, each=lambda _, found: outputs.append(found), answer=answer
    )
    return scores, outputs


@pytest.mark.parametrize("name", METHODS)
def test_features_that_are_computed_once_give_the_same_answers(name):
    method = METHODS[name]()
    scores, outputs = asked(method, episode_dataset(episodes(), num_episodes=LENGTH))
    stream, answer = questions(method, episodes(), LENGTH)
    inputs, _ = stream.element_spec
    assert inputs["support_features"].shape.rank == 3  # features, [E, N*K, D]
    assert inputs["support_features"].shape[0] == LENGTH
    found, of_features = asked(method, stream, answer)
    np.testing.assert_allclose(of_features, outputs, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found, scores, atol=0.021)  # one of 15 queries may be a tie
    assert 0.3 < np.mean(scores) <= 1.0


def test_each_image_goes_through_the_network_once():
    """The features go to all places of the list that have the image."""
    images, seen = episodes(), []

    def features(some):
        seen.append(some.numpy())
        return tf.reshape(some, [len(some), -1])

    by_features = FeatureEpisodes(images, LENGTH)
    assert by_features.num_places == LENGTH * 5 * 5
    assert by_features.num_images < by_features.num_places
    assert by_features.compute(features, 2**29)
    seen = np.concatenate(seen).reshape(by_features.num_images, -1)
    assert len(np.unique(seen, axis=0)) == by_features.num_images
    for index in range(LENGTH):
        (inputs, labels), (expected, of_images) = by_features(index), images(index)
        np.testing.assert_array_equal(labels, of_images)
        np.testing.assert_array_equal(inputs["support_labels"], expected["support_labels"])
        for name in ("support_inputs", "query_inputs"):
            pixels = np.reshape(expected[name], (len(expected[name]), -1))
            np.testing.assert_array_equal(inputs[name.replace("inputs", "features")], pixels)
    assert by_features.fingerprint(LENGTH) == images.fingerprint(LENGTH)


def test_features_that_would_fill_the_memory_are_not_kept(monkeypatch):
    method = PixelNearestNeighbor()
    monkeypatch.setattr(feature_cache, "_MOST_BYTES", 10_000)
    stream, answer = questions(method, episodes(), LENGTH)
    assert stream.element_spec[0]["support_inputs"].shape == (LENGTH, 10, *SHAPE)
    expected, _ = asked(method, episode_dataset(episodes(), num_episodes=LENGTH))
    np.testing.assert_allclose(asked(method, stream, answer)[0], expected)


def test_images_that_change_have_no_features_to_keep():
    plain = episodes()
    changed = ImageEpisodes(plain.sampler, Normalization((0.0,), (255.0,)), Augmentation(("flip",)))
    stream, _ = questions(PixelNearestNeighbor(), changed, LENGTH)
    assert stream.element_spec[0]["support_inputs"].shape == (LENGTH, 10, *SHAPE)


@pytest.mark.parametrize(("length", "at_a_time"), [(12, 12), (40, 20), (26, 13), (23, 1)])
def test_as_many_episodes_at_a_time_as_divide_the_list(length, at_a_time):
    assert scoring._at_a_time(episodes(), length) == at_a_time


def test_large_episodes_are_few_at_a_time(monkeypatch):
    monkeypatch.setattr(scoring, "_IMAGES", 80)  # an episode has 25
    assert scoring._at_a_time(episodes(), 12) == 3
    monkeypatch.setattr(scoring, "_IMAGES", 20)
    assert scoring._at_a_time(episodes(), 12) == 1


def test_updates_are_made_in_every_episode_as_one_by_one():
    method = toy.image_method(num_steps=1)
    expected, _ = asked(method, episode_dataset(episodes(), num_episodes=6))
    stream, answer = questions(method, episodes(), 6)
    assert stream.element_spec[0]["support_inputs"].shape == (6, 10, *SHAPE)
    np.testing.assert_allclose(asked(method, stream, answer)[0], expected, atol=0.07)


def test_both_modes_of_batch_norm_are_asked_in_one_pass():
    """The second outputs are those of a method with that mode. Each set is adapted once."""
    inductive, transductive = (
        toy.image_method(num_steps=0, query_normalization=mode) for mode in ("support", "batch")
    )
    transductive.set_weights(inductive.get_weights())
    expected = [
        episode_scores(one, episode_dataset(episodes(), num_episodes=4)).scores
        for one in (inductive, transductive)
    ]
    assert np.abs(expected[0] - expected[1]).max() > 0.05
    stream, answer = questions(inductive, episodes(), 4, both_modes=True)
    found = episode_scores(inductive, stream, answer=answer)
    np.testing.assert_allclose(found.scores, expected[0], atol=0.07)
    np.testing.assert_allclose(found.transductive, expected[1], atol=0.07)
    assert inductive.transductive_mode == transductive.describe_normalization()
    assert transductive.transductive_mode is None

"""Tests Koch's trials: one alphabet, two drawers, one character each to choose and to ask about."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.data.sources.base import ClassImages
from tf_metalstm.data.sources.omniglot_trials import (
    NUM_WAY,
    TEST_DRAWERS,
    OmniglotTrials,
    TrialSampler,
    alphabet_of,
)
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.task_facts import TaskFacts

SIZES = {f"Alphabet_{letter}": 20 + i for i, letter in enumerate("ABCDEFGHIJKL")} | {"Few": 19}
NAMES = [f"{name}/character{i:02d}" for name, size in sorted(SIZES.items()) for i in range(size)]


def characters(drawings=20):
    """Makes images of one pixel, which is the number of the drawer."""
    images = np.tile(np.arange(drawings, dtype=np.uint8), len(NAMES))
    sizes = np.full([len(NAMES)], drawings)
    return ClassImages(images.reshape(-1, 1, 1, 1), sizes, tuple(NAMES))


class Source:
    """A source with such characters in every split."""

    name, image_shape = "omniglot", (1, 1, 1)

    def load(self, split):
        return characters()

    def class_names(self, split):
        return tuple(NAMES)


@pytest.fixture
def tasks():
    return OmniglotTrials(Source(), EpisodeSpec(NUM_WAY, 1, 1), Normalization((0.0,), (1.0,)))


def test_twenty_episodes_are_400_trials_of_ten_alphabets_two_times_each(tasks):
    episodes = tasks.episodes("test", 0)
    seen, drawers = [], set()
    for index in range(20):
        inputs, labels = episodes(tf.constant(index, tf.int64))
        assert sorted(labels.numpy().tolist()) == list(range(20))
        [alphabet] = {alphabet_of(NAMES[number]) for number in episodes.classes(index)}
        assert len(set(episodes.classes(index).tolist())) == 20
        seen.append(alphabet)
        [support], [query] = (
            set(inputs[name].numpy().ravel()) for name in ("support_inputs", "query_inputs")
        )
        assert support != query
        drawers |= {support, query}
    assert seen[:10] == [f"Alphabet_{letter}" for letter in "ABCDEFGHIJ"]
    assert seen[10:] == seen[:10]
    assert drawers == set(TEST_DRAWERS)
    first, second = (episodes.classes(number).tolist() for number in (1, 11))
    assert first != second  # each has 21 characters to choose from


def test_a_list_is_fixed_by_its_seed(tasks):
    first, same, other = (tasks.episodes("test", seed).fingerprint(4) for seed in (0, 0, 1))
    assert first == same != other


def test_a_run_that_knows_the_alphabets_is_refused(tasks):
    names = ("Runes/character01", "Runes/character02@090")
    tasks.check_unseen(TaskFacts("omniglot", "images", "", training_classes=names), ["test"])
    known = ["Runes/character01", "Alphabet_C/character07@180", "Few/character01"]
    with pytest.raises(ValueError, match=r"of 2 alphabets of the trials, such as Alphabet_C, but"):
        tasks.check_unseen(TaskFacts("omniglot", "images", "", training_classes=known), ["test"])


def test_a_character_without_all_drawings_is_refused():
    with pytest.raises(
        ValueError, match=r"needs its 20 drawings.*'Alphabet_A/character00'.*has 19"
    ):
        TrialSampler(characters(19), "test", EpisodeSpec(NUM_WAY, 1, 1))


def test_alphabets_that_are_all_too_small_are_refused():
    with pytest.raises(ValueError, match="No alphabet of omniglot/test has 40 characters"):
        TrialSampler(characters(), "test", EpisodeSpec(40, 1, 1), source_name="omniglot")

"""Training and evaluation share no random numbers, and the lists stay fixed."""

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.data.episodes import random_key
from tf_metalstm.data.sine import SineTasks
from tf_metalstm.data.sources.base import SPLITS
from tf_metalstm.data.tasks import ImageTasks
from tf_metalstm.episode import EpisodeSpec


class FormerNames(toy.ToySource):
    """The toy images with the names that classes had when the lists were recorded."""

    def load(self, split):
        return toy.glyph_like_classes(num_classes=8, seed=len(split))


def image_tasks(class_sampling="independent"):
    spec = EpisodeSpec(3, 2, 3)
    return ImageTasks(FormerNames(), spec, class_sampling=class_sampling)


TASKS = {
    "images": image_tasks,
    "permuted": lambda: image_tasks("permutation"),
    "sine": lambda: SineTasks(4, 6),
}
# Recorded results are of these lists. They are older than the separate keys of training.
LISTS = {
    "images": ("61da1da2a82ce28b", "a9d271ba51d22de5", "b60fa480a42f575e"),
    "permuted": ("61da1da2a82ce28b", "a9d271ba51d22de5", "b60fa480a42f575e"),
    "sine": ("8e2b3a22e139258a", "0306a94a9e96b9f9", "cba8ff2ddb1a1359"),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_lists_are_those_of_before(name):
    tasks = TASKS[name]()
    found = tuple(tasks.episodes(split, 0).fingerprint(20) for split in SPLITS)
    assert found == LISTS[name]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_a_list_has_no_episode_of_the_training(name, split):
    tasks = TASKS[name]()
    trained, listed = (tasks.episodes(split, 0, training) for training in (True, False))
    assert trained.fingerprint(20) not in (listed.fingerprint(20), *LISTS[name])
    for index in range(20):
        one, other = (episodes(tf.constant(index))[0] for episodes in (trained, listed))
        assert not np.array_equal(one["support_inputs"], other["support_inputs"])


def test_no_two_uses_have_one_key():
    keys = {
        tuple(random_key(seed, split, stream, tf.constant(number, tf.int64), training).numpy())
        for seed in (0, 1, 3, 7)
        for split in SPLITS
        for stream in range(5)
        for number in (0, 1, 5)
        for training in (False, True)
    }
    assert len(keys) == 4 * 3 * 5 * 3 * 2


def test_the_augmentation_of_training_is_of_training():
    trained, listed = (image_tasks().sampler("train", 0, training) for training in (True, False))
    index = tf.constant(4)
    assert not np.array_equal(trained.augmentation_seed(index), listed.augmentation_seed(index))

"""Classes that are too small for an episode are left out on request, and named."""

import numpy as np
import pytest
import toy

from tf_metalstm.catalogue import FAMILIES
from tf_metalstm.construction import build_tasks
from tf_metalstm.data.class_sizes import describe_small, large_enough
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.data.sources.base import ClassImages
from tf_metalstm.options import options_of

SIZES = [4, 1, 5, 6, 3]
NAMES = tuple("abcde")


def classes(sizes=SIZES):
    """Makes classes. Each pixel of an image is the number of its class."""
    images = np.repeat(np.arange(len(sizes)), sizes).astype(np.uint8)
    images = np.broadcast_to(images[:, np.newaxis, np.newaxis, np.newaxis], (sum(sizes), 16, 16, 1))
    return ClassImages(images, np.array(sizes, np.int64), NAMES[: len(sizes)])


@pytest.mark.parametrize(
    ("least", "kept"), [(1, "abcde"), (2, "acde"), (4, "acd"), (5, "cd"), (6, "d"), (7, "")]
)
def test_those_that_have_enough_are_kept_with_their_images(least, kept):
    found, small = large_enough(classes(), least)
    assert "".join(found.class_names) == kept
    numbers = [NAMES.index(name) for name in kept]
    assert found.class_sizes.tolist() == [SIZES[i] for i in numbers]
    assert found.images[:, 0, 0, 0].tolist() == [i for i in numbers for _ in range(SIZES[i])]
    assert small == {NAMES[i]: SIZES[i] for i in range(5) if i not in numbers}


def test_nothing_is_copied_where_all_are_large_enough():
    whole = classes()
    assert large_enough(whole, 1)[0] is whole


def test_at_most_ten_are_named():
    small = {f"class {i}": 1 for i in range(12)}
    said = describe_small(small, 40, 6, "own/train")
    assert said.startswith(
        "own/train: 12 of 40 classes left out, because they have fewer than the 6 images"
    )
    assert said.endswith("class 8 (1), class 9 (1), and 2 more")
    assert "class 10" not in said


@pytest.fixture
def unequal(monkeypatch):
    monkeypatch.setattr(toy.ToySource, "load", lambda self, split: classes())


@pytest.mark.parametrize("training", [True, False])
def test_episodes_have_the_large_ones_alone(unequal, training, capsys):
    said = {"num_way": 2, "num_shot": 1, "num_query": 3, "skip_small_classes": True}
    said |= {"training_num_query": 4}
    tasks = build_tasks(toy.settings(**said))
    for each in (tasks, tasks.normalized_by(Normalization((0.0,), (1.0,)))):
        episodes = each.episodes("train", 0, training)
        number = "2" if training else "3"
        left = "a (4), b (1), e (3)" if training else "b (1), e (3)"
        output = capsys.readouterr().out
        assert f"toys/train: {5 - int(number)} of 5 classes left out" in output
        assert output.endswith(f"of an episode: {left}\n")
        drawn = {name for i in range(20) for name in episodes.classes(i).tolist()}
        assert drawn == set(range(int(number)))
    levels = np.unique(episodes(0)[0]["query_inputs"])
    assert set(levels.tolist()) <= ({2.0, 3.0} if training else {0.0, 2.0, 3.0})


def test_without_it_the_error_says_that_there_is_a_way(unequal):
    said = {"num_way": 2, "num_shot": 1, "num_query": 3}
    with pytest.raises(ValueError, match=r"Class 'b' .* has 1 images .* skip_small_classes=true"):
        build_tasks(toy.settings(**said)).episodes("train", 0)


def test_too_few_that_are_large_enough(unequal):
    said = {"num_way": 4, "num_shot": 1, "num_query": 3, "skip_small_classes": True}
    with pytest.raises(ValueError, match="toys/test has 3 classes but num_way is 4"):
        build_tasks(toy.settings(**said)).episodes("test", 0)


def test_every_source_of_images_has_the_option():
    for source in FAMILIES["source"]:
        if source.part.name == "omniglot_trials":
            continue  # all classes of this source have twenty images
        found = options_of(source.part.options)
        has_images = source.kind in ("images", "streams")
        assert ("skip_small_classes" in found) is has_images, source.part.name

"""Tests that an episode is a pure function of (seed, split, i), and keeps splits and sets apart."""

import numpy as np
import pytest
import tensorflow as tf
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_metalstm.data.episodes import EpisodeSampler, ImageEpisodes, episode_dataset
from tf_metalstm.data.preprocessing import Augmentation, Normalization
from tf_metalstm.data.sources.base import ClassImages
from tf_metalstm.episode import EpisodeSpec

PLAIN = Normalization((0.0,), (1.0,))


def numbered_classes(sizes=(6, 9, 5, 7, 8)):
    """Makes images whose pixel [0, 0] is the class and [0, 1] the position in the class."""
    images = [
        np.full((1, 2, 3, 1), 0, np.uint8) + np.array([[[c], [i], [0]]] * 2, np.uint8)
        for c, size in enumerate(sizes)
        for i in range(size)
    ]
    names = tuple(f"class_{c}" for c in range(len(sizes)))
    return ClassImages(np.concatenate(images), np.array(sizes, np.int64), names)


def sampler(split="train", seed=0, spec=None, classes=None, **options):
    return EpisodeSampler(
        classes or numbered_classes(), split, spec or EpisodeSpec(3, 2, 3), seed, **options
    )


def episodes(**options):
    return ImageEpisodes(sampler(**options), PLAIN)


def take(dataset):
    return [
        ({name: x.numpy() for name, x in inputs.items()}, labels.numpy())
        for inputs, labels in dataset
    ]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(_leaves(one), _leaves(other), strict=True))


def _leaves(episodes):
    return [x for inputs, labels in episodes for x in (*inputs.values(), labels)]


def test_support_and_queries_are_different_images_of_the_labelled_class():
    for inputs, labels in take(episode_dataset(episodes(), num_episodes=30)):
        support, queries = inputs["support_inputs"][0], inputs["query_inputs"][0]
        drawn = support[:3, 0, 0, 0]  # the first shot shows the class of each label
        assert len(set(drawn)) == 3
        np.testing.assert_array_equal(support[:, 0, 0, 0], drawn[inputs["support_labels"][0]])
        np.testing.assert_array_equal(queries[:, 0, 0, 0], drawn[labels[0]])
        shown = [tuple(image[0, :2, 0]) for image in (*support, *queries)]
        assert len(set(shown)) == len(shown)


def test_order_is_shot_by_shot():
    (inputs, labels), *_ = take(episode_dataset(episodes(), num_episodes=1))
    np.testing.assert_array_equal(inputs["support_labels"], [[0, 1, 2, 0, 1, 2]])
    np.testing.assert_array_equal(labels, [[0, 1, 2] * 3])


def test_an_episode_depends_on_seed_split_and_number_alone():
    straight = take(episode_dataset(episodes(), num_episodes=6))
    assert same(straight, take(episode_dataset(episodes(), num_episodes=6)))
    resumed = take(episode_dataset(episodes(), start=4, num_episodes=2))
    assert same(straight[4:], resumed)
    assert not same(straight, take(episode_dataset(episodes(seed=1), num_episodes=6)))
    other_split = take(episode_dataset(episodes(split="test"), num_episodes=6))
    assert not same(straight, other_split)


def test_episodes_of_a_step_are_the_next_ones():
    one_by_one = take(episode_dataset(episodes(), num_episodes=6))
    in_pairs = take(episode_dataset(episodes(), num_episodes=6, episodes_per_step=2))
    assert in_pairs[0][1].shape == (2, 9)
    joined = [
        (
            {name: np.concatenate([a[0][name], b[0][name]]) for name in a[0]},
            np.concatenate([a[1], b[1]]),
        )
        for a, b in zip(one_by_one[::2], one_by_one[1::2], strict=True)
    ]
    assert same(in_pairs, joined)


def test_every_image_and_class_is_drawn_about_equally_often():
    draw = tf.function(sampler().sample)
    counts = {}
    for index in range(1500):
        drawn, members = (x.numpy() for x in draw(tf.constant(index, tf.int64)))
        for c, row in zip(drawn, members, strict=True):
            assert len(set(row)) == 5
            for member in row:
                counts[c, member] = counts.get((c, member), 0) + 1
    sizes = numbered_classes().class_sizes
    assert set(counts) == {(c, i) for c, size in enumerate(sizes) for i in range(size)}
    for c, size in enumerate(sizes):
        expected = 1500 * (3 / 5) * 5 / size
        for i in range(size):
            assert abs(counts[c, i] - expected) < 5 * np.sqrt(expected)


def test_a_permutation_shows_every_class_before_any_twice():
    s = sampler(spec=EpisodeSpec(2, 1, 1), class_sampling="permutation", seed=4)
    draws = [s.sample(i)[0].numpy() for i in range(8)]
    for first, second in zip(draws[::2], draws[1::2], strict=True):
        assert len({*first, *second}) == 4
    assert len({tuple(np.concatenate(draws[i : i + 2])) for i in range(0, 8, 2)}) > 1


@settings(max_examples=15)
@given(st.integers(2, 5), st.integers(1, 3), st.integers(1, 2))
def test_any_size_that_the_data_allow(num_way, num_shot, num_query):
    spec = EpisodeSpec(num_way, num_shot, num_query)
    ((inputs, labels),) = take(episode_dataset(episodes(spec=spec), num_episodes=1))
    assert inputs["support_inputs"].shape == (1, num_way * num_shot, 2, 3, 1)
    assert inputs["query_inputs"].shape == (1, num_way * num_query, 2, 3, 1)
    assert set(labels[0]) == set(range(num_way))


def test_the_fingerprint_is_that_of_the_list():
    assert sampler().fingerprint(5) == sampler().fingerprint(5)
    different = {
        sampler().fingerprint(5),
        sampler().fingerprint(6),
        sampler(seed=1).fingerprint(5),
        sampler(split="test").fingerprint(5),
        sampler(spec=EpisodeSpec(3, 1, 4)).fingerprint(5),
        sampler(source_name="other").fingerprint(5),
    }
    assert len(different) == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: sampler(spec=EpisodeSpec(6, 1, 1), source_name="glyphs", split="test"),
            r"glyphs/test has 5 classes but num_way is 6: lower num_way or choose another",
        ),
        (
            lambda: sampler(spec=EpisodeSpec(2, 3, 3)),
            r"Class 'class_2' of source/train has 5 images but an episode needs 6 of each class "
            r"\(3 support \+ 3 queries\): lower num_shot or num_query",
        ),
        (lambda: sampler(split="val"), "one of train, validation, test, got 'val'"),
        (lambda: sampler(class_sampling="all"), "one of independent, permutation, got 'all'"),
        (lambda: EpisodeSpec(0, 1, 1), r"^num_way must be at least 1, got 0"),
        (lambda: sampler(spec=EpisodeSpec(1, 1, 1)), r"^num_way must be at least 2.* got 1"),
        (
            lambda: episode_dataset(episodes(), num_episodes=5, episodes_per_step=2),
            "5, must be a multiple of episodes_per_step, 2",
        ),
        (
            lambda: Augmentation(["flip", "zoom"]),
            "knows flip, crop, turn, color, affine, tilt, got zoom",
        ),
        (
            lambda: Augmentation(["turn"])(tf.zeros([3, 2, 4, 5, 1]), tf.constant([0, 1])),
            "square images, these are 4 x 5",
        ),
    ],
)
def test_refuses_what_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_normalization_is_mean_and_deviation_of_each_channel():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3)).astype(np.uint8)
    normalized = Normalization((10.0, 20.0, 30.0), (2.0, 4.0, 8.0))(tf.constant(pixels))
    assert normalized.dtype == tf.float32
    np.testing.assert_allclose(normalized[..., 2], (pixels[..., 2] - 30.0) / 8.0, rtol=1e-6)


@pytest.mark.parametrize("name", ["flip", "crop"])
def test_nothing_that_augmentation_does_tells_the_class(name):
    image = np.arange(9 * 8, dtype=np.uint8).reshape(9, 8, 1)  # shifts by one: nine windows
    pixels = tf.constant(np.broadcast_to(image, (5, 200, 9, 8, 1)))
    changed = Augmentation([name])(pixels, tf.constant([1, 2], tf.int64)).numpy()
    ways = [{image.tobytes() for image in of_class} for of_class in changed]
    assert len(ways[0]) > 1
    assert all(of_class == ways[0] for of_class in ways)


def test_turned_are_all_images_of_a_class_alike():
    rows, columns = np.mgrid[:12, :12]
    image = (rows * 12 + columns).astype(np.uint8)[..., np.newaxis]
    pixels = tf.constant(np.broadcast_to(image, (8, 5, 12, 12, 1)))
    changed = Augmentation(["turn"])(pixels, tf.constant([1, 2], tf.int64)).numpy()
    assert changed.shape == pixels.shape
    assert changed.dtype == np.uint8
    for of_class in changed:
        assert all(np.array_equal(of_class[0], other) for other in of_class)
    assert len({of_class[0].tobytes() for of_class in changed}) == 4


def test_flip_mirrors_left_to_right_some_images():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    pixels = tf.constant(np.broadcast_to(image, (40, 1, 2, 3, 1)))
    flipped = Augmentation(["flip"])(pixels, tf.constant([3, 4], tf.int64)).numpy()[:, 0]
    mirrored = [np.array_equal(x, image[:, ::-1]) for x in flipped]
    straight = [np.array_equal(x, image) for x in flipped]
    assert all(a != b for a, b in zip(mirrored, straight, strict=True))
    assert 8 < sum(mirrored) < 32


def test_crop_is_a_window_on_the_extended_image_mirrored_or_not():
    height, width = 12, 20  # the largest shifts are 1 and 2
    image = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    pixels = tf.constant(np.broadcast_to(image[..., np.newaxis], (40, 1, height, width, 1)))
    for names, ways in ((["crop"], [image]), (["flip", "crop"], [image, image[:, ::-1]])):
        cropped = Augmentation(names)(pixels, tf.constant([5, 6], tf.int64)).numpy()[:, 0, :, :, 0]
        windows = {
            np.pad(way, [(1, 1), (2, 2)], mode="reflect")[y:, x:][:height, :width].tobytes(): (
                i,
                y,
                x,
            )
            for i, way in enumerate(ways)
            for y in range(3)
            for x in range(5)
        }
        corners = {windows[crop.tobytes()] for crop in cropped}  # a KeyError: no such window
        for part, of in zip(zip(*corners, strict=True), (len(ways), 3, 5), strict=True):
            assert set(part) == set(range(of))


def test_turn_makes_all_four_quarter_turns():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    pixels = tf.constant(np.broadcast_to(image[..., np.newaxis], (40, 2, 4, 4, 1)))
    turned = Augmentation(["turn"])(pixels, tf.constant([7, 8], tf.int64)).numpy()[..., 0]
    turns = {np.rot90(image, k).tobytes(): k for k in range(4)}
    times = [turns[of_class[0].tobytes()] for of_class in turned]  # a KeyError: no rotation
    assert min(np.bincount(times, minlength=4)) >= 4


def test_augmentation_is_part_of_the_pure_function():
    classes = toy.glyph_like_classes()
    streams = [
        take(
            episode_dataset(
                ImageEpisodes(
                    sampler(classes=classes, spec=EpisodeSpec(5, 1, 1)),
                    PLAIN,
                    Augmentation(["flip", "crop"]),
                ),
                start=start,
                num_episodes=2,
            )
        )
        for start in (0, 0, 1)
    ]
    assert same(streams[0], streams[1])
    assert same(streams[0][1:], streams[2][:1])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"class_sampling": "independent"}, "7f3b67c94b71f797"),
        ({"class_sampling": "permutation"}, "2e78e65b4f71f475"),
    ],
    ids=lambda value: value["class_sampling"] if isinstance(value, dict) else "",
)
def test_the_lists_are_those_that_all_results_were_measured_on(options, expected):
    """The lists of episodes stay fixed, because all recorded results were measured on them."""
    found = sampler(classes=numbered_classes((6,) * 8), **options).fingerprint(20)
    assert found == expected

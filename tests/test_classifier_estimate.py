"""Tests FewShotClassifier's estimate, "none of these", and the cache of features."""

import warnings

import numpy as np
import pytest
from PIL import Image

from tf_metalstm import classifier as classifier_of
from tf_metalstm.classifier import FewShotClassifier
from tf_metalstm.loaded_model import LoadedModel
from tf_metalstm.serving import given_images
from tf_metalstm.serving.cache import Cache
from tf_metalstm.serving.estimate import softmax

pytestmark = pytest.mark.filterwarnings("ignore::tf_metalstm.classifier.ImagesWarning")

SHAPE = (8, 8, 1)


class Value:
    """A tensor that the classifier can read with `numpy()`."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def numpy(self):
        return self.values


class Prototypes:
    """The signatures of prototypical networks on pixels, in NumPy. It counts embedded images."""

    def __init__(self):
        self.embedded = 0

    def features(self, images):
        self.embedded += len(images)
        return {"features": Value(np.reshape(images, [len(images), -1]) / 255.0)}

    def adapt_features(self, support_features, support_labels, num_steps=None):
        del num_steps  # means are not updated
        labels = np.asarray(support_labels)
        means = [support_features[labels == k].mean(axis=0) for k in range(labels.max() + 1)]
        return {"means": Value(means)}

    def predict_features(self, query_features, means):
        differences = query_features[:, np.newaxis] - np.asarray(means)
        return {"logits": Value(-np.sum(differences**2, axis=-1))}

    def signatures(self):
        names = ("features", "adapt_features", "predict_features")
        return {name: getattr(self, name) for name in names}


class ByUpdates:
    """The same with `adapt` and `predict`, as for a method without features."""

    def __init__(self):
        self.adapted = 0
        self.inside = Prototypes()

    def adapt(self, support_images, support_labels, num_steps):
        self.adapted += 1
        features = self.inside.features(support_images)["features"].numpy()
        return self.inside.adapt_features(features, support_labels)

    def predict(self, query_images, means):
        features = self.inside.features(query_images)["features"].numpy()
        logits = self.inside.predict_features(features, means)["logits"].numpy()
        return {"probabilities": Value(np.pad(softmax(logits), [[0, 0], [0, 2]]))}

    def signatures(self):
        return {"adapt": self.adapt, "predict": self.predict}


@pytest.fixture(params=[Prototypes, ByUpdates])
def backend(request, monkeypatch):
    made = request.param()
    steps = 3 if request.param is ByUpdates else None
    loaded = LoadedModel(made.signatures(), SHAPE, None, steps, ("means",), None, Cache())
    monkeypatch.setattr(classifier_of, "load_model", lambda folder: loaded)
    return made


def images(classes, number, seed=0, noise=40):
    """Returns images of classes. Each class is a bright block at its own place."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, noise, [len(classes), number, *SHAPE])
    for place, one in enumerate(classes):
        row, column = divmod(one, 4)
        pixels[place, :, 4 * row : 4 * row + 4, 2 * column : 2 * column + 2] += 200
    return pixels.reshape(-1, *SHAPE).astype(np.uint8)


NAMES = np.array(["ant", "bee", "cat"])


def fitted(number=8, **options):
    labels = NAMES.repeat(number)
    return FewShotClassifier("model", **options).fit(images(range(3), number), labels)


def test_it_says_how_good_it_will_be(backend):
    classifier = fitted()
    found = classifier.estimate()
    assert found.number == 24
    assert found.accuracy == 1.0
    assert 0.8 < found.low < found.high == 1.0
    assert classifier.estimate() is found
    [said] = classifier.estimate_in_words()
    assert said.startswith("About 100% of the answers will be right (95 % interval 82% to 100%")
    if isinstance(backend, ByUpdates):
        assert backend.adapted == 1 + 5


def test_a_picture_in_the_wrong_class_is_named(backend):
    labels = NAMES.repeat(8)
    labels[3] = "cat"
    classifier = FewShotClassifier("model").fit(images(range(3), 8), labels)
    assert classifier.estimate_in_words()[1:] == [
        "Perhaps in the wrong class: image 3 (cat) looks like ant."
    ]


def test_images_of_no_class_have_no_label(backend):
    known, foreign = images(range(3), 40, seed=1), images([5, 6], 20, seed=2)
    classifier = fitted()
    assert None not in classifier.predict(foreign)
    few = classifier.predict(known, none_of_these=0.05)
    many = classifier.predict(known, none_of_these=0.5)
    assert np.mean(np.equal(few, None)) < 0.2 < np.mean(np.equal(many, None))
    taken = ~np.equal(few, None)
    np.testing.assert_array_equal(few[taken], NAMES.repeat(40)[taken])
    if isinstance(backend, Prototypes):
        assert np.mean(np.equal(classifier.predict(foreign, none_of_these=0.05), None)) > 0.95
    with pytest.raises(ValueError, match=r"between 0 and 1, got 5\.0"):
        classifier.predict(known, none_of_these=5.0)


def test_calibrated_probabilities_are_those_at_the_temperature(backend):
    plain, calibrated = fitted(), fitted(calibrated=True)
    queries = images(range(3), 2, seed=3)
    temperature = calibrated.estimate().temperature
    expected = softmax(np.log(plain.predict_proba(queries)) / temperature)
    np.testing.assert_allclose(calibrated.predict_proba(queries), expected, atol=1e-6)
    np.testing.assert_array_equal(calibrated.predict(queries), plain.predict(queries))


def test_without_a_second_picture_nothing_is_estimated_and_nothing_foreign(backend):
    classifier = FewShotClassifier("model", calibrated=True).fit(images(range(3), 1), NAMES)
    assert not classifier.estimate().is_known
    assert "cannot be estimated" in classifier.estimate_in_words()[0]
    assert None not in classifier.predict(images([6], 4, seed=2), none_of_these=0.05)


@pytest.mark.parametrize("backend", [Prototypes], indirect=True)
def test_only_new_images_are_embedded(backend, tmp_path, monkeypatch):
    paths = [tmp_path / f"{k}.png" for k in range(7)]
    for path, image in zip(paths, images(range(7), 1), strict=True):
        Image.fromarray(image[..., 0]).save(path)
    decoded = []
    monkeypatch.setattr(given_images, "decode", _counting(given_images.decode, decoded))
    classifier = FewShotClassifier("model").fit(paths[:5], list("ababa"))
    assert (backend.embedded, len(decoded)) == (5, 5)
    first = classifier.predict_proba(paths)
    assert (backend.embedded, len(decoded)) == (7, 7)
    classifier.fit(paths[:6], list("ababab")).predict(paths)
    assert (backend.embedded, len(decoded)) == (7, 7)
    assert np.abs(classifier.predict_proba(paths) - first).max() > 1e-3
    # Another picture under the same name must be embedded again.
    Image.fromarray(images([7], 1, seed=8)[0, ..., 0]).resize((9, 9)).save(paths[6])
    classifier.predict(paths)
    assert (backend.embedded, len(decoded)) == (8, 8)


def _counting(function, calls):
    def counted(*arguments, **named):
        calls.append(arguments)
        return function(*arguments, **named)

    return counted


def test_the_oldest_make_room():
    kept = Cache(limit=3000)  # two features of 1,000 bytes, and the overhead of entries

    def make(unknown):
        made.append(len(unknown))
        return [np.full([125], one.mean()) for one in unknown]

    made = []
    rows = np.arange(3)[:, np.newaxis] * np.ones([1, 4])
    for wanted in ([0, 1], [0, 1], [0, 2], [0], [1]):
        values = kept.of(rows[wanted], make)
        assert [value[0] for value in values] == wanted
    assert made == [2, 1, 1]
    # An image that comes twice is embedded once. Other types of the same numbers are other images.
    assert len(kept.of(rows[[2, 2]], make)) == 2
    assert len(kept.of(rows[:1].astype(np.float32), make)) == 1


def test_labels_stay_of_their_type_where_every_image_has_one(backend):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier = FewShotClassifier("model").fit(images(range(2), 2), [3, 3, 7, 7])
    assert classifier.predict(images([0], 2)).dtype == np.int64


@pytest.mark.parametrize(("num_steps", "rounds"), [(None, 18), (3, 5)])
def test_updates_of_features_are_repeated_in_five_rounds_at_most(num_steps, rounds, monkeypatch):
    backend, asked = Prototypes(), []
    signatures = backend.signatures()
    signatures["adapt_features"] = _counting(backend.adapt_features, asked)
    model = LoadedModel(signatures, SHAPE, None, num_steps, ("means",), None, Cache())
    monkeypatch.setattr(classifier_of, "load_model", lambda folder: model)
    fitted(6).estimate()
    assert len(asked) == 1 + rounds

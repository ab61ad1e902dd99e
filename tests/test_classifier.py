"""FewShotClassifier behaves as scikit-learn expects, and answers as the exported model does."""

import io
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import toy
from fresh_run import fresh_run
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils import estimator_checks

from tf_metalstm import experiment
from tf_metalstm.argv import FOUND_FLAGS
from tf_metalstm.classifier import FewShotClassifier
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.flags import read_settings
from tf_metalstm.loaded_model import load_model
from tf_metalstm.serving.served import ServedMethod

# Most tests use the images that the classifier has adapted to.
pytestmark = pytest.mark.filterwarnings("ignore::tf_metalstm.classifier.ImagesWarning")

SHAPE = (16, 16, 1)
NAMES = np.array(["dog", "cat", "ant"])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    toy.seed(3)
    method = toy.image_method(num_steps=2, num_way=4)
    for weight in method.rule.weights:  # an untrained rule hardly moves theta
        if weight.name == "input_bias":
            weight.assign(-1.4)
    directory = tmp_path_factory.mktemp("run") / "saved_model"
    toy.save(ServedMethod(method, Normalization((120.0,), (70.0,)), SHAPE, 4), directory)
    return directory


def pixels(number, seed=0):
    return np.random.default_rng(seed).integers(0, 256, [number, *SHAPE]).astype(np.uint8)


def labels(number):
    return NAMES[np.arange(number) % 3]


def test_answers_are_those_of_the_exported_model(model):
    images, queries = pixels(6), pixels(5, seed=1)
    classifier = FewShotClassifier.load(model).fit(images, labels(6))
    np.testing.assert_array_equal(classifier.classes_, ["ant", "cat", "dog"])
    expected = tf.saved_model.load(
        str(model)
    ).signatures[
        "classify"
    ](
        support_images=tf.constant(images, tf.float32),
        support_labels=tf.constant([2, 1, 0] * 2),  # numbers of the names in classes_
        query_images=tf.constant(queries, tf.float32),
        num_steps=tf.constant(2),
    )["probabilities"][:, :3]
    np.testing.assert_allclose(classifier.predict_proba(queries), expected, atol=1e-6)
    best = classifier.classes_[np.argmax(expected, axis=1)]
    np.testing.assert_array_equal(classifier.predict(queries), best)
    assert classifier.score(queries, best) == 1.0
    assert classifier.support_losses_.shape == (2,)
    assert classifier.trace_.keys() == {"input_gates", "forget_gates"}
    assert classifier.trace_["input_gates"].shape == classifier.trace_["forget_gates"].shape
    assert classifier.trace_["input_gates"].shape[0] == 2


def test_files_are_images_too(model, tmp_path):
    images = pixels(6)
    paths = [tmp_path / f"{k}.png" for k in range(6)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    by_pixels = FewShotClassifier(model).fit(images[..., 0], labels(6))
    by_files = FewShotClassifier(str(model)).fit(paths, list(labels(6)))
    contents = [path.read_bytes() for path in paths]
    np.testing.assert_allclose(
        by_files.predict_proba(contents), by_pixels.predict_proba(images), atol=1e-6
    )


def test_pictures_of_any_size_are_images_too(model):
    """Pictures of Pillow, arrays and a column of paths give the same results as files."""
    generator = np.random.default_rng(5)
    arrays = [generator.integers(0, 256, [9 + k, 20, 3]).astype(np.uint8) for k in range(4)]
    pictures = [Image.fromarray(array) for array in arrays]
    files = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, format="PNG")
        files.append(file.getvalue())
    expected = FewShotClassifier(model).fit(files, list("abab")).predict_proba(files)
    for given in (pictures, arrays, np.array(files, object)):
        found = FewShotClassifier(model).fit(given, list("abab")).predict_proba(given)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_one_image_is_no_list(model, tmp_path):
    classifier = FewShotClassifier(model).fit(pixels(4), list("abab"))
    for one in ("photo.png", tmp_path / "photo.png", b"bytes", Image.new("L", (16, 16))):
        with pytest.raises(ValueError, match="a list of images, got a single one"):
            classifier.predict(one)
    with pytest.raises(FileNotFoundError, match=r"photo\.png"):
        classifier.predict(["photo.png"])
    with pytest.raises(ValueError, match="image 1 of the list is neither a file"):
        classifier.predict([Image.new("L", (16, 16)), 7])


def test_updates_can_be_chosen(model):
    images = pixels(6)
    none, two, trained = (
        FewShotClassifier.load(model, num_steps=steps).fit(images, labels(6)).predict_proba(images)
        for steps in (0, 2, None)
    )
    np.testing.assert_array_equal(two, trained)
    assert np.abs(none - two).max() > 1e-3


def test_any_labels(model):
    classifier = FewShotClassifier(model).fit(pixels(4), [7, -1, 7, -1])
    assert set(classifier.predict(pixels(9, seed=1))) <= {-1, 7}
    assert classifier.predict_proba(pixels(2)).shape == (2, 2)


def test_with_the_tools_of_scikit_learn(model):
    classifier = FewShotClassifier(model, num_steps=1)
    assert clone(classifier).get_params() == {
        "model": model,
        "num_steps": 1,
        "skip_corrupt": False,
        "calibrated": False,
    }
    images = np.tile(pixels(3), [4, 1, 1, 1])  # the same three pictures four times
    scores = cross_val_score(FewShotClassifier(model, num_steps=5), images, labels(12), cv=2)
    assert scores.shape == (2,)


# Tests of scikit-learn that need no data. The others fit tables with any number of columns.
@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types,
        estimator_checks.check_mixin_order,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
    ],
)
def test_checks_of_scikit_learn(model, check):
    check("FewShotClassifier", FewShotClassifier(str(model)))


@pytest.mark.parametrize(
    ("images", "given", "message"),
    [
        (pixels(2), ["a", "b", "c"], "There are 2 images but 3 labels"),
        (pixels(5), list("abcde"), "y has 5 classes, but the model tells at most 4 classes apart"),
        (pixels(2).reshape(2, -1), ["a", "b"], r"Expected numbers \[B, 16, 16, 1\].*got uint8"),
        (pixels(2) / 255.0, ["a", "b"], "Pixels go from 0 to 255, these from .* to 1"),
        (pixels(2) * np.nan, ["a", "b"], "Pixels go from 0 to 255, these from nan"),
        (pixels(0), [], "There are no images"),
        (pixels(2), [0.5, 1.5], "Unknown label type: continuous"),
    ],
)
def test_what_it_cannot_take(model, images, given, message):
    with pytest.raises(ValueError, match=message):
        FewShotClassifier(model).fit(images, given)


def test_wrong_settings(model, tmp_path):
    with pytest.raises(NotFittedError):
        FewShotClassifier(model).predict(pixels(1))
    for steps in (-1, 1001, 2.5):
        message = f"^num_steps must be a whole number from 0 to 1000, got {steps}.$"
        with pytest.raises(ValueError, match=message):
            FewShotClassifier(model, num_steps=steps).fit(pixels(2), ["a", "b"])
    with pytest.raises(FileNotFoundError, match=r"neither a model .* nor a run"):
        FewShotClassifier.load(tmp_path)


def test_what_fails_leaves_an_earlier_fit(model):
    classifier = FewShotClassifier(model).fit(pixels(6), labels(6))
    expected = classifier.predict_proba(pixels(4, seed=1))
    with pytest.raises(ValueError, match="y has 6 classes"):
        classifier.fit(pixels(6), list("pqrstu"))
    with pytest.raises(ValueError, match="image 0 of the list is not a readable image"):
        classifier.fit([b"%PDF", b"%PDF"], ["p", "q"])
    np.testing.assert_array_equal(classifier.predict_proba(pixels(4, seed=1)), expected)
    np.testing.assert_array_equal(classifier.classes_, sorted(NAMES))


def test_a_fitted_one_travels_without_its_model(model):
    classifier = FewShotClassifier(model).fit(pixels(6), labels(6))
    copy = copy_by_state(classifier)
    assert copy._model is None
    np.testing.assert_array_equal(copy.predict(pixels(4)), classifier.predict(pixels(4)))


def test_a_fitted_one_refuses_other_weights_of_its_model(model, tmp_path, monkeypatch):
    folder = shutil.copytree(model, tmp_path / "model")
    classifier = FewShotClassifier(folder).fit(pixels(6), labels(6))
    copy = copy_by_state(classifier)
    monkeypatch.setattr("tf_metalstm.loaded_model.exported_fingerprint", lambda folder: "others")
    (folder / "manifest.json").touch()  # exported again
    with pytest.raises(ValueError, match="has other weights now than when this classifier was fit"):
        copy.predict(pixels(4))


def copy_by_state(classifier):
    """Copies by `__getstate__`, as pickle does."""
    copy = FewShotClassifier.__new__(FewShotClassifier)
    copy.__setstate__(classifier.__getstate__())
    return copy


def test_a_model_that_was_exported_again_is_read_again(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    assert FewShotClassifier(folder, num_steps=0).fit(pixels(6), labels(6))
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format_version": 1}))
    with pytest.raises(ValueError, match="has format version 1, not 2: export the run again"):
        FewShotClassifier.load(folder)


def test_order_does_not_matter(model):
    images, names = pixels(6), np.sort(labels(6))
    order = np.array([3, 0, 2, 5, 1, 4])  # within a class the order stays the same
    order = np.concatenate([np.sort(order[names[order] == name]) for name in NAMES])
    one, other = (
        FewShotClassifier(model).fit(images[rows], names[rows]).predict_proba(images)
        for rows in (np.arange(6), order)
    )
    np.testing.assert_array_equal(one, other)


def test_a_run_is_asked_as_the_search_found_best(tmp_path):
    said = {"rule": "sgd", "learner": "mlp", "num_steps": 1}
    run, _ = fresh_run(toy.settings(tmp_path, **said))
    images, queries = pixels(6), pixels(4, seed=1)

    def asked(num_steps=None):
        classifier = FewShotClassifier.load(tmp_path, num_steps).fit(images, labels(6))
        return classifier, classifier.predict_proba(queries)

    plain, before = asked()
    assert len(plain.support_losses_) == 1
    found = tmp_path / FOUND_FLAGS
    found.write_text("--num_evaluation_steps=4\n--inner_rate=0.5\n")
    searched, probabilities = asked()  # read again: the file is new
    assert load_model(tmp_path).num_steps == len(searched.support_losses_) == 4
    assert np.abs(probabilities - before).max() > 1e-3
    served = experiment.serve(
        experiment.load_run(
            read_settings(run.run_dir, "--num_evaluation_steps=4", "--inner_rate=0.5")
        )
    )
    adapted, _ = served.adapt(
        tf.constant(images, tf.float32),
        tf.constant([2, 1, 0] * 2),  # their places in classes_
    )
    expected = served.answers(adapted, tf.constant(queries, tf.float32))
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert len(asked(num_steps=2)[0].support_losses_) == 2
    found.unlink()
    np.testing.assert_array_equal(asked()[1], before)


def test_a_model_of_any_number_of_classes(tmp_path):
    run, _ = fresh_run(toy.settings(tmp_path, method="pixel_nearest_neighbor"))
    for number in (2, 9):
        names = np.array([f"class {i:02d}" for i in range(number)])
        classifier = FewShotClassifier.load(run.run_dir).fit(pixels(number), names)
        np.testing.assert_array_equal(classifier.predict(pixels(number)), names)
        assert classifier.predict_proba(pixels(4, seed=1)).shape == (4, number)
        assert not hasattr(classifier, "trace_")

"""One model and one episode give the same probabilities in every client."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tensorflow as tf
from export_client import FOLDER, client, folders, images
from golden import EPISODE, MODEL, expected

from tf_metalstm.classifier import FewShotClassifier

TOLERANCE = 1e-5
# LiteRT has its own kernels, with other rounding; the measured difference is 2e-6.
LITE_TOLERANCE = 1e-4

sys.path.insert(0, str(FOLDER))
import to_lite  # noqa: E402

sys.path.remove(str(FOLDER))


def query_paths():
    return sorted((EPISODE / "query").glob("*/*.png"))


def support():
    """Returns images [25, 28, 28, 1], the names of their classes, and the files."""
    classes = folders.class_files(EPISODE / "support")
    shape = json.loads((MODEL / "manifest.json").read_text())["image_shape"]
    pixels, names, paths = images.read_support(classes, shape)
    queries = np.stack([images.read_image(path, shape) for path in query_paths()])
    return pixels, names, paths, queries


def check(classes, probabilities, tolerance=TOLERANCE):
    names, rows = expected()
    assert list(classes) == names
    wanted = [rows[path.relative_to(EPISODE / "query").as_posix()] for path in query_paths()]
    np.testing.assert_allclose(probabilities, wanted, atol=tolerance)


def test_the_classifier_in_python():
    pixels, names, paths, queries = support()
    by_pixels = FewShotClassifier.load(MODEL).fit(pixels, names)
    check(by_pixels.classes_, by_pixels.predict_proba(queries))
    by_files = FewShotClassifier.load(MODEL).fit(paths, names)
    check(by_files.classes_, by_files.predict_proba(query_paths()))


def test_the_python_client(tmp_path):
    out = tmp_path / "out.json"
    arguments = ["--model", MODEL, "--support", EPISODE / "support", "--query", EPISODE / "query"]
    assert client.main([str(argument) for argument in (*arguments, "--json", out)]) == 0
    found = json.loads(out.read_text())
    assert found["accuracy"] > 0.8
    check(found["classes"], [list(image["probabilities"].values()) for image in found["images"]])


def test_a_client_that_nobody_here_wrote(tmp_path):
    """Runs `saved_model_cli run` of TensorFlow without num_steps."""
    pixels, names, _, queries = support()
    numbers = np.array([sorted(set(names)).index(name) for name in names], np.int32)
    np.savez(tmp_path / "in.npz", images=pixels, labels=numbers, queries=queries)
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run"]
    command += ["--dir", str(MODEL), "--tag_set", "serve", "--signature_def", "classify"]
    npz = tmp_path / "in.npz"
    command += [
        "--inputs",
        f"support_images={npz}[images];support_labels={npz}[labels];query_images={npz}[queries]",
        "--outdir",
        str(tmp_path),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    check(sorted(set(names)), np.load(tmp_path / "probabilities.npy"))


def lite(signature):
    """Converts to LiteRT's own operations alone, and runs them in TensorFlow's interpreter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning that it moves to another package
        return tf.lite.Interpreter(model_content=to_lite.convert(MODEL, signature))


@pytest.mark.slow
def test_predict_in_lite():
    pixels, names, _, queries = support()
    numbers = np.array([sorted(set(names)).index(name) for name in names], np.int32)
    model = tf.saved_model.load(str(MODEL))
    adapted = model.adapt(tf.constant(pixels), tf.constant(numbers), tf.constant(5))
    state = {name: adapted[name].numpy() for name in ("parameters", "statistics", "class_mask")}
    runner = lite("predict").get_signature_runner("predict")
    answer = runner(query_images=queries, **state)["probabilities"]
    check(sorted(set(names)), answer, LITE_TOLERANCE)


@pytest.mark.slow
def test_classify_in_lite_needs_more_than_comes_with_it():
    """The conversion works, but the interpreter of the wheel lacks the Flex library to run it."""
    pixels, names, _, queries = support()
    numbers = np.array([sorted(set(names)).index(name) for name in names], np.int32)
    runner = lite("classify").get_signature_runner("classify")
    with pytest.raises(RuntimeError, match="Flex"):
        runner(
            support_images=pixels,
            support_labels=numbers,
            query_images=queries,
            num_steps=np.int32(5),
        )

"""Settings for every test: TensorFlow without logs, two logical CPUs, two threads, fixed seeds."""

import os

# TensorFlow reads these when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # the package sets it too

import hypothesis
import keras
import pytest
import tensorflow as tf
import toy
import toy_table

from tf_metalstm import catalogue

# This is only possible before TensorFlow starts its devices, so it cannot be a fixture.
# Two logical CPUs let MirroredStrategy be tested on any machine.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
tf.config.threading.set_intra_op_parallelism_threads(2)
tf.config.threading.set_inter_op_parallelism_threads(2)
# Most graphs of the tests run once or twice. Optimizing them took a fifth of the suite's time.
# The demo, the wheel and the commands of tests/command.py run with optimized graphs.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

# The first call traces a graph, so there is no deadline. The examples are fixed, so that the
# same commit always gives the same result.
hypothesis.settings.register_profile("tf_metalstm", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tf_metalstm")


# This is called only once, because it makes TensorFlow forget all compiled functions.
tf.random.set_seed(0)


@pytest.fixture(autouse=True)
def _fixed_seeds_and_precision():
    toy.seed(0)
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


catalogue.add_part(toy.ToySource)
catalogue.add_part(toy.ToyStream)


@pytest.fixture
def unchecked(monkeypatch):
    """Exports are written without reading them back, which takes most of the time."""
    monkeypatch.setattr("tf_metalstm.serving.saved_model.check_reload", lambda *arguments: None)


@pytest.fixture
def untraced(unchecked, monkeypatch):
    """Exports are also written without signatures, whose tracing takes seconds."""
    target = "tf_metalstm.serving.saved_model.build_signatures"
    monkeypatch.setattr(target, lambda served: (tf.Module(), {}))


@pytest.fixture
def calls(monkeypatch):
    """Records the commands that `reproduce` calls for its toy table."""
    called = []

    def call(command, flags):
        called.append((command, toy_table.stand_in(command, flags), flags))

    cells = [toy_table.PLAIN, toy_table.TUNED]
    monkeypatch.setattr("tf_metalstm.reproduce._call", call)
    monkeypatch.setattr("tf_metalstm.reproduce.TABLES", {"mini_imagenet": lambda: cells})
    monkeypatch.chdir(toy_table.ROOT)
    return called


@pytest.fixture
def clone(calls, tmp_path, monkeypatch):
    """An empty folder that looks like a clone. Records are written below it."""
    folder = tmp_path / "clone"
    (folder / "flags" / "recipes").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder

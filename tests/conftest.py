"""What every test finds: a quiet TensorFlow with two logical CPUs, two threads and fixed seeds."""

import os

# Read by TensorFlow when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the package has it

import hypothesis
import keras
import pytest
import tensorflow as tf
import toy
import toy_table

from tf_metalstm import catalogue

# Only possible before TensorFlow starts its devices, hence here and not in a fixture.
# Two logical CPUs let MirroredStrategy be tested on any machine.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
tf.config.threading.set_intra_op_parallelism_threads(2)
tf.config.threading.set_inter_op_parallelism_threads(2)
# Most graphs of the tests run once or twice. To optimize them takes a fifth of the suite's time.
# What is delivered runs optimized: the demo, the wheel and the commands of tests/command.py.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

# The first call of an example traces a graph, which takes longer than any deadline; and the same
# commit gives the same verdict twice.
hypothesis.settings.register_profile("tf_metalstm", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tf_metalstm")


# Once: it makes TensorFlow forget the kernels of all functions that it has compiled.
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
    """An export is written and not read back, which takes most of its time."""
    monkeypatch.setattr("tf_metalstm.serving.saved_model.check_reload", lambda *arguments: None)


@pytest.fixture
def calls(monkeypatch):
    """The commands that `reproduce` called for its toy table."""
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
    """An empty folder that looks like a clone: records are written below it."""
    folder = tmp_path / "clone"
    (folder / "flags" / "recipes").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder

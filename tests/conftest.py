"""Settings for every test: TensorFlow without logs, two logical CPUs, two threads, fixed seeds."""

import gc
import os

import pytest
from made_once import made_once

# TensorFlow reads these when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # the package sets it too


gc.disable()  # during imports and collection, where it took a quarter of the time


def pytest_configure(config):
    """Prepares the process that runs tests. With `-n 2` this one runs none, and its workers do.

    It needs no TensorFlow then, whose import takes seconds. So fixtures import what they need.
    """
    if config.getoption("dist", "no") == "no":
        import process

        process.prepare()


def pytest_collection_finish():
    """Turns garbage collection on, without the imported modules.

    They took a tenth of the time of some files. Old objects are looked at less often than by
    default, because tests make many graphs, which live long.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(700, 10, 60)


@pytest.fixture(autouse=True)
def _fixed_seeds_and_precision():
    import keras
    import toy

    toy.seed(0)
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope="session")
def prototypes(tmp_path_factory):
    """The folder of an exported model that compares features, of images of 8 x 8 pixels."""
    import toy

    return made_once(tmp_path_factory, "prototypes", toy.export_prototypes)


@pytest.fixture
def unchecked(monkeypatch):
    """Exports are written without reading them back, which takes most of the time."""
    monkeypatch.setattr("tf_metalstm.serving.saved_model.check_reload", lambda *arguments: None)


@pytest.fixture
def untraced(unchecked, monkeypatch):
    """Exports are also written without signatures, whose tracing takes seconds."""
    import tensorflow as tf

    target = "tf_metalstm.serving.saved_model.build_signatures"
    monkeypatch.setattr(target, lambda served: (tf.Module(), {}))


@pytest.fixture
def undrawn(monkeypatch):
    """Trainings draw no figures for TensorBoard, which take a third of a short one."""
    monkeypatch.setattr("tf_metalstm.train._summaries", lambda *arguments: None)


@pytest.fixture
def calls(monkeypatch):
    """Records the commands that `reproduce` calls for its toy table."""
    import toy_table

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

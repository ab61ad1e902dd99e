"""Fixtures for the tests of sources: glyphs that are prepared once, and no progress bars."""

import os

import filelock
import pytest
import tensorflow_datasets as tfds

from tf_metalstm.data.sources.glyphs import Glyphs
from tf_metalstm.data.sources.prepared import CACHE_VARIABLE


@pytest.fixture(scope="session", autouse=True)
def _no_progress_bars():
    tfds.disable_progress_bar()


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path, monkeypatch):
    """Puts prepared data into a temporary folder instead of the user's cache."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "default_cache"))


@pytest.fixture(scope="session")
def glyphs(tmp_path_factory):
    """The glyphs, prepared once for all processes of this test run."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    source = Glyphs(folder / "prepared_glyphs")
    with filelock.FileLock(folder / "prepared_glyphs.lock"):
        source.prepare()
    return source

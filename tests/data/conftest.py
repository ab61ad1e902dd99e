"""Fixtures for the tests of sources: a few glyphs, prepared once, and no progress bars."""

from unittest import mock

import pytest
import tensorflow_datasets as tfds
from made_once import made_once

from tf_metalstm.data.sources.glyph_shapes import SCRIPTS
from tf_metalstm.data.sources.glyphs import Glyphs
from tf_metalstm.data.sources.prepared import CACHE_VARIABLE


@pytest.fixture(scope="session", autouse=True)
def _no_progress_bars():
    tfds.disable_progress_bar()


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path, monkeypatch):
    """Puts prepared data into a temporary folder instead of the user's cache."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "default_cache"))


FEW_SCRIPTS = ("LAO", "OGHAM", "COPTIC", "NKO", "GREEK")


@pytest.fixture(scope="session")
def glyphs(tmp_path_factory):
    """The glyphs of a few scripts, a seventh of all."""
    few = {script: SCRIPTS[script] for script in FEW_SCRIPTS}
    with mock.patch.dict(SCRIPTS, few, clear=True):
        folder = made_once(tmp_path_factory, "glyphs", lambda folder: Glyphs(folder).prepare())
        source = Glyphs(folder)
        source.prepare()
    return source

"""What the tests of the sources share: the glyphs, prepared once, and no progress bars."""

import pytest
import tensorflow_datasets as tfds

from tf_metalstm.data.sources.glyphs import Glyphs
from tf_metalstm.data.sources.prepared import CACHE_VARIABLE


@pytest.fixture(scope="session", autouse=True)
def _no_progress_bars():
    tfds.disable_progress_bar()


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path, monkeypatch):
    """What a test does not place anywhere goes to no user's cache."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "default_cache"))


@pytest.fixture(scope="session")
def glyphs(tmp_path_factory):
    source = Glyphs(tmp_path_factory.mktemp("prepared_glyphs"))
    source.prepare()
    return source

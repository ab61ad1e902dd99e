"""What the tests of the sources share: the glyphs, prepared once, and no progress bars."""

import pytest
import tensorflow_datasets as tfds

from tf_metalstm.data.sources.glyphs import Glyphs


@pytest.fixture(scope="session", autouse=True)
def _no_progress_bars():
    tfds.disable_progress_bar()


@pytest.fixture(scope="session")
def glyphs(tmp_path_factory):
    source = Glyphs(tmp_path_factory.mktemp("prepared_glyphs"))
    source.prepare()
    return source

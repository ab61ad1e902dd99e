"""Half a minute of damaged files; `python tests/fuzz_pictures.py --seconds 3600` takes an hour."""

import fuzz_pictures
import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", fuzz_pictures.KINDS)
def test_nothing_is_found(kind, tmp_path):
    counts, most, finds = fuzz_pictures.fuzz(kind, 30, 0, tmp_path)
    assert finds == []
    assert min(counts.values()) > 50
    assert most < fuzz_pictures.LARGEST

"""Fuzzes each kind for half a minute. `make test-fuzz` does it for hours."""

import subprocess
import sys
from pathlib import Path

import fuzz_pictures
import pytest

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent


@pytest.mark.parametrize("kind", fuzz_pictures.KINDS)
def test_damaged_pictures(kind, tmp_path):
    counts, most, finds = fuzz_pictures.fuzz(kind, 30, 0, tmp_path)
    assert finds == []
    assert min(counts.values()) > 50
    assert most < fuzz_pictures.LARGEST


@pytest.mark.parametrize("script", ["fuzz_folders.py", "fuzz_flags.py"])
def test_odd_folders_and_command_lines(script):
    """Runs in its own process, which gives up its rights or forks."""
    command = [sys.executable, str(TESTS / script), "--seconds", "10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " 0 finds" in done.stdout

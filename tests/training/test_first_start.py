"""If the first start of a run fails, the next one may have other settings."""

import os

import pytest

from tf_metalstm import train
from tf_metalstm.flags import parse_settings, read_settings

SMALL = (
    *("--source=sine", "--learner=mlp", "--num_shot=2", "--num_query=2"),
    *("--num_steps=1", "--max_steps=1", "--checkpoint_every=1", "--validate_every=1"),
    *("--validation_episodes=2", "--deterministic=false"),
)


class ReachedError(Exception):
    """Raised in place of the first update."""


def reached(*_, **__):
    raise ReachedError


def start(run_dir, *arguments):
    train.main(parse_settings([*SMALL, f"--run_dir={run_dir}", *arguments]))


def interrupted(*_, **__):
    raise KeyboardInterrupt


def disk_full(*_, **__):
    raise OSError(28, os.strerror(28), "weights")


def no_memory(*_, **__):
    raise MemoryError


BAD_ARGUMENTS = {
    "--learner=conv4": "takes images",
    "--pretrained_run_dir=nowhere": "has no run.flags and no exported model",
    "--rule=meta_sgd --meta_sgd_rates=0.1,0.005": "meta_sgd_rates must be two numbers",
    "--jit_compile --deterministic=true": "jit_compile needs deterministic=false",
    "--checkpoint_every=3 --validate_every=4": "must be a positive multiple of checkpoint_every, 3",
}
FAULTS = {
    "interrupted while the first episodes are made": (
        (train.experiment, "training_episodes", interrupted),
        KeyboardInterrupt,
    ),
    "interrupted while it is validated": (
        (train.experiment, "validation_episodes", interrupted),
        KeyboardInterrupt,
    ),
    "no memory for the first update": ((train, "train", no_memory), MemoryError),
    "a full disk at the notes": ((train, "record_start", disk_full), OSError),
    "a full disk at the facts": ((train, "write_facts", disk_full), OSError),
    "a full disk at the curves": ((train, "write_hyper_parameters", disk_full), OSError),
}


@pytest.mark.parametrize("line", BAD_ARGUMENTS)
def test_arguments_that_fail(line, tmp_path, monkeypatch):
    with pytest.raises((ValueError, FileNotFoundError), match=BAD_ARGUMENTS[line]):
        start(tmp_path / "run", "--seed=1", *line.split())
    takes_the_next(tmp_path / "run", monkeypatch)


@pytest.mark.parametrize("why", FAULTS)
def test_faults(why, tmp_path, monkeypatch):
    change, error = FAULTS[why]
    with monkeypatch.context() as patch:
        patch.setattr(*change)
        with pytest.raises(error):
            start(tmp_path / "run", "--seed=1")
    takes_the_next(tmp_path / "run", monkeypatch)


def takes_the_next(run_dir, monkeypatch):
    """Runs everything that a start with other settings does before its first update."""
    monkeypatch.setattr(train, "train", reached)
    with pytest.raises(ReachedError):
        start(run_dir, "--seed=2", "--num_shot=3")
    assert read_settings(run_dir).get("num_shot") == 3

"""A toy table of two cells, and its runs as the commands leave them."""

import json
import pathlib

import toy

from tf_metalstm import reproduce
from tf_metalstm.exported import exported_fingerprint, is_exported
from tf_metalstm.flags import parse_settings, read_settings, write_settings
from tf_metalstm.settings import make_settings
from tf_metalstm.tables.catalogue import Cell, Run
from tf_metalstm.training.checkpoints import RunCheckpoints
from tf_metalstm.training.provenance import record_start

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = ("--source=mini_imagenet", "--max_steps=100")
BEFORE = Run("joint", FLAGS)
PLAIN = Cell("plain", 5, 1, "43.44 +- 0.77", Run("plain", FLAGS))
GRID = (*FLAGS, "--rule=sgd", "--grid=inner_rate=0.1|0.5")
TUNED = Cell("tuned", 5, 5, "", Run("tuned", GRID, before=(BEFORE,), searched=True))


def begun_at(run_dir, precision="float32", **said):
    said |= {"source": "mini_imagenet", "max_steps": 100}
    said |= {"pretrained_run_dir": run_dir, "learner_precision": precision}
    return make_settings(said)


def make_run(run_dir, step, best=None, minutes=12.0, settings=None):
    write_settings(settings or begun_at(None), run_dir)
    checkpoints = RunCheckpoints(run_dir, toy.image_method())
    if best is not None:
        checkpoints.save_best(0.5, best)
    checkpoints.save(step, minutes)


def report(run_dir, **changes):
    values = {
        "split": "test",
        "num_way": 5,
        "num_shot": 1,
        "num_query": 15,
        "num_episodes": 600,
        "evaluation_seed": 0,
        "checkpoint": "best",
        "step": 50,
        "mean": 0.4321,
        "interval": 0.0123,
        "batch_norm": "inductive (such)",
        "list_fingerprint": "0123456789abcdef",
        "query_normalization": "running",
        "num_steps": 5,
    } | changes
    folder = run_dir / "evaluation"
    folder.mkdir(exist_ok=True)
    (folder / f"{len(list(folder.iterdir()))}.json").write_text(json.dumps(values))


def stand_in(command, flags):
    """Writes the files of a command to the folder of a run. Returns the name of the run."""
    [run_dir] = [pathlib.Path(f.partition("=")[2]) for f in flags if f.startswith("--run_dir=")]
    # As in the command, unknown flags and flags without effect are errors.
    said = parse_settings(flags) if command == "train" else read_settings(run_dir, *flags)
    if command == "train":
        where = said.get("pretrained_run_dir")
        make_run(run_dir, 100, best=50, settings=said)
        start = {"run": pathlib.Path(where or "").name, "step": 50}
        if where and is_exported(where):
            start["weights"] = exported_fingerprint(where)
        record_start(run_dir, start if where else None)
    elif command == "search":
        (run_dir / "found.flags").write_text("--inner_rate=0.1\n")
    else:
        changed = {"inner_rate": 0.1} if run_dir.name == "tuned" else {}
        which = said.evaluation.checkpoint
        asked = {"num_shot": said.get("num_shot"), "split": said.evaluation.split}
        asked |= {"checkpoint": which, "step": {"best": 50, "last": 100}[which]}
        report(run_dir, num_episodes=said.evaluation.num_episodes, changed=changed, **asked)
    return run_dir.name


def run(tmp_path, *arguments):
    reproduce.main(["--table=mini_imagenet", f"--runs_dir={tmp_path}", *arguments])

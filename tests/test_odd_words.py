"""Errors of real commands and clients about common mistakes have the user's words, and a remedy."""

import json
import re

import odd_inputs
import pytest
import toy
from fresh_run import fresh_run
from in_process import call

from tf_metalstm.settings import make_settings

# A command line, and the parts that its error must have.
LINES = {
    "evaluate --run_dir={run} --hidden_layers=64":
        "--hidden_layers cannot change after training began, and the run in .* began with 4: leave",
    "visualize --run_dir={run} --num_steps=5": "set --num_evaluation_steps instead",
    "search --run_dir={run} --rule=meta_sgd": "--rule is sgd in the run in .* cannot be changed",
    "evaluate --run_dir={run} --learner=conv4": "--learner is mlp in the run in",
    "evaluate --run_dir={run} --checkpoint=last":
        "has no last weights yet: .* first checkpoint. Train longer, or use --checkpoint=best.",
    "visualize --run_dir={empty}": "has no best weights yet: .* first validation. Train longer.$",
    "evaluate --run_dir={model}": "has no run.flags: expected a folder written by",
    "evaluate --run_dir={zip}": "has no run.flags: expected a folder written by",
    "compare_optimizers --run_dir={run}": "is no learned optimizer: give the run of one",
    "export --run_dir={run} --example_dir={new}": "--example_dir is for images",
    "train --source=folder --data_dir={support}/ant/0.png":
        "folder: the --data_dir .*0.png is not a folder. It must hold a folder of",
    "train --recipe=omniglot_5way_5sht": "did you mean omniglot_5way_5shot",
    "train --data_dri=x": "Unknown command line flag 'data_dri'. Did you mean: data_dir",
    "adapt --model={model} --support={zip}": "{zip} is an archive: unpack it.",
    "adapt check --model={model} --support={zip}": "{zip} is an archive: unpack it.",
    "adapt --model={model} --support={support} --query={zip}": "{zip} is an archive: unpack it.",
    "adapt --model={model} --support={root}": "holds the folders support and query, which are no",
    "adapt --model={run} --support={support}": "no exported model, it lacks saved_model.pb and man",
    "adapt --model={old} --support={support}": "has format version 1, this client knows 2",
    "adapt predict --classifier={model} --query={query}": "is no adapted classifier",
    "adapt --model={model} --support={support} --csv={query}": "exists already, and nothing is",
    "adapt --model={model} --support={support} --save={new}/a/b": "there is no such folder",
    "adapt --model={long} --support={support}": "x cannot be used .File name too long",
    "adapt --model={model} --support={support} --csv={long}": "x cannot be used .File name too",
    "adapt predict --classifier={long} --query={query}": "x cannot be used .File name too long",
    "evaluate --run_dir={long}": "x/run.flags: File name too long.",
    "to_lite --model={model} --out={long}": "x cannot be used .File name too long",
    "to_lite --model={run} --out={new}": "{run} is no exported model.",
    "reproduce --table=omniglot --only=maml_ --print_only": "is in no name of a run: .*",
    "trian --source=glyphs": "trian: did you mean train?",
}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("words")
    odd_inputs.ordinary(root)
    (root / "all.zip").write_bytes(b"PK\3\4")
    fresh_run(make_settings(toy.SINE).placed(root / "run"))
    fresh_run(make_settings(toy.SINE).placed(root / "empty"))
    for weights in (root / "empty" / "best").iterdir():
        weights.unlink()
    for name, version in (("model", 2), ("old", 1)):  # no command line loads these
        (root / name).mkdir()
        (root / name / "saved_model.pb").touch()
        manifest = {"format": "tf_metalstm.saved_model", "format_version": version}
        manifest |= {"image_shape": odd_inputs.SHAPE}
        (root / name / "manifest.json").write_text(json.dumps(manifest))
    names = ("support", "query", "run", "empty", "model", "old", "new")
    return {name: root / name for name in names} | {
        "long": "x" * 300,
        "root": root,
        "zip": root / "all.zip",
    }


@pytest.mark.parametrize("line", LINES)
def test_a_mistake_is_said_with_what_to_do(line, places):
    before = set(places["root"].rglob("*"))
    ended = call(*(part.format(**places) for part in line.split()))
    assert ended.code == 1, ended
    said = (ended.out + ended.err).strip()
    assert re.search(LINES[line].format(**places), said, re.MULTILINE), said
    assert "Graph execution error" not in said
    assert set(places["root"].rglob("*")) == before

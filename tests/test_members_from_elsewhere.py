"""Tests parts from outside the package: the examples in docs/examples."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from toy_images import encode_gray

from tf_metalstm import catalogue, evaluate, export, train, visualize
from tf_metalstm.classifier import FewShotClassifier
from tf_metalstm.construction import build_method, build_tasks, resolve
from tf_metalstm.episode import Support
from tf_metalstm.experiment import load_run
from tf_metalstm.flags import parse_settings, read_settings, write_settings
from tf_metalstm.options import OptionError
from tf_metalstm.runs import check_settled
from tf_metalstm.tables.text import table_text

EXAMPLES = pathlib.Path(__file__).parents[1] / "docs" / "examples"
PARTS = "--parts=my_rule,my_method,my_task,my_episodes"

TABLE = """
from tf_metalstm.tables.catalogue import Cell, Run

PARTS = ()
TABLES = {
    "mine": lambda: [
        Cell("templates", 3, 2, "", Run("templates", ("--method=templates", "--source=toys"))),
    ]
}
"""

SMALL = ("--max_steps=4", "--checkpoint_every=2", "--validate_every=2", "--validation_episodes=2")
MLP = ("--learner=mlp", "--hidden_layers=4")
TOYS = ("--source=toys", "--normalization=unit", "--num_way=3", "--num_shot=2", "--num_query=3")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for example in EXAMPLES.glob("*.py"):
        shutil.copy(example, tmp_path)
    (tmp_path / "my_table.py").write_text(TABLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = {family.name: family.names() for family in catalogue.FAMILIES.values()}
    yield tmp_path
    for module in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[module]
    for family in catalogue.FAMILIES.values():
        for name in set(family.names()) - set(before[family.name]):
            family.remove(name)


def run(command, *arguments, before=None):
    settings = parse_settings(arguments) if before is None else read_settings(before, *arguments)
    if before is not None:
        check_settled(read_settings(before), settings)
    command.main(settings.changed(deterministic=False) if before is None else settings)


def values(run_dir):
    method = load_run(read_settings(run_dir, "--checkpoint=last")).method
    return [w.numpy() for w in method.weights]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(
            (*TOYS, "--rule=sign_descent", "--sign_rate=0.02", *MLP, "--num_steps=2"),
            marks=pytest.mark.slow,
        ),
        (*TOYS, "--method=templates", "--sharpness=2"),
        pytest.param(
            ("--source=valleys", "--method=learned_optimizer", "--rule=sgd", "--learn_inner_rate"),
            marks=pytest.mark.slow,
        ),
        ("--source=valleys", "--method=learned_optimizer", "--rule=sign_descent"),
        ("--source=patterns", "--method=prototypical_networks", *MLP),
    ],
    ids=["rule", "method", "tasks", "rule-tasks", "episodes"],
)
def test_it_trains_resumes_and_is_evaluated(chosen, folder):
    chosen = (PARTS, *chosen, "--nodeterministic")
    run(train, *chosen, *SMALL, "--run_dir=straight")
    for steps in (2, 4):
        run(train, *chosen, *SMALL, f"--max_steps={steps}", "--run_dir=resumed")
    for one, other in zip(values("straight"), values("resumed"), strict=True):
        np.testing.assert_array_equal(one, other)
    run(evaluate, "--num_episodes=3", before="straight")
    [report] = pathlib.Path("straight", "evaluation").glob("*.json")
    assert len(json.loads(report.read_text())["scores"]) == 3


@pytest.mark.usefixtures("undrawn", "unchecked")
def test_a_task_with_a_support_set_goes_with_every_method_that_takes_its_kind(folder, capsys):
    patterns = (PARTS, "--source=patterns", *MLP)
    for method in list(catalogue.FAMILIES["method"]):
        if "images" not in method.kinds or "learner" not in method.part.needs:
            continue
        chosen = [*patterns, f"--method={method.part.name}"]
        if method.part.name == "relation_networks":  # it compares maps
            chosen = [PARTS, "--source=patterns", "--method=relation_networks", "--halvings=2"]
        settings = parse_settings(chosen)
        if method.part.name == "nearest_neighbor":
            with pytest.raises(OptionError, match="source=patterns makes new classes for every ep"):
                resolve(settings, build_tasks(settings))
            continue
        tasks = build_tasks(settings)
        built = build_method(resolve(settings, tasks), tasks)
        episode, labels = tasks.episodes("test", 0)(tf.constant(0))
        outputs = built({name: value[tf.newaxis] for name, value in episode.items()})
        assert outputs.shape == (1, *labels.shape, 5), method
    run(train, *patterns, "--method=prototypical_networks", "--max_steps=0", "--run_dir=run")
    run(export, before="run")
    printed = capsys.readouterr().out
    assert "adapts     to any number of classes" in printed
    assert "inputs     8 x 8 x 1 numbers" in printed
    assert "folder of images" not in printed


def test_a_start_that_looks_at_the_support_set_is_where_an_episode_begins(folder):
    settings = parse_settings(["--parts=my_start", *TOYS, "--start=mixed", "--num_steps=0"])
    tasks = build_tasks(settings)
    start = build_method(settings.changed(filters=2), tasks).start
    zeros = np.zeros(start.dark_and_light.shape[1], np.float32)
    start.dark_and_light.assign([zeros, zeros + 1.0])
    episode, _ = tasks.episodes("test", 0)(0)
    support = Support(episode["support_inputs"], episode["support_labels"])
    share = 1.0 / (1.0 + np.exp(-np.mean(support.inputs)))
    np.testing.assert_allclose(start.theta_0(None, support, 5), zeros + share, rtol=1e-5)


def test_a_source_reads_the_pictures_of_its_folders(folder):
    for split, shades in (("train", (0, 255)), ("test", (51, 102, 153))):
        for shade in shades:
            path = pathlib.Path("pictures", split, f"shade_{shade}", "1.bmp")
            path.parent.mkdir(parents=True)
            path.write_bytes(encode_gray(shade))
            path.with_name("2.bmp").write_bytes(encode_gray(shade))
    sizes = ("--num_way=3", "--num_shot=1", "--num_query=1")
    tasks = build_tasks(parse_settings(["--parts=my_source", "--source=my_folders", *sizes]))
    episode, labels = tasks.episodes("test", 0)(0)
    # Half of the training pixels are 0 and half 255, so mean and deviation are 127.5.
    shades = 127.5 + 127.5 * episode["query_inputs"].numpy()[:, 0, 0, 0]
    assert sorted(np.round(shades)) == [51, 102, 153]
    np.testing.assert_array_equal(np.unique(labels), [0, 1, 2])


def test_a_rule_without_gates_is_drawn_as_far_as_it_goes(folder):
    chosen = (PARTS, *TOYS, "--rule=sign_descent", *MLP, "--num_steps=2")
    run(train, *chosen, *SMALL, "--max_steps=0", "--run_dir=run")
    run(visualize, "--num_episodes=2", before="run")
    assert sorted(path.name for path in pathlib.Path("run", "figures").iterdir()) == ["loss.png"]


@pytest.mark.usefixtures("unchecked")
def test_a_method_is_exported_and_adapts_through_the_same_clients(folder):
    chosen = (PARTS, *TOYS, "--method=templates")
    run(train, *chosen, *SMALL, "--max_steps=0", "--run_dir=run")
    run(export, before="run")
    images = np.random.default_rng(0).integers(0, 256, (14, 16, 16, 1))
    labels = np.arange(14) % 7  # more classes than in training
    answers = []
    for model in ("run", "run/saved_model"):
        classifier = FewShotClassifier.load(model).fit(images, labels)
        answers.append(classifier.predict_proba(images))
        assert (classifier.predict(images[:7]) == labels[:7]).mean() > 0.9
    np.testing.assert_allclose(*answers, atol=1e-5)


def test_a_table_of_ones_own_is_printed(folder):
    from tf_metalstm.reproduce import all_tables

    tables = all_tables(["my_method", "my_table"])
    assert {"mine", "mini_imagenet"} <= tables.keys()
    assert "| templates | 3-way 2-shot | - | not run |" in table_text(
        tables["mine"](), folder, 600, {}
    )


def test_help_and_run_flags_know_it(folder):
    call = [sys.executable, "-m", "tf_metalstm.train", PARTS, "--help"]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.count("--rule=sign_descent: Descent by the sign") == 1
    settings = parse_settings([PARTS, "--rule=sign_descent", "--sign_rate=0.5"])
    assert settings.get("sign_rate") == 0.5
    with pytest.raises(ValueError, match="sign_rate must be a number above 0, got -1"):
        settings.changed(sign_rate=-1.0)
    with pytest.raises(ValueError, match="it belongs to rule=sign_descent"):
        parse_settings(["--sign_rate=0.5"])


def test_a_run_keeps_its_parts_when_it_continues_without_the_flag(folder):
    write_settings(parse_settings([PARTS, "--rule=sign_descent"]), folder / "run")
    continued = parse_settings(["--rule=sign_descent", "--run_dir=run"])
    write_settings(continued, folder / "run", begun=False)
    assert PARTS in (folder / "run" / "run.flags").read_text()


def test_it_is_found_from_an_installed_package(folder):
    info = folder / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tf_metalstm.parts]\nsign = my_rule:SignDescent\n")
    assert parse_settings(["--rule=sign_descent"]).get("rule") == "sign_descent"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module", "parts=no_such_module cannot be imported"),
        ("empty", "parts=empty has no PARTS: add PARTS"),
    ],
)
def test_modules_that_offer_nothing_are_said(name, message, folder):
    (folder / "empty.py").write_text("")
    with pytest.raises(ValueError, match=message):
        parse_settings([f"--parts={name}"])


def test_a_command_takes_parts_from_a_file_beside(folder):
    """Runs the real command once. The file is named on the command line, then by run.flags."""
    call = [sys.executable, "-m", "tf_metalstm.train", PARTS, "--source=valleys"]
    call += ["--method=learned_optimizer", "--rule=sign_descent", "--run_dir=run"]
    call += [*SMALL, "--max_steps=0"]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert PARTS in pathlib.Path("run", "run.flags").read_text()
    settings = read_settings("run")
    method = build_method(settings, build_tasks(settings))
    assert tf.size(method({"theta_0": tf.ones([2, 3])})) == 2 * 6

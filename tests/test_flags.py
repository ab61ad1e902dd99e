"""Flags, run.flags, and the command line as a user meets it."""

import dataclasses
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from tf_metalstm.construction import build_method, resolve
from tf_metalstm.data.tasks import ImageTasks
from tf_metalstm.experiment import build_tasks
from tf_metalstm.flags import (
    RUN_FLAGS,
    RunMismatchError,
    changed_settings,
    check_settled,
    define_flags,
    parse_settings,
    read_settings,
    settings_from_flags,
    write_settings,
)
from tf_metalstm.settings import GROUPS, DataSettings, Settings

ROOT = pathlib.Path(__file__).parents[1]
FLAGFILES = sorted(ROOT.glob("flags/**/*.flags"))


def parse(*arguments):
    values = flags.FlagValues()
    define_flags(values)
    values(["command", *arguments])
    return settings_from_flags(values)


def change(settings, group, **values):
    return dataclasses.replace(
        settings, **{group: dataclasses.replace(getattr(settings, group), **values)}
    )


def test_defaults_of_the_flags_are_those_of_the_settings():
    assert parse() == Settings()


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda p: p.stem)
def test_every_flagfile_parses_and_survives_a_round_trip(path, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(ImageTasks, "num_training_classes", 7)  # which reads images
    settings = parse(f"--flagfile={path}")
    settings = resolve(settings, build_tasks(settings.data))
    write_settings(settings, tmp_path)
    assert dataclasses.replace(read_settings(tmp_path), run_dir=None) == settings


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda p: p.stem)
def test_no_flagfile_ends_a_line_with_a_comment(path):
    """absl takes what stands behind a value for a part of it."""
    for line in path.read_text().splitlines():
        assert line.startswith("#") or "#" not in line


def flagfiles_behind(path):
    """Yields every flagfile that one names, and those that they name."""
    for line in path.read_text().splitlines():
        if line.startswith("--flagfile="):
            named = ROOT / line.partition("=")[2]
            yield named
            if named != path:
                yield from flagfiles_behind(named)


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda p: p.stem)
def test_no_flagfile_names_itself(path):
    """absl skips such a line, and says nothing."""
    assert path not in flagfiles_behind(path)


def recipes():
    return [path for path in FLAGFILES if path.parent.name == "recipes"]


@pytest.mark.parametrize("path", recipes(), ids=lambda p: p.stem)
def test_every_recipe_begins_with_one_head(path):
    heads = [
        line[2:].split()[1]
        for line in path.read_text().splitlines()
        if line.startswith("# | ") and not line.startswith("# |  ")
    ]
    assert heads == ["Recipe", "Source", "Command", "Time", "Expected", "Measured"]


def test_every_recipe_builds_a_method(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert recipes()
    for path in recipes():
        settings = parse(f"--flagfile={path}", "--filters=4")  # as the wide ones, but quick
        tasks = build_tasks(settings.data)
        method = build_method(resolve(settings, tasks), tasks)
        assert method.num_outputs == tasks.num_outputs
        assert method.objective.name == tasks.objective


@pytest.mark.parametrize(("source", "usual"), [("mini_imagenet", 84), ("omniglot", 28)])
def test_the_size_of_images_reaches_the_source(source, usual):
    for arguments, size in (([], usual), (["--image_size=42"], 42)):
        tasks = build_tasks(parse(f"--source={source}", *arguments).data)
        assert tasks.input_shape[:2] == (size, size)


@pytest.mark.parametrize("source", ["mini_imagenet", "glyphs", "sine"])
def test_a_size_that_no_image_can_have_is_said(source):
    size = 0 if source == "mini_imagenet" else 42
    with pytest.raises(ValueError, match=f"--image_size={size} with --source={source}: it takes"):
        build_tasks(parse(f"--source={source}", f"--image_size={size}").data)


def test_the_presets_differ_where_paper_and_code_do(monkeypatch):
    monkeypatch.chdir(ROOT)
    paper, original = (
        parse(f"--flagfile=flags/methods/meta_lstm_{name}.flags") for name in ("paper", "original")
    )
    assert (paper.method.gate_feedback, original.method.gate_feedback) == ("value", "logit")
    assert original.method.gradient_divisor == "batch_size"
    assert original.data.class_sampling == "permutation"
    for settings in (paper, original):
        assert settings.method.hidden_units == 20
        assert settings.training.clip_norm == 0.25
        assert settings.method.query_normalization == "running"


def test_the_last_value_wins():
    assert parse("--num_way=7", "--num_way=9").data.num_way == 9


def test_run_flags_hold_every_setting(tmp_path):
    settings = resolve(Settings(), build_tasks(DataSettings()))
    settings = change(settings, "data", augmentation=["flip", "crop"], data_dir="some where")
    settings = change(settings, "training", jit_compile=True, max_minutes=1.5)
    write_settings(settings, tmp_path)
    assert dataclasses.replace(read_settings(tmp_path), run_dir=None) == settings
    text = (tmp_path / RUN_FLAGS).read_text()
    for group in GROUPS.values():
        for field in dataclasses.fields(group):
            assert f"--{field.name}" in text


def test_another_configuration_is_refused_and_the_difference_named(tmp_path):
    settings = resolve(Settings(), build_tasks(DataSettings()))
    write_settings(settings, tmp_path)
    before = (tmp_path / RUN_FLAGS).read_text()
    other = change(change(settings, "data", num_shot=1), "method", second_order=True)
    with pytest.raises(RunMismatchError) as error:
        write_settings(other, tmp_path)
    assert "--num_shot: the run has 5, now 1" in str(error.value)
    assert "--second_order: the run has False, now True" in str(error.value)
    assert "num_way" not in str(error.value)
    assert (tmp_path / RUN_FLAGS).read_text() == before


def test_a_run_may_be_made_longer_or_moved(tmp_path):
    settings = resolve(Settings(), build_tasks(DataSettings()))
    write_settings(settings, tmp_path)
    longer = change(settings, "training", max_steps=99_000, max_minutes=3.0)
    write_settings(change(longer, "data", data_dir="elsewhere"), tmp_path)
    assert read_settings(tmp_path).training.max_steps == 99_000


def test_more_ways_than_outputs_are_refused():
    settings = change(resolve(Settings(), build_tasks(DataSettings())), "data", num_way=9)
    with pytest.raises(ValueError, match="--num_way=9 but the learner has 5 outputs"):
        build_method(settings, build_tasks(settings.data))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--meta_sgd_rates=0.1"], "--meta_sgd_rates must be two numbers, .* got 0.1"),
        (["--meta_sgd_rates=low,high"], "--meta_sgd_rates must be numbers .* got 'low,high'"),
        (["--meta_sgd_rates=0.1,0.005"], "the lower one first; got 0.1,0.005"),
        (["--rule=sgd", "--inner_rate=-1"], "--inner_rate must be positive, got -1"),
        (["--learner=mlp", "--hidden_layers=40,0"], "--hidden_layers must be positive widths"),
        (["--source=sine"], r"takes images, but an input has the shape \(1,\): use --learner=mlp"),
        (["--source=sine", "--sine_phases=0"], "--sine_phases must be two numbers, LOW,HIGH"),
        (
            ["--source=sine", "--sine_frequencies=2,1"],
            "--sine_frequencies must be .* the lower one first; got 2,1",
        ),
    ],
)
def test_impossible_settings_name_their_flag(arguments, message):
    settings = parse("--rule=meta_sgd", *arguments)
    with pytest.raises(ValueError, match=message):
        build_method(settings, build_tasks(settings.data))


def command(name, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"tf_metalstm.{name}", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("train", ["--num_shto=1"], "Unknown command line flag 'num_shto'. Did you mean: num_shot"),
        ("train", ["--rule=adam"], "value should be one of <meta_lstm|"),
        ("evaluate", [], "Which run? Give --run_dir"),
        ("evaluate", ["--run_dir=nowhere"], "holds no run.flags: expected a folder written by"),
        ("train", ["--max_steps=150", "stray"], "Unexpected 'stray': every flag begins with --"),
        ("train", ["--source=omniglot", "--run_dir=runs/x"], "images_background"),
    ],
)
def test_mistakes_on_the_command_line_end_in_one_clear_message(name, arguments, message):
    done = command(name, *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_where_training_began_cannot_be_said_anew(tmp_path):
    write_settings(parse("--kernel_scale=2"), tmp_path)
    done = command("evaluate", f"--run_dir={tmp_path}", "--kernel_scale=4")
    assert done.returncode != 0
    assert "--kernel_scale=4.0 is settled when training begins, and the run in" in done.stderr
    assert "has begun with 2.0: leave it out" in done.stderr


@pytest.mark.parametrize(
    ("trained", "asked", "message"),
    [
        ("--num_steps=5", "--num_steps=9", "--num_evaluation_steps are those after it"),
        ("--learn_inner_rate", "--inner_rate=0.5", "has learned: leave it out"),
    ],
)
def test_what_would_change_nothing_is_refused(tmp_path, trained, asked, message):
    write_settings(parse(trained), tmp_path)
    check_settled(read_settings(tmp_path))
    with pytest.raises(ValueError, match=message):
        check_settled(read_settings(tmp_path, asked))


def test_a_run_keeps_its_validation_list(tmp_path):
    write_settings(parse(), tmp_path)
    with pytest.raises(RunMismatchError, match="--evaluation_seed: the run has 0, now 1"):
        write_settings(parse("--evaluation_seed=1"), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "momentum"),
    [
        ((), 0.05),
        (("--method=nearest_neighbor",), 0.99),
        (("--method=matching_networks",), 0.99),
        (("--method=matching_networks", "--statistics_momentum=0.9"), 0.9),
    ],
)
def test_running_statistics_are_kept_as_long_as_what_they_are_of(arguments, momentum):
    settings = parse(*arguments)
    tasks = build_tasks(settings.data)
    assert resolve(settings, tasks).method.statistics_momentum == momentum
    method = build_method(settings, tasks)
    network = method.embedding if arguments else method.learner.model
    assert network.get_layer("norm_1").momentum == momentum


def test_precision_and_recomputation_reach_the_method():
    settings = parse("--learner_precision=bfloat16", "--recompute")
    tasks = build_tasks(settings.data)
    method = build_method(settings, tasks)
    assert method.inner_loop.recompute
    assert method.learner.model.get_layer("conv_1").compute_dtype == "bfloat16"
    assert method.learner.dtype == method.rule.compute_dtype == "float32"
    plain = build_method(parse(), tasks)
    assert not plain.inner_loop.recompute
    assert plain.learner.model.get_layer("conv_1").compute_dtype == "float32"


def test_what_an_evaluation_changed_is_named(tmp_path):
    settings = dataclasses.replace(Settings(), run_dir=str(tmp_path))
    write_settings(settings, tmp_path)
    other = change(settings, "data", normalization="unit", num_shot=1, data_dir="elsewhere")
    other = change(other, "method", inner_rate=0.5, num_steps=9)
    assert changed_settings(settings) == {}
    assert changed_settings(other) == {"normalization": "unit", "inner_rate": 0.5}


def test_a_flagfile_that_is_not_there_is_an_error_of_the_user(tmp_path):
    with pytest.raises(ValueError, match=r"no\.flags"):
        parse_settings([f"--flagfile={tmp_path / 'no.flags'}"])

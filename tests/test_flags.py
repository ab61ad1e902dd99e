"""Tests flags, run.flags, and command lines; options are tested in tests/test_parts.py."""

import contextlib
import pathlib
import subprocess
import sys

import keras
import pytest
import toy
from command import Command

from tf_metalstm import help as help_module
from tf_metalstm.argv import RUN_FLAGS
from tf_metalstm.catalogue import add_part
from tf_metalstm.construction import build_method, build_tasks, resolve
from tf_metalstm.data.catalogue import SOURCES
from tf_metalstm.data.sources.omniglot import Omniglot
from tf_metalstm.data.tasks import ImageTasks
from tf_metalstm.flags import parse_settings, read_settings, write_settings
from tf_metalstm.options import OptionError
from tf_metalstm.runs import RunMismatchError, changed_settings, check_settled
from tf_metalstm.settings import UnusedOptionError, known_options, make_settings

ROOT = pathlib.Path(__file__).parents[1]
FLAGFILES = sorted(ROOT.glob("flags/**/*.flags"))


def parse(*arguments):
    return parse_settings(arguments)


def test_defaults_of_the_flags_are_those_of_the_options():
    assert parse() == make_settings()


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda p: p.stem)
def test_no_flagfile_ends_a_line_with_a_comment(path):
    """absl takes a comment after a value as a part of the value."""
    for line in path.read_text().splitlines():
        assert line.startswith("#") or "#" not in line


def flagfiles_behind(path):
    """Yields all flagfiles that a flagfile includes, directly or through others."""
    for line in path.read_text().splitlines():
        if line.startswith("--flagfile="):
            named = ROOT / line.partition("=")[2]
            yield named
            if named != path:
                yield from flagfiles_behind(named)


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda p: p.stem)
def test_no_flagfile_names_itself(path):
    """absl skips such a line without an error."""
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
    monkeypatch.setattr(ImageTasks, "num_training_classes", 7)  # this property would read images
    assert recipes()
    for path in recipes():
        settings = parse(f"--flagfile={path}")
        if settings.get("filters"):
            settings = settings.changed(filters=4)  # the same options with a small network
        tasks = build_tasks(settings)
        method = build_method(resolve(settings, tasks), tasks)
        assert method.objective.name == tasks.objective


@pytest.mark.parametrize(("source", "usual"), [("mini_imagenet", 84), ("omniglot", 28)])
def test_the_size_of_images_reaches_the_source(source, usual):
    for arguments, size in (([], usual), (["--image_size=42"], 42)):
        tasks = build_tasks(parse(f"--source={source}", *arguments))
        assert tasks.input_shape[:2] == (size, size)


def test_the_presets_differ_where_paper_and_code_do(monkeypatch):
    monkeypatch.chdir(ROOT)
    paper, original = (
        parse(f"--flagfile=flags/methods/meta_lstm_{name}.flags") for name in ("paper", "original")
    )
    assert (paper.get("gate_feedback"), original.get("gate_feedback")) == ("value", "logit")
    assert original.get("gradient_divisor") == "batch_size"
    assert original.get("class_sampling") == "permutation"
    for settings in (paper, original):
        assert settings.get("hidden_units") == 20
        assert settings.get("clip_norm") == 0.25
        assert settings.get("query_normalization") == "running"


def test_the_last_value_wins():
    assert parse("--num_way=7", "--num_way=9").get("num_way") == 9


def test_run_flags_are_read_back(tmp_path):
    settings = parse("--augmentation=flip,crop", "--prepared_dir=some where", "--max_minutes=1.5")
    write_settings(settings, tmp_path)
    assert read_settings(tmp_path).placed(None) == settings
    text = (tmp_path / RUN_FLAGS).read_text()
    assert all(f"--{name}" in text for name in settings.values)


OF_BEFORE = """# --- data
--source=omniglot
# --data_dir is not set
--omniglot_split=characters
--sine_frequencies=1,1
--num_way=5
# --- method
--method=matching_networks
--rule=meta_lstm
--inner_rate=0.01
--num_outputs=5
--cosine_scale=20.0
--meta_sgd_rates=0.005,0.1
# --- training
--joint_batch_size=64
--max_steps=300
"""


def test_run_flags_of_before_hold_all_flags_and_are_read_still(tmp_path):
    (tmp_path / RUN_FLAGS).write_text(OF_BEFORE)
    settings = read_settings(tmp_path)
    assert settings.get("cosine_scale") == 20.0
    assert settings.get("max_steps") == 300
    assert not {"rule", "inner_rate", "sine_frequencies", "joint_batch_size"} & {*settings.said()}
    again = parse(f"--flagfile={tmp_path / RUN_FLAGS}")  # repeats the run elsewhere
    assert again == settings.placed(None)
    with pytest.raises(UnusedOptionError, match="inner_rate does nothing"):
        parse(f"--flagfile={tmp_path / RUN_FLAGS}", "--inner_rate=1")


def test_the_same_flags_in_a_flagfile_that_somebody_wrote_are_refused(tmp_path):
    (tmp_path / "mine.flags").write_text(OF_BEFORE)
    with pytest.raises(UnusedOptionError, match="does nothing with"):
        parse(f"--flagfile={tmp_path / 'mine.flags'}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--method=matching_networks", "--num_steps=99"),
            "num_steps does nothing with method=matching_networks: it belongs to "
            "method=gradient_based, fine_tuning, head_adaptation, outer_product_lstm or "
            "learned_optimizer. Leave it out.",
        ),
        (
            ("--cosine_scale=10",),
            "cosine_scale does nothing with method=gradient_based: it",
        ),
        (
            ("--source=sine", "--learner=mlp", "--num_way=99"),
            "num_way does nothing with source=sine",
        ),
        (("--method=matching_networks", "--attention_steps=2"), "nothing without full_context."),
        (
            ("--method=nearest_neighbor", "--class_sampling=permutation"),
            "class_sampling does nothing with method=nearest_neighbor, which is not trained on epi",
        ),
        (
            ("--method=pixel_nearest_neighbor", "--learning_rate=0.1"),
            "learning_rate does nothing with method=pixel_nearest_neighbor, which is not trained",
        ),
        (("--method=nearest_neighbor", "--rule=sgd"), "rule does nothing with method=nearest_nei"),
        (("--source=glyphs", "--data_dir=x"), "data_dir does nothing with source=glyphs"),
        (
            ("--source=sine", "--method=matching_networks"),
            "method=matching_networks is for images, but source=sine has functions",
        ),
    ],
)
def test_what_does_nothing_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse(*arguments)


def test_another_configuration_is_refused_and_the_difference_named(tmp_path):
    settings = parse()
    write_settings(settings, tmp_path)
    before = (tmp_path / RUN_FLAGS).read_text()
    with pytest.raises(RunMismatchError) as error:
        write_settings(settings.changed(num_shot=1, second_order=True), tmp_path)
    assert "num_shot: the run has 5, now 1" in str(error.value)
    assert "second_order: the run has False, now True" in str(error.value)
    assert "num_way" not in str(error.value)
    assert (tmp_path / RUN_FLAGS).read_text() == before


def test_a_start_that_failed_binds_nobody(tmp_path):
    settings = parse()
    write_settings(settings, tmp_path)
    write_settings(settings.changed(num_shot=1), tmp_path, begun=False)
    assert read_settings(tmp_path).get("num_shot") == 1


def test_another_method_is_refused(tmp_path):
    write_settings(parse(), tmp_path)
    with pytest.raises(RunMismatchError, match="method: the run has 'gradient_based', now 'match"):
        write_settings(parse("--method=matching_networks"), tmp_path)


def test_a_run_may_be_made_longer_or_moved(tmp_path):
    settings = parse()
    write_settings(settings, tmp_path)
    longer = settings.changed(max_steps=99_000, max_minutes=3.0, prepared_dir="elsewhere")
    write_settings(longer, tmp_path)
    assert read_settings(tmp_path).get("max_steps") == 99_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--meta_sgd_rates=0.1"], "meta_sgd_rates must be two numbers, .* got 0.1"),
        (["--meta_sgd_rates=low,high"], "--meta_sgd_rates=low,high: must be numbers .* got 'low'"),
        (["--meta_sgd_rates=0.1,0.005"], "the lower one first; got 0.1,0.005"),
        (["--source=sine", "--sine_phases=0"], "sine_phases must be two numbers, LOW,HIGH"),
        (
            ["--source=sine", "--sine_frequencies=2,1"],
            "sine_frequencies must be .* the lower one first; got 2,1",
        ),
        (["--source=sine"], r"takes images, but an input has the shape \(1,\): use learner=mlp"),
    ],
)
def test_impossible_settings_name_their_option(arguments, message):
    def build():
        settings = parse("--rule=meta_sgd", *arguments)
        return build_method(settings, build_tasks(settings))

    with pytest.raises(ValueError, match=message):
        build()


def test_where_training_began_cannot_be_said_anew(tmp_path):
    write_settings(parse("--kernel_scale=2"), tmp_path)
    trained = read_settings(tmp_path)
    with pytest.raises(
        OptionError, match=r"kernel_scale cannot change after .* began with 2.0: leave"
    ):
        check_settled(trained, read_settings(tmp_path, "--kernel_scale=4"))


@pytest.mark.parametrize(
    ("trained", "asked", "message"),
    [
        ((), "--num_steps=9", "set num_evaluation_steps instead"),
        (("--rule=sgd", "--learn_inner_rate"), "--inner_rate=0.5", "learned: leave it out"),
        (("--source=omniglot",), "--omniglot_split=alphabets", "omniglot_split cannot change"),
        ((), "--normalization=unit", "normalization cannot change after training began"),
        ((), "--rule=sgd", "rule is meta_lstm in the run in"),
        ((), "--learning_rate=0.5", "learning_rate does nothing here: the training of .* is over"),
        ((), "--second_order", "second_order does nothing here"),
        ((), "--grid=inner_rate=1", "grid does nothing here"),
        (
            ("--method=prototypical_networks",),
            "--statistics_momentum=0.5",
            "statistics_momentum does nothing here",
        ),
    ],
)
def test_what_is_settled_or_changes_nothing_after_training_is_refused(
    tmp_path, trained, asked, message
):
    write_settings(parse(*trained), tmp_path)
    before = read_settings(tmp_path)
    check_settled(before, before)
    name = asked[2:].partition("=")[0]
    with pytest.raises(OptionError, match=message):
        check_settled(before, read_settings(tmp_path, asked), {name}, ("split", "num_episodes"))


def test_a_command_that_uses_no_data_refuses_their_flags(tmp_path):
    write_settings(parse(), tmp_path)
    before = read_settings(tmp_path)
    for flag in ("--num_way=3", "--source=omniglot", "--data_dir=elsewhere"):
        if flag.startswith("--data_dir"):
            asked = read_settings(tmp_path, "--source=omniglot", flag)
        else:
            asked = read_settings(tmp_path, flag)
        name = flag[2:].partition("=")[0]
        with pytest.raises(UnusedOptionError, match=f"^{name} does nothing without example_dir"):
            check_settled(before, asked, {name}, (), data_for="example_dir")
        check_settled(before, asked.changed(example_dir="a"), {name}, (), data_for="example_dir")


def test_another_source_is_normalized_as_the_training(tmp_path):
    write_settings(parse(), tmp_path)
    asked = read_settings(tmp_path, "--source=omniglot", "--normalization=unit")
    with pytest.raises(OptionError, match="normalization cannot change after training began"):
        check_settled(read_settings(tmp_path), asked)


def test_another_source_may_be_asked_about(tmp_path):
    """The split of the source in the evaluation need not be that of the training."""
    write_settings(parse("--source=omniglot"), tmp_path)
    check_settled(read_settings(tmp_path), read_settings(tmp_path, "--source=glyphs"))


def test_a_run_keeps_its_validation_list(tmp_path):
    write_settings(parse(), tmp_path)
    with pytest.raises(RunMismatchError, match="evaluation_seed: the run has 0, now 1"):
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
    tasks = build_tasks(settings)
    assert resolve(settings, tasks).get("statistics_momentum") == momentum
    method = build_method(settings, tasks)
    network = method.embedding if arguments else method.learner.model
    assert network.get_layer("norm_1").momentum == momentum


def test_precision_and_recomputation_reach_the_method():
    settings = parse("--learner_precision=bfloat16", "--recompute")
    tasks = build_tasks(settings)
    method = build_method(settings, tasks)
    assert method.inner_loop.recompute
    assert method.learner.model.get_layer("conv_1").compute_dtype == "bfloat16"
    assert method.learner.dtype == method.rule.compute_dtype == "float32"


def test_what_an_evaluation_changed_is_named(tmp_path):
    settings = parse("--rule=sgd", "--source=omniglot").placed(tmp_path)
    write_settings(settings, tmp_path)
    trained = read_settings(tmp_path)
    other = settings.changed(
        num_shot=1, data_dir="elsewhere", inner_rate=0.5, num_steps=9, omniglot_rotations=False
    )
    assert changed_settings(trained, settings) == {}
    assert changed_settings(trained, other) == {"inner_rate": 0.5, "omniglot_rotations": False}


def test_a_flagfile_that_is_not_there_is_an_error_of_the_user(tmp_path):
    with pytest.raises(ValueError, match=r"no\.flags"):
        parse(f"--flagfile={tmp_path / 'no.flags'}")


def test_every_option_is_in_the_help_with_the_part_that_it_belongs_to():
    text = help_module.help_text()
    for each in known_options().values():
        assert f"  --{each.name}\n" in text
    assert "--method=matching_networks: Matching networks (Vinyals et al., NIPS 2016)" in text
    assert (
        text.index("--rule=meta_lstm:") < text.index("--hidden_units") < text.index("--rule=sgd:")
    )


def run(module, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"tf_metalstm.{module}", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )


def test_help_with_stand_ins_is_the_help_without():
    """The help with stand-ins is quick, and equals the help with the real packages."""
    done = run("train", "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    with only_parts_of_the_package():
        assert done.stdout.endswith(help_module.help_text() + "\n")
    imported = run_python("import sys; sys.argv = ['x']; import tf_metalstm; print(*sys.modules)")
    assert "tensorflow" not in imported.split()
    assert "keras" not in imported.split()


@contextlib.contextmanager
def only_parts_of_the_package():
    toys = [toy.ToySource, toy.ToyStream]
    for each in toys:
        SOURCES.remove(each.part.name)
    try:
        yield
    finally:
        for each in toys:
            add_part(each)


def run_python(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return done.stdout


def test_the_seed_of_a_method_is_that_of_its_weights():
    settings = parse("--filters=4")
    one, other, third = (
        build_method(settings.changed(seed=seed), build_tasks(settings)) for seed in (1, 1, 2)
    )
    values = [keras.ops.convert_to_numpy(m.c_0) for m in (one, other, third)]
    assert (values[0] == values[1]).all()
    assert (values[0] != values[2]).any()


def test_names_that_flags_and_sources_share(tmp_path):
    """Options reach constructor arguments that have other names."""
    said = ("--source=omniglot", f"--data_dir={tmp_path}", "--image_size=20", "--skip_corrupt")
    said += ("--omniglot_split=alphabets", "--noomniglot_rotations")
    source = build_tasks(parse(*said)).source
    expected = Omniglot(
        tmp_path, split="alphabets", rotations=False, image_size=20, skip_corrupt=True
    )
    compared = {
        k: v for k, v in vars(source).items() if isinstance(v, (str, int, bool, pathlib.Path))
    }
    assert compared == {k: vars(expected)[k] for k in compared}
    assert compared["_class_split"] == "alphabets"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("train", ["--num_shto=1"], "Unknown command line flag 'num_shto'. Did you mean: num_shot"),
        ("train", ["--rule=adams"], "value should be one of <meta_lstm|"),
        ("train", ["--cosine_scale=7"], "--cosine_scale does nothing with --method=gradient_based"),
        ("evaluate", [], "The run is missing: set --run_dir"),
        ("evaluate", ["--run_dir=nowhere"], "--run_dir=nowhere has no run.flags: expected a"),
        (
            "train",
            ["--max_steps=150", "stray"],
            "Unexpected 'stray': every flag must begin with --",
        ),
        ("train", ["--source=omniglot", "--run_dir=runs/x"], "images_background"),
    ],
)
def test_mistakes_on_the_command_line_end_in_one_clear_message(name, arguments, message):
    output = Command(f"tf_metalstm.{name}", *arguments).finish(1)
    assert message in output
    assert "Traceback" not in output


def test_flags_that_a_command_does_not_use_are_refused_on_its_line(tmp_path):
    write_settings(parse(), tmp_path)
    output = Command("tf_metalstm.evaluate", f"--run_dir={tmp_path}", "--max_steps=5").finish(1)
    assert f"--max_steps does nothing here: the training of {tmp_path} is over." in output

"""Tests parts and their options. The tables come from the catalogues, so every part is tested."""

import dataclasses
import functools
import itertools
import math
import pathlib
import re
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
import toy_images

from tf_metalstm import train
from tf_metalstm.adaptation import InnerLoop, unroll
from tf_metalstm.catalogue import FAMILIES, add_part, check_owners
from tf_metalstm.construction import Builder, build_method, build_tasks, resolve
from tf_metalstm.flags import TAKEN, parse_settings, read_settings, with_dashes, write_settings
from tf_metalstm.options import OptionError, Options, option, options_of
from tf_metalstm.parts import Part
from tf_metalstm.rules.sgd import SGD
from tf_metalstm.settings import (
    ALWAYS,
    OptimizerOptions,
    TrainingOptions,
    UnusedOptionError,
    known_options,
    make_settings,
)

ROOT = pathlib.Path(__file__).parents[1]
FLAGFILES = sorted(ROOT.glob("flags/**/*.flags"))
MEMBERS = [(family.name, member.part.name) for family in FAMILIES.values() for member in family]

# Numbers do not depend on paths and names of files. Other tests check these options.
PLACES = {"data_dir", "prepared_dir", "pretrained_run_dir"}
# These change time or memory, not numbers.
NO_NUMBERS = {"recompute", "vectorize_episodes"}
# It must name an existing run: tests/test_baselines.py.
CHECKED = {"num_training_classes"}
# These belong to large networks: tests/learners/test_pretrained.py.
OF_PRETRAINED = {"trained_layers", "application", "application_weights", "model_file"}
OF_PRETRAINED |= {"features_layer", "pixel_range"}


def member_of(family, name):
    return FAMILIES[family][name]


def own_options(family, name):
    return options_of(member_of(family, name).part.options)


def company(family, name):
    """Returns further choices that a part needs, so that it is used and its method can be built."""
    said = {"source": "toys", family: name}
    if family == "learner" and name == "mlp":
        said["hidden_layers"] = (4,)
    if name == "tfds":
        said["tfds_name"] = "toy_tfds"
    if family == "source":
        kind = member_of("source", name).kind
        said |= {
            "functions": {"learner": "mlp"},
            "problems": {"method": "learned_optimizer"},
            "streams": {"method": "memory_augmented"},
        }.get(kind, {})
    if family == "rule":  # the cheapest problems that show the effect of a rule
        said |= {"source": "quadratics", "method": "learned_optimizer"}
    if family == "method" and "problems" in member_of("method", name).kinds:
        said["source"] = "quadratics"
    if family == "method" and "streams" in member_of("method", name).kinds:
        said["source"] = "toy_stream"
    return said


def in_use(family, name):
    """Returns the options of a part that are in use."""
    values = make_settings(company(family, name)).values
    return {n: each for n, each in own_options(family, name).items() if n in values}


def other_value(each):
    """Returns a value of an option that is not its default."""
    special = {
        "downsampling": "stride",
        "learner_precision": "bfloat16",
        "omniglot_split": "alphabets",
        "image_size": 20,
        "num_training_classes": 5,
        "num_outputs": 7,
        "kernel_scale": 2.0,
        "dropout": 0.5,
        "support_batch_size": 4,
        "sine_frequencies": (2.0, 3.0),
        "sine_phases": (7.0, 8.0),
        "meta_sgd_rates": (0.2, 0.3),
        "first_rates": (0.01, 0.1),
        "largest_rate": 1e-5,
        "celo_steps": 30,
        "unroll_steps": 1,
        "normalization": "unit",
        "forget_gate_bias": (8.0, 9.0),
        "input_gate_bias": (-9.0, -8.0),
        "pixel_range": (0.0, 1.0),
        "augmentation": ("flip", "crop"),
        "hidden_layers": (3,),
        "pair_units": (3, 2),
        "network_layers": (3,),
        "network_filters": (2,),
        "statistics_momentum": 0.5,
        "num_evaluation_steps": 3,
        "split_fractions": (0.4, 0.3, 0.3),
    }
    if each.name in special:
        return special[each.name]
    if each.kind is bool:
        return not each.default
    if each.kind is str and not each.choices:
        return "a place"
    if each.choices:
        return next(choice for choice in each.choices if choice != each.default)
    if each.name == "memory_slots":  # more than the four heads
        return 7
    for value in (3, 2, 7, 0.5, 0.25):
        if each.range.holds(value) and each.kind(value) == value != each.default:
            return each.kind(value)
    raise AssertionError(f"no other value of {each.name} is known: add one")


def test_names_of_members_differ_and_each_option_has_one_owner():
    assert len(set(MEMBERS)) == len(MEMBERS)
    check_owners()


@pytest.mark.parametrize(("family", "name"), MEMBERS)
def test_an_option_of_a_part_is_refused_with_every_other_part(family, name):
    tried = 0
    for other in FAMILIES[family].names():
        lacking = own_options(family, name).keys() - own_options(family, other).keys()
        for missing in lacking:
            said = company(family, other)
            if missing in make_settings(said).values:
                continue  # another family has it too
            with pytest.raises(UnusedOptionError) as error:
                make_settings({**said, missing: other_value(known_options()[missing])})
            assert error.value.name == missing
            assert f"{family}={name}" in re.sub(", | or ", f" {family}=", str(error.value))
            tried += 1
    assert tried or len(own_options(family, name)) == 0 or name == "toys" or family == "start"


@pytest.mark.parametrize("family", ["learner", "rule", "start"])
def test_a_family_that_the_method_does_not_need_is_refused(family):
    without = [m for m in FAMILIES["method"] if family not in m.part.needs]
    for method in without:
        said = company("method", method.part.name)
        with pytest.raises(UnusedOptionError, match=f"^{family} does nothing with method="):
            make_settings({**said, family: FAMILIES[family].default})


def in_company_of(each):
    """Returns the values of other options that this option needs to have an effect."""
    company = {"unroll_steps": 1} if each.name == "curriculum_problems" else {}
    return company | {
        name: value[0] if isinstance(value, tuple) else value
        for name, value in each.only_with.items()
    }


@pytest.mark.parametrize(
    "each", [e for e in known_options().values() if e.only_with], ids=lambda e: e.name
)
def test_an_option_that_is_idle_beside_the_others_is_refused(each):
    owner = next(
        (family, name) for family, name in MEMBERS if each.name in own_options(family, name)
    )
    known = known_options()
    idle = {
        name: (not value)
        if isinstance(value, bool)
        else next(c for c in known[name].choices if c != value and c not in value)
        for name, value in each.only_with.items()
    }
    said = {**company(*owner), each.name: other_value(each)}
    make_settings({**said, **in_company_of(each)})
    with pytest.raises(UnusedOptionError, match=f"{each.name} does nothing without"):
        make_settings({**said, **idle})


RANGED = [
    each
    for each in known_options().values()
    if any(bound is not None for bound in vars(each.range).values())
]


def owner_of(name):
    for family, member in MEMBERS:
        if name in own_options(family, member):
            return company(family, member)
    return {}


@pytest.mark.parametrize("each", RANGED, ids=lambda each: each.name)
def test_a_range_is_held_below_at_and_above_it(each):
    bounds = each.range
    step = 1 if each.kind is int else 1e-6
    allowed, refused = [], [math.nan] if each.kind is float else []
    for bound, inside, sign in (
        (bounds.at_least, True, -1),
        (bounds.above, False, -1),
        (bounds.at_most, True, 1),
        (bounds.below, False, 1),
    ):
        if bound is not None:
            (allowed if inside else refused).append(bound)
            refused.append(bound + sign * step)
    said = {**owner_of(each.name), **in_company_of(each)}
    commas = "(, separated by commas)?"
    for value in allowed + refused:
        value = each.kind(value) if value == value else value
        given = {**said, each.name: (value, value) if each.many else value}
        if value in allowed:
            make_settings(given)
            continue
        with pytest.raises(
            OptionError, match=f"{each.name} must be .*{bounds}{commas}, got"
        ) as error:
            make_settings(given)
        assert error.value.name == each.name
        with pytest.raises(ValueError, match=f"--{each.name}=.*must be .*{bounds}"):
            parse_settings([f"--{each.name}={value}"])


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda p: p.stem)
def test_every_flagfile_parses_strictly_and_survives_a_round_trip(path, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    settings = parse_settings([f"--flagfile={path}"])
    write_settings(settings, tmp_path)
    assert read_settings(tmp_path).placed(None) == settings


@pytest.mark.parametrize(("family", "name"), MEMBERS)
def test_run_flags_hold_what_was_used_and_nothing_else(family, name, tmp_path):
    said = company(family, name)
    for each in in_use(family, name).values():
        if not each.only_with and each.name not in said:
            said[each.name] = other_value(each) if each.name not in PLACES else "a place"
    settings = make_settings(said)
    write_settings(settings, tmp_path)
    assert read_settings(tmp_path).placed(None) == settings
    text = (tmp_path / "run.flags").read_text()
    for other in known_options().keys() - settings.values.keys():
        assert f"--{other}=" not in text


# --- an option changes something ---------------------------------------------------------------


@pytest.fixture(scope="module")
def raw_data(tmp_path_factory):
    """Toy raw files for the sources that read files."""
    folder = tmp_path_factory.mktemp("raw")
    toy_images.write_folder(folder / "omniglot", toy_images.omniglot_files(drawings=4))
    toy_images.write_folder(folder / "mini_imagenet", toy_images.mini_imagenet_files(images=4))
    toy_images.write_folder(folder / "folder", toy_images.folder_files())
    toy_images.write_tfds(folder / "tfds")
    return folder


class Footprint:
    """Numbers that depend on settings, in stages. After a difference, later stages are skipped."""

    stages = ("made", "given", "learned", "answered")

    def __init__(self, said):
        settings = make_settings(said)
        self.tasks = build_tasks(settings)
        self.settings = resolve(settings, self.tasks)
        self.method = build_method(self.settings, self.tasks)
        if settings.get("kernel_scale") is not None:
            self.method.begin(None)
        enliven(self.method)

    @functools.cached_property
    def made(self):
        """Returns the weights."""
        return arrays(self.method.weights)

    @functools.cached_property
    def episodes(self):
        """Returns a training episode with its labels, and a listed episode."""
        method, options = type(self.method), self.settings.of_member("method")
        stream = method.training_stream(options, self.tasks, 0)
        listed = self.tasks.episodes("validation", 0)
        return stream(tf.constant(1, tf.int64)), listed(tf.constant(0, tf.int64))[0]

    @functools.cached_property
    def given(self):
        """Returns the training data and the queries."""
        (task, _), listed = self.episodes
        return arrays([*task.values(), *listed.values()])

    @functools.cached_property
    def learned(self):
        """Returns outputs in training, and gradients."""
        (task, labels), _ = self.episodes
        toy.seed(0)
        with tf.GradientTape() as tape:
            outputs = self.method(batch_of_one(task), training=True)
            loss = self.method.training_loss(labels[tf.newaxis], outputs)
        return arrays([outputs, *gradients_of(tape, loss, self.method)])

    @functools.cached_property
    def answered(self):
        """Returns outputs after the training step."""
        assert self.learned
        return arrays([self.method(batch_of_one(self.episodes[1]), training=False)])


class RuleFootprint:
    """Numbers that depend on settings of a rule: its weights, and its updates on a problem."""

    stages = ("made", "moved")

    def __init__(self, said):
        settings = make_settings(said)
        self.tasks = build_tasks(settings)
        toy.seed(0)
        self.rule = Builder(settings, self.tasks).rule()
        self.rule.build(self.tasks.blocks)
        enliven(self.rule)

    @functools.cached_property
    def made(self):
        """Returns the weights."""
        return arrays(self.rule.weights)

    @functools.cached_property
    def moved(self):
        """Returns theta after two updates, the trace, and the meta-gradients."""
        task, _ = self.tasks.episodes("train", 0)(tf.constant(0, tf.int64))
        with tf.GradientTape() as tape:
            found = unroll(self.rule, self.tasks.problem(task), task["theta_0"], InnerLoop(2))
            loss = tf.reduce_sum(found.theta)
        shown = [found.theta, *found.trajectory.traces.values()]
        return arrays([*shown, *gradients_of(tape, loss, self.rule)])


@functools.cache
def _footprint(family, said):
    return (RuleFootprint if family == "rule" else Footprint)(dict(said))


def footprint(family, said):
    return _footprint(family, tuple(sorted(said.items())))


def enliven(layer):
    """Changes the weights of a meta-LSTM, because an untrained one hardly moves theta."""
    for weight in layer.trainable_weights:
        if "meta_lstm" in weight.path:
            weight.assign(weight + np.random.default_rng(0).normal(0.0, 0.05, weight.shape))


def batch_of_one(task):
    return {name: value[tf.newaxis] for name, value in task.items()}


def gradients_of(tape, loss, layer):
    found = tape.gradient(loss, [weight.value for weight in layer.trainable_weights])
    return [tf.convert_to_tensor(each) for each in found if each is not None]


def arrays(values):
    return [keras.ops.convert_to_numpy(value) for value in values]


def differ(one, other):
    return len(one) != len(other) or any(
        a.shape != b.shape or a.dtype != b.dtype or not np.array_equal(a, b, equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )


SMALL = {
    "num_way": 3,
    "num_shot": 2,
    "num_query": 2,
    "filters": 4,
    "downsampling": "max_pool",
    "num_showings": 4,
    "num_steps": 2,
    "normalization": "standard",
}
CHANGES = [
    (family, name, each)
    for family, name in MEMBERS
    for each in in_use(family, name).values()
    if each.name not in PLACES | CHECKED | OF_PRETRAINED and not each.is_path and family != "source"
]


def small(said):
    """Returns the options of SMALL that are in use."""
    values = make_settings(said).values
    return {**{name: value for name, value in SMALL.items() if name in values}, **said}


@pytest.mark.parametrize(
    ("family", "name", "each"), CHANGES, ids=[f"{n}-{e.name}" for _, n, e in CHANGES]
)
def test_an_option_changes_something(family, name, each):
    said = {**company(family, name), **in_company_of(each)}
    if each.name == "dropout":  # of a network that no rule adapts
        said["method"] = "prototypical_networks"
    chosen = make_settings(said).chosen
    takes_any = name != "relation_networks" and each.name != "kernel_scale"
    if family in ("method", "start") and "learner" in chosen and takes_any:
        said |= toy.MLP
    said = small(said)
    if each.name == "batch_norm_scale" and name == "mlp":
        said["mlp_batch_normalization"] = True
    if each.name == "statistics_momentum":
        said |= {"mlp_batch_normalization": True} if name == "mlp" else {}
    value = other_value(each)
    if said.get(each.name) == value:
        said[each.name] = each.default
    if each.name in ("features", "last_relu"):  # these have no effect on the toy images
        networks = []
        for chosen in (each.default, other_value(each)):
            options = make_settings({each.name: chosen}).of_member("learner")
            network = member_of(family, name).from_options(options, (32, 32, 1), 3, 0.05)
            networks.append([(layer.name, layer.output.shape) for layer in network.layers[1:]])
        assert networks[0] != networks[1]
        return
    before, after = footprint(family, said), footprint(family, {**said, each.name: value})
    if each.name in NO_NUMBERS:
        assert before.method.get_config() != after.method.get_config()
    elif each.name == "dropout":
        assert {"dropout_1"} <= {layer.name for layer in after.method.embedding.layers}
    else:
        assert any(
            differ(getattr(before, stage), getattr(after, stage)) for stage in before.stages
        ), f"{each.name}={value} changes nothing"
    # Trained weights come from a checkpoint, so their sizes and initial values cannot change.
    if differ(before.made, after.made):
        assert each.settled or each.training_only, f"{each.name} could be changed after training"


IN_DATA = {"skip_corrupt", "skip_small_classes", "class_split", "image_list", "tfds_name"}
OF_OMNIGLOT = ["omniglot_trials", "omniglot_stream"]
QUICK = [name for name in FAMILIES["source"].names() if name not in OF_OMNIGLOT]
# Each option is tested with one source that has it; with toys if possible, which is quick.
# tests/data tests the options that are skipped here.
SOURCES = list(
    {
        each.name: (name, each)
        for name in (*OF_OMNIGLOT, "mini_imagenet", "omniglot", *QUICK, "folder", "toys")
        for each in in_use("source", name).values()
        if each.name not in PLACES | IN_DATA
        and not each.name.startswith(("network_", "test_function"))
    }.values()
)


@pytest.mark.parametrize(("name", "each"), SOURCES, ids=[f"{n}-{e.name}" for n, e in SOURCES])
def test_an_option_of_a_source_changes_what_comes_from_it(name, each, raw_data, tmp_path):
    said = company("source", name)
    values = make_settings(said).values
    said |= {n: v for n, v in {"num_way": 2, "num_shot": 1, "num_query": 1}.items() if n in values}
    if "data_dir" in values:
        said |= {"data_dir": str(raw_data / name), "prepared_dir": str(tmp_path)}
    value = {"num_way": 3, "num_shot": 2, "num_query": 2, "training_num_way": 3}.get(
        each.name, other_value(each)
    )

    def seen(settings):
        tasks = build_tasks(settings)
        splits = ("train", "validation") if name == "toys" else ("train",)
        found = [np.asarray(tasks.task == 0)]
        for split, training in itertools.product(splits, (True, False)):
            for index in range(3):
                task, _ = tasks.episodes(split, 0, training=training)(tf.constant(index, tf.int64))
                found += [np.asarray(one) for one in task.values()]
        return found

    plain, changed = make_settings(said), make_settings({**said, each.name: value})
    assert differ(seen(plain), seen(changed)), f"{each.name}={value} changes nothing"


class CalledError(Exception):
    """Raised at the point where a training would begin."""


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Returns the arguments that `train` passes to the outer loop."""

    @functools.cache
    def start(**said):
        given = {}

        def outer_loop(method, training, validation, schedule, *_, **__):
            config = method.optimizer.get_config()
            if isinstance(config["learning_rate"], dict):
                config["learning_rate"] = config["learning_rate"]["config"]
            task = next(iter(training(0)))[0]
            given.update(
                schedule=schedule,
                optimizer=config,
                jit_compile=method.jit_compile,
                validation=int(validation().cardinality()),
                shapes={name: value.shape.as_list() for name, value in task.items()},
                task=[value.numpy().tobytes() for value in task.values()],
                weights=[w.numpy().tobytes() for w in method.weights],
            )
            raise CalledError

        # Figures for TensorBoard are tested elsewhere.
        undrawn = mock.patch.object(train, "_summaries", return_value=None)
        with undrawn, mock.patch.object(train, "train", outer_loop), pytest.raises(CalledError):
            train.main(toy.settings(tmp_path_factory.mktemp("run") / "run", **said))
        return given

    return start


# Devices are in tests/training/test_workers.py. Determinism cannot be switched off in a process.
OF_TRAINING = [
    each
    for owner in (TrainingOptions, OptimizerOptions)
    for each in options_of(owner).values()
    if each.name not in ("strategy", "deterministic")
]


@pytest.mark.parametrize("each", OF_TRAINING, ids=lambda each: each.name)
def test_an_option_of_the_training_reaches_it(each, started):
    values = {"max_steps": 8, "checkpoint_every": 1, "validate_every": 4, "decay_steps": 10}
    values |= {"episodes_per_step": 2, "validation_episodes": 2}
    plain = {"validation_episodes": 4}
    before = started(**plain)
    after = started(**{**plain, each.name: values.get(each.name, other_value(each))})
    assert before != after


# --- parts from elsewhere ----------------------------------------------------------------------


def test_two_owners_of_a_name_are_refused_and_leave_no_trace():
    class Thief(SGD):
        part = Part(
            "thief",
            "Takes a name",
            options=type(
                "ThiefOptions",
                (Options,),
                {"__annotations__": {"cosine_scale": "float"}, "cosine_scale": option(1.0, "Its.")},
            ),
        )

    Thief.part = dataclasses.replace(
        Thief.part, options=dataclasses.dataclass(frozen=True)(Thief.part.options)
    )
    with pytest.raises(ValueError, match=r"cosine_scale of .* belongs to .* already"):
        add_part(Thief)
    assert "thief" not in FAMILIES["rule"].names()


def test_a_flag_of_the_command_line_is_no_name_of_an_option():
    options = type(
        "LoudOptions",
        (Options,),
        {"__annotations__": {"verbosity": "float"}, "verbosity": option(0.5, "Its.")},
    )
    part = Part("loud", "Loud", options=dataclasses.dataclass(frozen=True)(options))
    add_part(type("Loud", (SGD,), {"part": part}))
    try:
        with pytest.raises(ValueError, match="verbosity of LoudOptions belongs to the command"):
            check_owners(TAKEN)
    finally:
        FAMILIES["rule"].remove("loud")


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (object, "belongs to no family: derive it from Method, FewShotMethod, Rule"),
        (type("Nameless", (SGD,), {"part": None}), "is not a rule: it needs the attributes part"),
        (type("Twin", (SGD,), {}), "Two members of rule have the name 'sgd'"),
    ],
)
def test_what_is_no_part_is_refused(member, message):
    with pytest.raises(ValueError, match=message):
        add_part(member)


def test_a_part_needs_a_name_that_a_flag_can_have():
    with pytest.raises(ValueError, match="small letters, digits and underscores, got 'My rule'"):
        Part("My rule", "Mine")


def test_dashes_come_at_the_edge():
    assert (
        with_dashes("num_way must be at least 2, got 1.") == "--num_way must be at least 2, got 1."
    )
    assert with_dashes("lower num_way, rule=sgd") == "lower --num_way, --rule=sgd"
    assert with_dashes("the rule of runs/run_dir/x") == "the rule of runs/run_dir/x"
    assert with_dashes("--num_way is told once") == "--num_way is told once"
    assert with_dashes("dropout does nothing here") == "--dropout does nothing here"


def test_every_option_that_belongs_to_no_part_has_a_title():
    assert all(owner.title for owner in ALWAYS)

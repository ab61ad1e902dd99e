"""A rule, a method and a source of tasks that somebody wrote outside the package."""

import json
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm import catalogue, evaluate, export, train, visualize
from tf_metalstm.classifier import FewShotClassifier
from tf_metalstm.construction import build_method, build_tasks
from tf_metalstm.experiment import load_run
from tf_metalstm.flags import parse_settings, read_settings
from tf_metalstm.runs import check_settled
from tf_metalstm.tables.text import table_text

MODULE = '''
"""Three parts and a table, as a user would write them: nothing but the public names."""

from dataclasses import dataclass

import keras
import tensorflow as tf

from tf_metalstm import FewShotMethod, Options, Part, ProblemTasks, Rule, option
from tf_metalstm.parameters import blocks_of
from tf_metalstm.tables.catalogue import Cell, Run


@dataclass(frozen=True)
class SignOptions(Options):
    sign_rate: float = option(0.1, "Size of a step.", above=0)


@keras.saving.register_keras_serializable("my_parts")
class SignDescent(Rule):
    """theta <- theta - rate sign(gradient), the rate learned; it has no gates."""

    part = Part("sign_descent", "Descent by the sign", options=SignOptions)

    def __init__(self, rate=0.1, name="sign_descent", **kwargs):
        super().__init__(name=name, **kwargs)
        self.rate = rate

    @classmethod
    def from_options(cls, options):
        return cls(options.sign_rate)

    def build(self, blocks):
        initial = keras.initializers.Constant(self.rate)
        self.learned = self.add_weight(shape=(len(blocks),), initializer=initial, name="rate")
        self.sizes = [block.size for block in blocks]
        self.built = True

    def initial_state(self, theta):
        return ()

    def call(self, gradient, loss, theta, state):
        rates = tf.repeat(tf.convert_to_tensor(self.learned), self.sizes)
        return theta - rates * tf.sign(gradient), state

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


@dataclass(frozen=True)
class TemplateOptions(Options):
    sharpness: float = option(1.0, "Factor on the answers.", above=0)


class Templates(FewShotMethod):
    """The mean image of a class, seen through learned weights of the pixels."""

    part = Part("templates", "Mean images", options=TemplateOptions)

    def __init__(self, input_shape, sharpness, **kwargs):
        super().__init__(name="templates", **kwargs)
        self.sharpness = sharpness
        self.pixel_weights = self.add_weight(shape=input_shape, initializer="ones", name="pixels")
        self.built = True

    @classmethod
    def from_options(cls, options, builder):
        return cls(builder.tasks.input_shape, options.sharpness)

    def adapt(self, support, training=False):
        of_class = tf.one_hot(support.labels, tf.reduce_max(support.labels) + 1)
        sums = tf.einsum("bn,bhwc->nhwc", of_class, support.inputs)
        return {"templates": sums / tf.reduce_sum(of_class, 0)[:, None, None, None]}

    def query_outputs(self, adapted, query_inputs, training=False):
        difference = query_inputs[:, None] - adapted["templates"]
        squares = self.pixel_weights * tf.square(difference)
        return -self.sharpness * tf.reduce_mean(squares, axis=[2, 3, 4])


@dataclass(frozen=True)
class ValleyOptions(Options):
    valley_width: float = option(2.0, "How wide the valley is.", above=0)


class Valley:
    def __init__(self, width):
        self.width = width

    def initial_carry(self):
        return ()

    def loss(self, theta, carry, step):
        return tf.reduce_sum(tf.square(theta)) / self.width, carry

    def gradient_scale(self):
        return 1.0


class ValleyTasks(ProblemTasks):
    part = Part("valleys", "Round valleys", options=ValleyOptions)
    name = "valleys"
    task = "3-dimensional"
    blocks = blocks_of([("x", (2,)), ("y", (1,))])

    def __init__(self, options):
        self.options = options

    @classmethod
    def from_options(cls, options):
        return cls(options)

    def episodes(self, split, seed, training=False):
        return ValleyEpisodes(("train", "validation", "test").index(split) + 10 * training, seed)

    def problem(self, task):
        return Valley(self.options.valley_width)

    def describe(self):
        return f"valleys of width {self.options.valley_width}"


class ValleyEpisodes:
    def __init__(self, *key):
        self.key = key

    def __call__(self, index):
        seed = tf.random.fold_in(tf.constant(self.key, tf.int64), index)
        return {"theta_0": tf.random.stateless_normal([3], seed)}, tf.zeros([])

    def fingerprint(self, num_episodes):
        return f"valleys {self.key} {num_episodes}"


PARTS = (SignDescent, Templates, ValleyTasks)
TABLES = {
    "mine": lambda: [
        Cell("templates", 3, 2, "", Run("templates", ("--method=templates", "--source=toys"))),
    ]
}
'''

SMALL = ("--max_steps=4", "--checkpoint_every=2", "--validate_every=2", "--validation_episodes=2")
MLP = ("--learner=mlp", "--hidden_layers=4")
TOYS = ("--source=toys", "--normalization=unit", "--num_way=3", "--num_shot=2", "--num_query=3")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_parts", None)
    for family in catalogue.FAMILIES.values():
        for name in {"sign_descent", "templates", "valleys"} & set(family.names()):
            family.remove(name)


def run(command, *arguments, before=None):
    settings = parse_settings(arguments) if before is None else read_settings(before, *arguments)
    if before is not None:
        check_settled(read_settings(before), settings)
    command.main(settings.changed(deterministic=False) if before is None else settings)


def values(run_dir):
    method = load_run(read_settings(run_dir, "--checkpoint=last")).method
    return [w.numpy() for w in method.weights]


@pytest.mark.parametrize(
    "chosen",
    [
        (*TOYS, "--rule=sign_descent", "--sign_rate=0.02", *MLP, "--num_steps=2"),
        (*TOYS, "--method=templates", "--sharpness=2"),
        ("--source=valleys", "--method=learned_optimizer", "--rule=sgd", "--learn_inner_rate"),
        ("--source=valleys", "--method=learned_optimizer", "--rule=sign_descent"),
    ],
    ids=["rule", "method", "tasks", "rule-tasks"],
)
def test_it_trains_resumes_and_is_evaluated(chosen, folder):
    chosen = ("--parts=my_parts", *chosen, "--nodeterministic")
    run(train, *chosen, *SMALL, "--run_dir=straight")
    for steps in (2, 4):
        run(train, *chosen, *SMALL, f"--max_steps={steps}", "--run_dir=resumed")
    for one, other in zip(values("straight"), values("resumed"), strict=True):
        np.testing.assert_array_equal(one, other)
    run(evaluate, "--num_episodes=3", before="straight")
    [report] = pathlib.Path("straight", "evaluation").glob("*.json")
    assert len(json.loads(report.read_text())["scores"]) == 3


def test_a_rule_without_gates_is_drawn_as_far_as_it_goes(folder):
    chosen = ("--parts=my_parts", *TOYS, "--rule=sign_descent", *MLP, "--num_steps=2")
    run(train, *chosen, *SMALL, "--run_dir=run")
    run(visualize, "--num_episodes=2", before="run")
    assert sorted(path.name for path in pathlib.Path("run", "figures").iterdir()) == ["loss.png"]


@pytest.mark.usefixtures("unchecked")
def test_a_method_is_exported_and_adapts_through_the_same_clients(folder):
    chosen = ("--parts=my_parts", *TOYS, "--method=templates")
    run(train, *chosen, *SMALL, "--run_dir=run")
    run(export, before="run")
    images = np.random.default_rng(0).integers(0, 256, (14, 16, 16, 1))
    labels = np.arange(14) % 7  # more classes than it was trained with
    answers = []
    for model in ("run", "run/saved_model"):
        classifier = FewShotClassifier.load(model).fit(images, labels)
        answers.append(classifier.predict_proba(images))
        assert (classifier.predict(images[:7]) == labels[:7]).mean() > 0.9
    np.testing.assert_allclose(*answers, atol=1e-5)


def test_a_table_of_ones_own_is_printed(folder):
    from tf_metalstm.reproduce import all_tables

    tables = all_tables(["my_parts"])
    assert {"mine", "mini_imagenet"} <= tables.keys()
    assert "| templates | 3-way 2-shot | - | not run |" in table_text(
        tables["mine"](), folder, 600, {}
    )


def test_help_and_run_flags_know_it(folder):
    call = [sys.executable, "-m", "tf_metalstm.train", "--parts=my_parts", "--help"]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.count("--rule=sign_descent: Descent by the sign") == 1
    settings = parse_settings(["--parts=my_parts", "--rule=sign_descent", "--sign_rate=0.5"])
    assert settings.get("sign_rate") == 0.5
    with pytest.raises(ValueError, match="sign_rate must be a number above 0, got -1"):
        settings.changed(sign_rate=-1.0)
    with pytest.raises(ValueError, match="it belongs to rule=sign_descent"):
        parse_settings(["--sign_rate=0.5"])


def test_it_is_found_from_an_installed_package(folder):
    info = folder / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tf_metalstm.parts]\nsign = my_parts:SignDescent\n")
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
    """The command itself, once: the file is named on the command line, then by run.flags."""
    call = [sys.executable, "-m", "tf_metalstm.train", "--parts=my_parts", "--source=valleys"]
    call += ["--method=learned_optimizer", "--rule=sign_descent", "--run_dir=run", *SMALL]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--parts=my_parts" in pathlib.Path("run", "run.flags").read_text()
    settings = read_settings("run")
    method = build_method(settings, build_tasks(settings))
    assert tf.size(method({"theta_0": tf.ones([2, 3])})) == 2 * 6

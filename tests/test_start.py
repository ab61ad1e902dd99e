"""Tests the weights that a run may start from, and the errors about others."""

import pytest
import toy
from fresh_run import fresh_run

from tf_metalstm.construction import build_method, build_tasks
from tf_metalstm.flags import parse_settings
from tf_metalstm.settings import UnusedOptionError
from tf_metalstm.start import check_pretrained, start_method
from tf_metalstm.training.checkpoints import BEST

JOINT = ("--method=nearest_neighbor",)
MATCHING = ("--method=matching_networks",)
PROTOTYPICAL = ("--method=prototypical_networks",)
RELATION = ("--method=relation_networks",)
META_LSTM = ("--source=mini_imagenet",)
SGD = ("--rule=sgd", "--learn_inner_rate=true")


@pytest.fixture
def check(tmp_path):
    def check(own, other, has_weights=True):
        if has_weights:
            (tmp_path / BEST).mkdir()
            (tmp_path / BEST / "step-7.index").touch()
        check_pretrained(parse_settings(own), parse_settings(other).placed(tmp_path))

    return check


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (META_LSTM, ("--source=mini_imagenet", *JOINT)),
        (META_LSTM, META_LSTM),
        ((*META_LSTM, "--image_size=84"), META_LSTM),  # given, or left to the source
        ((*META_LSTM, "--learning_rate=1e-4", "--num_steps=8"), META_LSTM),
        ((*META_LSTM, "--learn_c_0=false"), META_LSTM),
        (("--kernel_scale=4",), JOINT),
        (("--source=omniglot", "--omniglot_rotations=false"), ("--source=omniglot", *JOINT)),
        (MATCHING, JOINT),
        ((*MATCHING, "--full_context"), JOINT),
        (MATCHING, MATCHING),
        (PROTOTYPICAL, JOINT),
        ((*PROTOTYPICAL, "--training_num_way=20"), PROTOTYPICAL),
        ((*RELATION, "--halvings=2"), JOINT),
        (JOINT, JOINT),
        (SGD, SGD),
    ],
)
def test_what_may_be_begun_at(check, own, other):
    check(own, other)


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        (
            META_LSTM,
            MATCHING,
            "a run of method=matching_networks: choose a run of gradient_based or",
        ),
        (
            MATCHING,
            META_LSTM,
            "a run of method=gradient_based: choose a run of matching_networks or",
        ),
        (
            PROTOTYPICAL,
            MATCHING,
            "a run of method=matching_networks: choose a run of prototypical_ne",
        ),
        (JOINT, META_LSTM, "a run of method=gradient_based: choose a run of nearest_neighbor[.]"),
        ((), META_LSTM, "source is glyphs in this run, .* trained with mini_imagenet"),
        (("--learner=mlp",), JOINT, "learner is mlp in this run, .* was trained with conv4"),
        ((), SGD, "rule is meta_lstm in this run, .* was trained with sgd: use the same value"),
        (
            ("--normalization=standard",),
            ("--normalization=unit", *JOINT),
            "normalization is standard .* trained with unit",
        ),
        (
            ("--source=omniglot", "--omniglot_split=alphabets"),
            ("--source=omniglot", *JOINT),
            "omniglot_split is alphabets in this run, .* was trained with characters",
        ),
        (
            (*META_LSTM, "--image_size=42"),
            (*META_LSTM, *JOINT),
            r"inputs of the shape \(84, 84, 3\), .* shape \(42, 42, 3\): use the same image_size",
        ),
        ((*RELATION, "--halvings=2"), RELATION, "halvings is 2 in this run, .* was trained with 4"),
        ((*RELATION, "--filters=64"), JOINT, "filters is 64 in this run, .* was trained with 32"),
        ((*PROTOTYPICAL, "--halvings=2"), JOINT, "halvings is 2 in this run, .* trained with 4"),
        (("--filters=64",), JOINT, "filters is 64 in this run, .* was trained with 32"),
        (
            ("--learner=mlp", "--hidden_layers=20,40"),
            ("--learner=mlp", "--hidden_layers=40,20"),
            "hidden_layers is 20,40 in this run, .* was trained with 40,20",
        ),
        ((*JOINT, "--num_training_classes=3"), JOINT, "num_training_classes is 3 .* with None"),
        ((*MATCHING, "--full_context"), MATCHING, "full_context is True .* trained with False"),
        (("--hidden_units=4",), (), "hidden_units is 4 in this run, .* trained with 20"),
        (("--gate_feedback=logit",), (), "gate_feedback is logit .* trained with value"),
        (("--num_outputs=3",), ("--num_outputs=5",), "num_outputs is 3 .* trained with 5"),
        (("--rule=sgd",), SGD, "learn_inner_rate is False .* trained with True"),
        (("--learn_linear=false",), (), "learn_linear is False .* trained with True"),
    ],
)
def test_what_may_not_be_begun_at(check, own, other, message):
    with pytest.raises(ValueError, match=message):
        check(own, other)


def test_a_run_without_weights_cannot_be_begun_at(check):
    with pytest.raises(
        FileNotFoundError, match="has no weights yet: training writes them at its first"
    ):
        check(MATCHING, JOINT, has_weights=False)


def test_a_method_without_weights_begins_nowhere():
    with pytest.raises(UnusedOptionError, match="pretrained_run_dir does nothing with method=pix"):
        parse_settings(("--method=pixel_nearest_neighbor", "--pretrained_run_dir=runs/joint"))


def test_what_was_learned_is_not_scaled(tmp_path):
    fresh_run(toy.settings(tmp_path, num_steps=1))
    own, pretrained = (toy.settings(tmp_path, kernel_scale=scale) for scale in (4.0, 1.0))
    check_pretrained(own, pretrained)
    method = build_method(own, build_tasks(own))
    with pytest.raises(ValueError, match=r"would scale what .* has learned: give kernel_scale=1"):
        start_method(method, pretrained)

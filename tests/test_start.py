"""What a run may begin at, and what it is told where it may not."""

import dataclasses

import pytest

from tf_metalstm.flags import parse_settings
from tf_metalstm.start import check_pretrained
from tf_metalstm.training.checkpoints import BEST

JOINT = ("--method=nearest_neighbor",)
MATCHING = ("--method=matching_networks",)
META_LSTM = ("--source=mini_imagenet",)
SGD = ("--rule=sgd", "--learn_inner_rate=true")


@pytest.fixture
def check(tmp_path):
    def check(own, other, has_weights=True):
        if has_weights:
            (tmp_path / BEST).mkdir()
            (tmp_path / BEST / "step-7.index").touch()
        given = dataclasses.replace(parse_settings(other), run_dir=str(tmp_path))
        check_pretrained(parse_settings(own), given)

    return check


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (META_LSTM, ("--source=mini_imagenet", *JOINT)),
        (META_LSTM, META_LSTM),
        ((*META_LSTM, "--image_size=84"), META_LSTM),  # said, or left to the source
        ((*META_LSTM, "--learning_rate=1e-4", "--num_steps=8"), META_LSTM),
        ((*META_LSTM, "--learn_c_0=false"), META_LSTM),
        (("--kernel_scale=4",), JOINT),
        (("--source=omniglot", "--omniglot_rotations=false"), ("--source=omniglot", *JOINT)),
        (MATCHING, JOINT),
        ((*MATCHING, "--full_context"), JOINT),
        (MATCHING, MATCHING),
        (JOINT, JOINT),
        (SGD, SGD),
    ],
)
def test_what_may_be_begun_at(check, own, other):
    check(own, other)


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        (("--method=pixel_nearest_neighbor",), JOINT, "which has no weights"),
        (META_LSTM, MATCHING, "a run of --method=matching_networks: give one of gradient_based or"),
        (MATCHING, META_LSTM, "a run of --method=gradient_based: give one of matching_networks or"),
        (JOINT, META_LSTM, "a run of --method=gradient_based: give one of nearest_neighbor[.]"),
        ((), ("--normalization=unit", *JOINT), "trained with --normalization=unit, but this run"),
        (
            ("--source=omniglot", "--omniglot_split=alphabets"),
            ("--source=omniglot", *JOINT),
            "trained with --omniglot_split=characters, but this run has alphabets",
        ),
        (
            (*META_LSTM, "--image_size=42"),
            (*META_LSTM, *JOINT),
            r"inputs of the shape \(84, 84, 3\), .* are \(42, 42, 3\): .* the same --image_size",
        ),
        (("--filters=64",), JOINT, "trained with --filters=32, but this run has 64"),
        (
            ("--learner=mlp", "--hidden_layers=20,40"),
            ("--learner=mlp", "--hidden_layers=40,20"),
            "trained with --hidden_layers=",
        ),
        ((*JOINT, "--num_training_classes=3"), JOINT, "with --num_training_classes=None"),
        ((*MATCHING, "--full_context"), MATCHING, "trained with --full_context=False"),
        (("--hidden_units=4",), (), "trained with --hidden_units=20, but this run has 4"),
        (("--gate_feedback=logit",), (), "trained with --gate_feedback=value"),
        (("--num_outputs=3",), ("--num_outputs=5",), "trained with --num_outputs=5"),
        (("--rule=sgd",), SGD, "trained with --learn_inner_rate=True"),
        (("--learn_linear=false",), (), "trained with --learn_linear=True"),
        (
            ("--kernel_scale=4",),
            ("--kernel_scale=4",),
            "would scale what .* has learned: give --kernel_scale=1",
        ),
    ],
)
def test_what_may_not_be_begun_at(check, own, other, message):
    with pytest.raises(ValueError, match=message):
        check(own, other)


def test_a_run_without_weights_cannot_be_begun_at(check):
    with pytest.raises(FileNotFoundError, match="holds no weights yet: they appear with the first"):
        check(MATCHING, JOINT, has_weights=False)

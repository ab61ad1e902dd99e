"""Everything that can be chosen, in one place: name, default, choices and help.

A field here is a command line flag of the same name (`flags.py`) and an entry of
RUN_DIR/run.flags. The library below takes plain arguments and knows none of this.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tf_metalstm.adaptation import GRADIENT_DIVISORS
from tf_metalstm.data.catalogue import SOURCE_NAMES
from tf_metalstm.data.episodes import CLASS_SAMPLINGS
from tf_metalstm.data.preprocessing import AUGMENTATIONS, NORMALIZATIONS
from tf_metalstm.data.sine import SineTasks
from tf_metalstm.data.sources.base import SPLITS
from tf_metalstm.data.sources.omniglot import CLASS_SPLITS
from tf_metalstm.learners.catalogue import LEARNERS, PRECISIONS
from tf_metalstm.learners.conv4 import DOWNSAMPLINGS, FEATURES, INITIALIZATIONS
from tf_metalstm.methods.gradient_based import QUERY_NORMALIZATIONS
from tf_metalstm.methods.matching_networks import SIMILARITIES
from tf_metalstm.rules.catalogue import RULES
from tf_metalstm.rules.meta_lstm import GATE_FEEDBACKS
from tf_metalstm.training.devices import STRATEGIES

# Which class of `tf_metalstm.methods` each is, `tf_metalstm.construction` says.
METHODS = ("gradient_based", "nearest_neighbor", "pixel_nearest_neighbor", "matching_networks")


def option(
    default: Any,
    text: str,
    choices: Any = None,
    may_change: bool = False,
    of_start: bool = False,
) -> Any:
    """Declares a setting.

    Args:
        default: its value when nothing is said.
        text: one sentence for `--help`.
        choices: the values allowed, or None.
        may_change: whether a run may be continued under another value.
        of_start: it is settled when training begins: where, what of that is trained, images of
            which size. The commands after it take it from the run.
    """
    metadata = {"help": text, "choices": choices, "may_change": may_change, "of_start": of_start}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DataSettings:
    """Images, or functions, and episodes."""

    source: str = option(
        "glyphs", "Where images, or functions, come from.", (*SOURCE_NAMES, SineTasks.name)
    )
    data_dir: str | None = option(None, "Folder with the raw files of the source.", may_change=True)
    prepared_dir: str | None = option(
        None, "Folder for prepared data; default: a cache in the home folder.", may_change=True
    )
    image_size: int | None = option(
        None,
        "Height and width in pixels that Omniglot and mini-ImageNet are prepared in; default: 28 "
        "and 84.",
        of_start=True,
    )
    skip_corrupt: bool = option(False, "Leave out image files that cannot be read.")
    omniglot_split: str = option("characters", "How Omniglot is split.", CLASS_SPLITS)
    omniglot_rotations: bool = option(True, "Omniglot: rotated characters are further classes.")
    sine_frequencies: list = option(["1", "1"], "Sine: lowest and highest w of A sin(w x + b).")
    sine_phases: list = option(["0", "3.141592653589793"], "Sine: lowest and highest b.")
    normalization: str = option(
        "standard", "Of pixels: mean and deviation of the training split, or / 255.", NORMALIZATIONS
    )
    augmentation: list = option(
        [], f"Augmentation in training: any of {','.join(AUGMENTATIONS)}; turn turns whole classes."
    )
    num_way: int = option(5, "N, classes of an episode; of no use to functions.")
    num_shot: int = option(5, "K, support images a class; support points of a function.")
    num_query: int = option(15, "Q, query images a class; query points of a function.")
    class_sampling: str = option(
        "independent", "Draw the classes of each episode, or consume permutations.", CLASS_SAMPLINGS
    )


@dataclass(frozen=True)
class MethodSettings:
    """What kind of method it is, the network, the rule and the inner loop."""

    method: str = option("gradient_based", "How an episode is treated.", METHODS)
    rule: str = option("meta_lstm", "How the learner's parameters move.", tuple(RULES))
    hidden_units: int = option(20, "H, units of the meta-learner's first LSTM layer.")
    gate_feedback: str = option("value", "What the gates are fed back as.", GATE_FEEDBACKS)
    preprocessing_scale: float = option(10.0, "p of the preprocessing of gradient and loss.")
    inner_rate: float = option(0.01, "sgd: its rate, for the gradient of a mean loss.")
    inner_decay: float = option(0.0, "sgd: d of the rate of update t, rate / (1 + d (t - 1)).")
    learn_inner_rate: bool = option(False, "sgd: the rate is a meta-parameter too.")
    meta_sgd_rates: list = option(
        ["0.005", "0.1"], "meta_sgd: the learned rates start uniform between these two."
    )
    learner: str = option("conv4", "The network that is adapted.", tuple(LEARNERS))
    num_outputs: int | None = option(None, "Logits of the learner; default: num_way of training.")
    num_training_classes: int | None = option(
        None, "Joint training: classes of the training split; default: as many as there are."
    )
    pretrained_run_dir: str | None = option(
        None,
        "A run whose weights this one begins at: of the same method; or of nearest_neighbor, whose "
        "network is where c_0, or the network of matching networks, begins.",
        of_start=True,
    )
    kernel_scale: float = option(
        1.0,
        "gradient_based, conv4: c_0 starts with its convolutions times this; an update then turns "
        "them by less.",
        of_start=True,
    )
    learn_c_0: bool = option(
        True, "gradient_based: c_0 is trained; else it stays as it starts.", of_start=True
    )
    learn_linear: bool = option(
        True,
        "gradient_based: the last layer of c_0 is trained too; else it stays as it starts.",
        of_start=True,
    )
    dropout: float = option(0.0, "conv4: part dropped after each block; not where it is adapted.")
    similarity: str = option("softmax", "matching_networks: how cosines vote.", SIMILARITIES)
    cosine_scale: float = option(1.0, "matching_networks: cosines times this vote.")
    full_context: bool = option(
        False, "matching_networks: embed images in view of the whole support set."
    )
    attention_steps: int = option(3, "matching_networks: K, passes over the support for a query.")
    filters: int = option(32, "conv4: filters of each convolution.")
    downsampling: str = option("max_pool", "conv4: how a block halves images.", DOWNSAMPLINGS)
    features: str = option("flatten", "conv4: what its linear layer sees.", FEATURES)
    hidden_layers: list = option(["64"], "mlp: width of each hidden layer.")
    mlp_batch_normalization: bool = option(False, "mlp: batch norm in each hidden layer.")
    batch_norm_scale: bool = option(True, "Batch norm has a gamma.")
    learner_initialization: str = option(
        "glorot", "conv4: where c_0 starts.", INITIALIZATIONS, of_start=True
    )
    learner_precision: str = option(
        "float32",
        "Type of the learner's inside; its parameters and the rule are always float32.",
        tuple(PRECISIONS),
    )
    statistics_momentum: float | None = option(
        None,
        "Weight of the old running statistics when a pass updates them; default: 0.05 for those of "
        "an episode (gradient_based), 0.99 for those of the training.",
    )
    num_steps: int = option(5, "T, updates on the support set.")
    num_evaluation_steps: int | None = option(
        None, "T in validation, test and export; default: num_steps."
    )
    support_batch_size: int | None = option(None, "Support images of an update; default: all.")
    second_order: bool = option(False, "Keep the meta-gradient's path through the gradient.")
    gradient_divisor: str = option(
        "none", "Divide the gradient of the mean loss once more.", GRADIENT_DIVISORS
    )
    recompute: bool = option(
        False,
        "Keep less of each update for the meta-gradient and compute it again: for many updates.",
        may_change=True,
    )
    query_normalization: str = option(
        "running",
        "Batch norm of queries outside training: the episode's running statistics, those after "
        "one more support pass (both inductive), or the queries' own (transductive).",
        QUERY_NORMALIZATIONS,
    )


@dataclass(frozen=True)
class TrainingSettings:
    """The outer loop."""

    max_steps: int = option(
        10_000, "Meta-updates of the run; 0: use the method as it starts.", may_change=True
    )
    max_minutes: float | None = option(
        None, "Stop after so many minutes of training, all starts together.", may_change=True
    )
    learning_rate: float = option(1e-3, "Of Adam; the highest, where it rises and falls.")
    warmup_steps: int = option(0, "Meta-updates in which the rate rises from 0; 0: none.")
    decay_steps: int = option(
        0, "Meta-updates, after those, in which it falls as a cosine to a hundredth; 0: never."
    )
    weight_average: float = option(
        0.0, "Share of the old in an average of the weights, which is validated; 0: no average."
    )
    clip_norm: float = option(0.25, "Global norm to which meta-gradients are clipped; 0: none.")
    clip_value: float = option(0.0, "Size to which each number of them is clipped; 0: none.")
    joint_batch_size: int = option(64, "nearest_neighbor: images of a batch of its training.")
    episodes_per_step: int = option(1, "E, episodes of a meta-update.")
    vectorize_episodes: bool = option(
        False, "mlp: treat the E episodes as one batch; faster where they are tiny."
    )
    seed: int = option(0, "Of the weights and of the training episodes.")
    checkpoint_every: int = option(100, "Meta-updates between checkpoints and log entries.")
    validate_every: int = option(500, "Meta-updates between validations.")
    validation_episodes: int = option(100, "Episodes of a validation; always the same ones.")
    strategy: str = option("none", "Devices to train on.", STRATEGIES)
    jit_compile: bool = option(
        False, "Compile the step with XLA; with --deterministic=false, and worth it on a GPU."
    )
    deterministic: bool = option(
        True, "Use only operations that give the same result every time; may be slower where E > 1."
    )


@dataclass(frozen=True)
class EvaluationSettings:
    """What the commands after training look at."""

    split: str = option("test", "Split of the classes.", SPLITS, may_change=True)
    num_episodes: int = option(600, "Episodes of an evaluation.", may_change=True)
    evaluation_seed: int = option(0, "Of the list of episodes, in validation too.")
    checkpoint: str = option(
        "best",
        "The weights best on validation, or the last ones.",
        ("best", "last"),
        may_change=True,
    )
    grid: list = option(
        [], "search: the values to try, NAME=VALUE|VALUE,NAME=VALUE|VALUE.", may_change=True
    )
    baseline_run_dir: str | None = option(
        None, "visualize: another run on functions, drawn below this one.", may_change=True
    )
    example_dir: str | None = option(
        None, "export: also write images of one unseen episode there.", may_change=True
    )


@dataclass(frozen=True)
class Settings:
    """All settings of a command."""

    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    method: MethodSettings = dataclasses.field(default_factory=MethodSettings)
    training: TrainingSettings = dataclasses.field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = dataclasses.field(default_factory=EvaluationSettings)
    run_dir: str | None = option(
        None, "Folder of the run; default: a new one under runs/.", may_change=True
    )


GROUPS = {
    "data": DataSettings,
    "method": MethodSettings,
    "training": TrainingSettings,
    "evaluation": EvaluationSettings,
}

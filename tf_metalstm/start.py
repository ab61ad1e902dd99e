"""Where training begins: at random numbers, or at the weights of another run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_metalstm import experiment
from tf_metalstm.methods.base import FewShotMethod
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.methods.matching_networks import MatchingNetworks
from tf_metalstm.settings import Settings
from tf_metalstm.training.checkpoints import BEST, best_fingerprint, checkpoint_steps

# What two runs must have alike: images and classes that are training's in both,
_DATA = ("source", "normalization", "omniglot_split")
# the network,
_NETWORK = (
    "learner",
    "filters",
    "downsampling",
    "features",
    "batch_norm_scale",
    "hidden_layers",
    "mlp_batch_normalization",
)
# and where one takes all that the other has learned, what gives it a meaning.
_OF_THE_SAME_METHOD = {
    "nearest_neighbor": ("omniglot_rotations", "num_training_classes"),
    "matching_networks": ("full_context", "attention_steps"),
    "gradient_based": (
        "num_outputs",
        "rule",
        "hidden_units",
        "gate_feedback",
        "preprocessing_scale",
        "learn_inner_rate",
        "inner_decay",
        "learner_initialization",
        "learn_linear",
    ),
}


def start_method(
    method: FewShotMethod, settings: Settings, pretrained: Settings | None = None
) -> dict[str, Any] | None:
    """Sets a fresh method to where its run begins.

    Args:
        method: fresh.
        settings: of the run that begins.
        pretrained: settings of the run whose best weights it begins at; None for random numbers.

    Returns:
        The name of that run, the update that its weights are of, and their fingerprint, {"run",
        "step", "weights"}; or None.

    Raises:
        ValueError: the settings say what the method cannot do.
        FileNotFoundError: the other run has no weights.
    """
    start = None
    if pretrained is not None:
        check_pretrained(settings, pretrained)
        given, checkpoints = experiment.load_method(
            pretrained, experiment.build_tasks(pretrained.data)
        )
        if type(method) is type(given):
            start_weights(method.weights, given)
        elif isinstance(method, GradientBasedMethod):
            start_c_0(method, given)
        elif isinstance(method, MatchingNetworks):
            start_weights(method.embedding.weights, given)
        run_dir = Path(pretrained.run_dir or "")
        start = {
            "run": run_dir.name,
            "step": int(checkpoints.step.numpy()),
            "weights": best_fingerprint(run_dir),
        }
    if settings.method.kernel_scale != 1.0:
        scale_kernels(method, settings.method.kernel_scale)
    return start


def check_pretrained(settings: Settings, pretrained: Settings) -> None:
    """Checks that a run may begin at the weights of another one.

    Args:
        settings: of the run that begins.
        pretrained: of the other.

    Raises:
        ValueError: it may not; the error says what to change.
        FileNotFoundError: the other one has no weights yet.
    """
    own, other = settings.method.method, pretrained.method.method
    flag = f"--pretrained_run_dir={pretrained.run_dir}"
    if own == "pixel_nearest_neighbor":
        raise ValueError(f"{flag} has no use with --method={own}, which has no weights.")
    if other not in (own, "nearest_neighbor"):
        wanted = " or ".join(dict.fromkeys((own, "nearest_neighbor")))
        raise ValueError(f"{flag} is a run of --method={other}: give one of {wanted}.")
    if not checkpoint_steps(Path(pretrained.run_dir or "", BEST)):
        raise FileNotFoundError(
            f"{flag} holds no weights yet: they appear with the first validation of that run. "
            "Train it longer."
        )
    names = _DATA + _NETWORK + (_OF_THE_SAME_METHOD[own] if own == other else ())
    for name in names:
        here, there = (
            getattr(s.data if hasattr(s.data, name) else s.method, name)
            for s in (settings, pretrained)
        )
        if here != there:
            raise ValueError(
                f"{flag} was trained with --{name}={there}, but this run has {here}: both need the "
                "same."
            )
    here, there = (experiment.build_tasks(s.data).input_shape for s in (settings, pretrained))
    if here != there:
        raise ValueError(
            f"{flag} was trained on inputs of the shape {there}, but those of this run are {here}: "
            "both need the same --image_size."
        )
    if own == other and settings.method.kernel_scale != 1.0:
        raise ValueError(
            f"--kernel_scale={settings.method.kernel_scale} would scale what {flag} has learned: "
            "give --kernel_scale=1."
        )


def start_c_0(method: GradientBasedMethod, pretrained: FewShotMethod) -> None:
    """Sets c_0 to the weights of a trained network, all but its linear layer, which stays fresh.

    Raises:
        ValueError: the two networks are not alike.
    """
    learned = {weight.path: weight for weight in pretrained.weights}
    start = method.c_0.numpy()
    end = method.learner.num_before_last_layer()  # the last one tells other classes apart
    for block in method.learner.parameter_blocks:
        if block.start >= end:
            break
        values = _values(learned.get(block.name), block.name, block.shape)
        start[block.start : block.start + block.size] = values.ravel()
    method.c_0.assign(start)


def start_weights(own: Sequence[keras.Variable], trained: FewShotMethod) -> None:
    """Sets weights, running statistics among them, to those of the same names in a trained method.

    Args:
        own: of a method, or of its network; the trained one may have more.
        trained: where they come from.

    Raises:
        ValueError: the trained one has them in another shape, or not at all.
    """
    # `weights` and not `variables`: those count the random states of dropout too.
    learned = {weight.path: weight for weight in trained.weights}
    for variable in own:
        values = _values(learned.get(variable.path), variable.path, tuple(variable.shape))
        variable.assign(values)


def _values(learned: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if learned is None or tuple(learned.shape) != shape:
        has = "nothing" if learned is None else f"shape {tuple(learned.shape)}"
        raise ValueError(
            f"--pretrained_run_dir has {has} for {name}, which is {shape} here: "
            "both runs need the same network and the same rule."
        )
    return keras.ops.convert_to_numpy(learned)


def scale_kernels(method: FewShotMethod, factor: float) -> None:
    """Multiplies the convolutions of c_0, which batch norm takes back in what they compute.

    Their gradient is divided by the factor at the same time, so that an update of a given rate
    turns them by its square less, and the linear layer, which follows no batch norm, as before.
    A first-order meta-gradient cannot find such a scale: it does not know that the gradient depends
    on theta.

    Args:
        method: fresh.
        factor: positive.

    Raises:
        ValueError: it is not, or there is no c_0 with convolutions.
    """
    blocks = method.learner.parameter_blocks if isinstance(method, GradientBasedMethod) else ()
    kernels = [block for block in blocks if len(block.shape) == 4]
    if not 0.0 < factor < math.inf:
        raise ValueError(f"--kernel_scale must be a positive number, got {factor}.")
    if not kernels:
        raise ValueError(
            "--kernel_scale is for --method=gradient_based with --learner=conv4: nothing else has "
            "convolutions to start from. Leave it out."
        )
    start = method.c_0.numpy()
    for block in kernels:
        start[block.start : block.start + block.size] *= factor
    method.c_0.assign(start)

"""The convolutional learner of the paper (section 5.1), and of MAML on Omniglot.

Four blocks of [3x3 convolution, batch norm, ReLU, 2x2 max-pool], then a linear
layer. With 32 filters, 84 x 84 x 3 images and 5 classes it has 32,901 parameters
in 18 tensors. For Omniglot the authors of MAML use convolutions with stride two
instead of max-pool, and the mean of the last block over the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from tf_metalstm.learners.base import Learner, NetworkOptions
from tf_metalstm.learners.batch_normalization import BatchNormalization
from tf_metalstm.learners.blended_normalization import BlendedNormalization
from tf_metalstm.options import OptionError, option
from tf_metalstm.parts import Part

INITIALIZATIONS = ("glorot", "original", "zero_linear")
DOWNSAMPLINGS = ("max_pool", "stride")
FEATURES = ("flatten", "mean")


@dataclass(frozen=True)
class Conv4Options(NetworkOptions):
    """Options of conv4."""

    filters: int = option(
        32, "Number of filters of each convolution.", at_least=1, alike=True, settled=True
    )
    downsampling: str = option(
        "max_pool",
        "How a block halves height and width.",
        choices=DOWNSAMPLINGS,
        alike=True,
        settled=True,
    )
    halvings: int = option(
        4,
        "Number of blocks, from the first, that halve height and width; the others keep them.",
        at_least=0,
        at_most=4,
        alike=True,
        settled=True,
    )
    features: str = option(
        "flatten",
        "Input of the linear layer: all values of the last block (flatten), or the mean of each "
        "filter (mean).",
        choices=FEATURES,
        alike=True,
        settled=True,
    )
    dropout: float = option(
        0.0,
        "Dropout rate after each block in training; only for networks that are not adapted by a "
        "rule.",
        at_least=0,
        below=1,
        training_only=True,
    )
    last_relu: bool = option(
        True,
        "Give the last block a ReLU; without it features have both signs, and cosines separate "
        "classes better (Gidaris & Komodakis, CVPR 2018).",
        alike=True,
        settled=True,
    )
    blend_norm: bool = option(
        False,
        "Batch norm is blended with the moments of each image by a learned share (TaskNorm-I).",
        alike=True,
        settled=True,
    )
    learner_initialization: str = option(
        "glorot",
        "Initial weights: Glorot uniform (glorot), as in the code of the meta-LSTM's authors "
        "(original), or Glorot uniform with zeros in the last layer (zero_linear).",
        choices=INITIALIZATIONS,
        settled=True,
    )


class Conv4(Learner):
    """The four convolutional blocks of the paper."""

    part = Part("conv4", "Four convolutional blocks", "Vinyals et al., NIPS 2016", Conv4Options)

    @classmethod
    def from_options(  # type: ignore[override]
        cls,
        options: Conv4Options,
        input_shape: tuple[int, ...],
        num_outputs: int,
        statistics_momentum: float,
    ) -> keras.Model:
        return conv4(
            input_shape,
            num_outputs,
            options.filters,
            initialization=options.learner_initialization,
            downsampling=options.downsampling,
            halvings=options.halvings,
            features=options.features,
            dropout=options.dropout,
            last_relu=options.last_relu,
            blend_norm=options.blend_norm,
            **options.network_arguments(statistics_momentum),
        )


def conv4(
    image_shape: tuple[int, ...],
    num_outputs: int,
    filters: int = 32,
    *,
    initialization: str = "glorot",
    statistics_momentum: float = 0.05,
    batch_norm_scale: bool = True,
    downsampling: str = "max_pool",
    halvings: int = 4,
    features: str = "flatten",
    dropout: float = 0.0,
    last_relu: bool = True,
    blend_norm: bool = False,
    dtype: str = "float32",
) -> keras.Model:
    """Returns the network.

    Args:
        image_shape: (h, w, c); h and w must be at least 16 if four blocks have max-pool.
        num_outputs: N, number of logits.
        filters: number of filters of each convolution; the paper's meta-learner has 32, its
            baselines have 64.
        initialization: "glorot" for Keras's default; "original" as in the authors' code, with
            weights and biases uniform in +-1/sqrt(fan in) and the gamma of batch norm uniform in
            (0, 1); "zero_linear" for Keras's default with a linear layer of zeros, which prefers
            no class before the first update.
        statistics_momentum: weight of the *old* running statistics when a support pass updates
            them. There are few passes, so it is small: 0.05 (5-shot) and 0.10 (1-shot) in the
            authors' code.
        batch_norm_scale: whether batch norm has a gamma; the code of MAML's authors has none.
        downsampling: how a block halves its images: with "max_pool" or with the "stride" of its
            convolution.
        halvings: number of blocks, from the first, that halve their images.
        features: input of the linear layer: all outputs of the last block ("flatten"), or the mean
            of each filter over the image ("mean").
        dropout: dropout rate after each block in training; only for networks that are not adapted
            by a rule.
        last_relu: whether the last block has a ReLU.
        blend_norm: whether batch norm is blended with the moments of each image.
        dtype: "float32", "float64", or "mixed_bfloat16". The last has bfloat16, but float32 for
            parameters, the moments of batch norm and the last layer.

    Returns:
        A built model, images [B, h, w, c] -> logits [B, num_outputs].

    Raises:
        ValueError: the inputs are not images or are too small, or an argument is unknown.
    """
    if len(image_shape) != 3:
        raise ValueError(
            f"conv4 takes images, but an input has the shape {image_shape}: use learner=mlp."
        )
    _check_choice("learner_initialization", initialization, INITIALIZATIONS)
    _check_choice("downsampling", downsampling, DOWNSAMPLINGS)
    _check_choice("features", features, FEATURES)
    if downsampling == "max_pool" and min(image_shape[:2]) < 2**halvings:
        raise ValueError(
            f"conv4 halves its images {halvings} times and needs at least {2**halvings} x "
            f"{2**halvings} pixels, got {image_shape[0]} x {image_shape[1]}: use larger images, "
            "fewer halvings, downsampling=stride or learner=mlp."
        )
    full = keras.dtype_policies.get(dtype).variable_dtype
    images = x = keras.Input(image_shape, dtype=full)
    for i in range(1, 5):
        x = keras.layers.Conv2D(
            filters,
            3,
            strides=2 if downsampling == "stride" and i <= halvings else 1,
            padding="same",
            dtype=dtype,
            name=f"conv_{i}",
            **_initializers(initialization, fan_in=9 * x.shape[-1]),
        )(x)
        x = (BlendedNormalization if blend_norm else BatchNormalization)(
            momentum=statistics_momentum,
            epsilon=1e-3,
            scale=batch_norm_scale,
            gamma_initializer=_gamma_initializer(initialization),
            dtype=dtype,
            name=f"norm_{i}",
        )(x)
        # Max-pool before the ReLU: the results and gradients are the same bit for bit, and the ReLU
        # has a quarter of the values.
        if downsampling == "max_pool" and i <= halvings:
            x = keras.layers.MaxPooling2D(dtype=dtype, name=f"pool_{i}")(x)
        if i < 4 or last_relu:
            x = keras.layers.ReLU(dtype=dtype, name=f"relu_{i}")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, dtype=dtype, name=f"dropout_{i}")(x)
    if features == "mean":
        x = keras.layers.GlobalAveragePooling2D(dtype=dtype, name="mean")(x)
    else:
        x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
    initializers = _initializers(initialization, x.shape[-1])
    if initialization == "zero_linear":
        initializers = {"kernel_initializer": "zeros"}
    linear = keras.layers.Dense(num_outputs, dtype=full, name="linear", **initializers)
    return keras.Model(images, linear(x), name="conv4")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(name, f"must be one of {', '.join(choices)}, got {value!r}.")


def _initializers(initialization: str, fan_in: int) -> dict[str, Any]:
    if initialization != "original":
        return {}
    bound = fan_in**-0.5
    return {
        "kernel_initializer": keras.initializers.RandomUniform(-bound, bound),
        "bias_initializer": keras.initializers.RandomUniform(-bound, bound),
    }


def _gamma_initializer(initialization: str) -> Any:
    return "ones" if initialization != "original" else keras.initializers.RandomUniform(0.0, 1.0)

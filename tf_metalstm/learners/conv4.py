"""The convolutional learner of the paper (section 5.1).

Four blocks of [3x3 convolution, batch norm, ReLU, 2x2 max-pool], then a linear
layer. With 32 filters, 84 x 84 x 3 images and 5 classes it has 32,901 parameters
in 18 tensors.
"""

from __future__ import annotations

from typing import Any

import keras

from tf_metalstm.learners.batch_normalization import FusedBatchNormalization

INITIALIZATIONS = ("glorot", "original")


def conv4(
    image_shape: tuple[int, int, int],
    num_outputs: int,
    filters: int = 32,
    *,
    initialization: str = "glorot",
    statistics_momentum: float = 0.05,
    dtype: str = "float32",
) -> keras.Model:
    """Builds the network.

    Args:
        image_shape: (h, w, c), h and w at least 16.
        num_outputs: logits, N.
        filters: of each convolution; the paper's meta-learner uses 32, its baselines 64.
        initialization: "glorot", Keras's own; or "original", as in the authors' code: weights
            and biases uniform in +-1/sqrt(fan in), the gamma of batch norm uniform in (0, 1).
        statistics_momentum: weight of the *old* running statistics when a support pass updates
            them. Few passes are made, so it is small: 0.05 (5-shot) and 0.10 (1-shot) in the
            authors' code.
        dtype: "float32" or "float64".

    Returns:
        A built model, images [B, h, w, c] -> logits [B, num_outputs].
    """
    if min(image_shape[:2]) < 16:
        raise ValueError(
            f"conv4 halves its images four times and needs at least 16 x 16 pixels, got "
            f"{image_shape[0]} x {image_shape[1]}: use larger images or --learner=mlp."
        )
    if initialization not in INITIALIZATIONS:
        raise ValueError(
            f"initialization must be one of {', '.join(INITIALIZATIONS)}, got {initialization!r}."
        )

    def weights(fan_in: int) -> dict[str, Any]:
        if initialization == "glorot":
            return {}
        bound = fan_in**-0.5
        return {
            "kernel_initializer": keras.initializers.RandomUniform(-bound, bound),
            "bias_initializer": keras.initializers.RandomUniform(-bound, bound),
        }

    def gamma() -> Any:
        if initialization == "glorot":
            return "ones"
        return keras.initializers.RandomUniform(0.0, 1.0)

    images = x = keras.Input(image_shape, dtype=dtype)
    for i in range(1, 5):
        x = keras.layers.Conv2D(
            filters, 3, padding="same", dtype=dtype, name=f"conv_{i}", **weights(9 * x.shape[-1])
        )(x)
        x = FusedBatchNormalization(
            momentum=statistics_momentum,
            epsilon=1e-3,
            gamma_initializer=gamma(),
            dtype=dtype,
            name=f"norm_{i}",
        )(x)
        x = keras.layers.ReLU(dtype=dtype, name=f"relu_{i}")(x)
        x = keras.layers.MaxPooling2D(dtype=dtype, name=f"pool_{i}")(x)
    x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
    logits = keras.layers.Dense(num_outputs, dtype=dtype, name="linear", **weights(x.shape[-1]))(x)
    return keras.Model(images, logits, name="conv4")

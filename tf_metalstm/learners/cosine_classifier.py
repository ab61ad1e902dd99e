"""A cosine classifier: the last layer of Baseline++, for training on all classes together.

Chen et al., "A Closer Look at Few-shot Classification", ICLR 2019, and Gidaris & Komodakis,
"Dynamic Few-Shot Visual Learning without Forgetting", CVPR 2018, section 3.1:

    logit of class k = s cos(f, w_k) = s f . w_k / (|f| |w_k|)

Only directions count, so features of one class are drawn to one direction. That is what a nearest
neighbour by cosine asks of them.

    paper        code          shape
    w_k          kernel        [D, N]
    s            scale         [], learned, as in the second paper (there from 10 on)
    f            features      [B, D]
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor


def scaled_cosines(features: Tensor, kernel: Tensor, scale: Tensor) -> Tensor:
    """Returns the scaled cosine of features [B, D] with each column of a kernel [D, N], [B, N]."""
    directions = tf.math.l2_normalize(features, axis=-1)
    return scale * tf.matmul(directions, tf.math.l2_normalize(kernel, axis=0))


@keras.saving.register_keras_serializable("tf_metalstm")
class CosineClassifier(keras.layers.Layer):
    """Features [B, D] -> logits [B, units].

    Args:
        units: classes, N.
        initial_scale: where the learned factor on the cosines begins.
        **kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, units: int, initial_scale: float = 10.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.initial_scale = units, initial_scale

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes a direction for each class, and the scale."""
        shape = (input_shape[-1], self.units)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="glorot_uniform")
        constant = keras.initializers.Constant(self.initial_scale)
        self.scale = self.add_weight(name="scale", shape=(), initializer=constant)
        super().build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the scaled cosines, [B, units]."""
        kernel, scale = tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.scale)
        return scaled_cosines(tf.cast(inputs, kernel.dtype), kernel, scale)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the logits."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        own = {"units": self.units, "initial_scale": self.initial_scale}
        return {**super().get_config(), **own}


def with_cosine_classifier(network: keras.Model, units: int, initial_scale: float) -> keras.Model:
    """Returns a network whose last layer, a linear one, is a cosine classifier instead.

    Args:
        network: images -> logits; the weights before its last layer are shared.
        units: classes, N.
        initial_scale: where the learned factor on the cosines begins.
    """
    dtype = network.layers[-1].dtype_policy
    classifier = CosineClassifier(units, initial_scale, dtype=dtype, name="cosine")
    features = network.layers[-1].input
    return keras.Model(network.input, classifier(features), name=network.name)

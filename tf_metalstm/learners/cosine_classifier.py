"""A cosine classifier: the last layer of Baseline++, for training on all classes together.

Chen et al., "A Closer Look at Few-shot Classification", ICLR 2019, and Gidaris & Komodakis,
"Dynamic Few-Shot Visual Learning without Forgetting", CVPR 2018, section 3.1:

    logit of class k = s cos(f, w_k) = s f . w_k / (|f| |w_k|)

Only directions count, so training moves the features of a class towards one direction. A nearest
neighbour by cosine needs such features.

    paper        code          shape
    w_k          kernel        [D, N]
    s            scale         [], learned, as in the second paper (initial value 10 there)
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
        units: N, number of classes.
        initial_scale: initial value of the learned factor on the cosines.
        **kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, units: int, initial_scale: float = 10.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.initial_scale = units, initial_scale

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates a direction for each class, and the scale."""
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
    """Returns a network with a cosine classifier instead of its linear last layer.

    Args:
        network: images -> logits; the result shares its weights before the last layer.
        units: N, number of classes.
        initial_scale: initial value of the learned factor on the cosines.
    """
    dtype = network.layers[-1].dtype_policy
    classifier = CosineClassifier(units, initial_scale, dtype=dtype, name="cosine")
    features = network.layers[-1].input
    return keras.Model(network.input, classifier(features), name=network.name)

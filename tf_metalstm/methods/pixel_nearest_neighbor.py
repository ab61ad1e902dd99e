"""The nearest neighbour in pixels: a baseline without learning.

cos(x, z) = x . z / (|x| |z|)         x, z the normalized pixels of two images
logit of class n = max over support images i of class n of cos(x_i, z)
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.methods.base import Builder
from tf_metalstm.methods.feature_method import FeatureMethod
from tf_metalstm.methods.few_shot import num_classes
from tf_metalstm.methods.metric import LabelledFeatures, cosines, nearest
from tf_metalstm.options import Options
from tf_metalstm.parts import Part


@keras.saving.register_keras_serializable("tf_metalstm")
class PixelNearestNeighbor(FeatureMethod):
    """Compares images pixel by pixel; there is nothing to train."""

    part = Part("pixel_nearest_neighbor", "Nearest neighbour in pixels")
    is_trained: ClassVar[bool] = False
    is_episodic: ClassVar[bool] = False

    def __init__(self, name: str = "pixel_nearest_neighbor", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.built = True

    @classmethod
    def from_options(cls, options: Options, builder: Builder) -> PixelNearestNeighbor:
        del options, builder
        return cls()

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: there are no weights."""

    def features(self, images: Tensor, training: bool = False) -> Tensor:
        """Returns the pixels of images, scaled to length 1."""
        num_images, shape = tf.shape(images)[0], images.shape[1:]
        pixels = tf.reshape(images, [num_images, shape.num_elements()])
        return tf.math.l2_normalize(tf.cast(pixels, self.compute_dtype), axis=-1)

    def summarize(
        self, features: Tensor, labels: Tensor, num_way: Tensor | int
    ) -> LabelledFeatures:
        """Returns the pixels of the support images."""
        return LabelledFeatures(features, tf.identity(labels))

    def compare(
        self, summary: LabelledFeatures, features: Tensor, training: bool = False
    ) -> Tensor:
        """Returns the cosine with the nearest support image of each class, [B, N]."""
        similarities = cosines(summary.features, features)
        return nearest(similarities, summary.labels, num_classes(summary.labels))

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method."""
        return {"name": self.name, "dtype": self.dtype_policy.name}

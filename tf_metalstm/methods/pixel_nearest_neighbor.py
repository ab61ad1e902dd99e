"""The nearest neighbour in pixels: the floor below every method that learns.

cos(x, z) = x . z / (|x| |z|)         x, z the normalized pixels of two images
logit of class n = max over support images i of class n of cos(x_i, z)
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf

from tf_metalstm.episode import Support, Tensor
from tf_metalstm.methods.base import Builder
from tf_metalstm.methods.few_shot import FewShotMethod, num_classes
from tf_metalstm.methods.metric import LabelledFeatures, cosines, nearest
from tf_metalstm.options import Options
from tf_metalstm.parts import Part


@keras.saving.register_keras_serializable("tf_metalstm")
class PixelNearestNeighbor(FewShotMethod):
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
        """Nothing to do: there are no weights."""

    def adapt(self, support: Support, training: bool = False) -> LabelledFeatures:
        """Remembers the support images."""
        return LabelledFeatures(self._features(support.inputs), tf.identity(support.labels))

    def query_outputs(
        self, adapted: LabelledFeatures, query_inputs: Tensor, training: bool = False
    ) -> Tensor:
        """Returns the cosine with the nearest support image of each class, [B, N]."""
        similarities = cosines(adapted.features, self._features(query_inputs))
        return nearest(similarities, adapted.labels, num_classes(adapted.labels))

    def _features(self, images: Tensor) -> Tensor:
        num_images, shape = tf.shape(images)[0], images.shape[1:]
        pixels = tf.reshape(images, [num_images, shape.num_elements()])
        return tf.math.l2_normalize(tf.cast(pixels, self.compute_dtype), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns what makes an equal method."""
        return {"name": self.name, "dtype": self.dtype_policy.name}

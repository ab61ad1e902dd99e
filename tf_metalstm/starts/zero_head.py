"""A last layer of zeros in every task.

Kao, Chiu & Chen, "MAML is a Noisy Contrastive Learner in Classification", ICLR 2022, section 3:

    w_k = 0,  b_k = 0    for every class k

From zeros, the first update of gradient descent makes w_k proportional to the features of class k
minus the mean of all features. So only the support set determines what a class is.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.any_way import AnyWayLearner
from tf_metalstm.parts import Part
from tf_metalstm.starts.head_start import HeadStart, HeadStartOptions


@keras.saving.register_keras_serializable("tf_metalstm")
class ZeroHead(HeadStart):
    """All classes start at zeros. For the arguments see `HeadStart`."""

    part = Part("zero_head", "A last layer of zeros", "Kao et al., ICLR 2022", HeadStartOptions)

    def rows(self, learner: AnyWayLearner, support: Support, num_way: Tensor | int) -> Tensor:
        """Returns zeros, [N, D + 1]."""
        del support
        return tf.zeros([num_way, learner.num_features + 1], learner.dtype)

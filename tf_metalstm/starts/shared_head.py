"""One learned row of the last layer, copied to every class: UNICORN.

Ye & Chao, "How to Train Your MAML to Excel in Few-Shot Classification", ICLR 2022, section 6:

    w_k = w,  b_k = b    for every class k

The meta-gradient of w is the sum over the classes. Before the first update all classes have the
same probability; the gradient of the support set then makes them different.

    paper   code   shape
    w, b    row    [D + 1]
"""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.any_way import AnyWayLearner
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.parts import Part
from tf_metalstm.starts.head_start import HeadStart, HeadStartOptions


@keras.saving.register_keras_serializable("tf_metalstm")
class SharedHead(HeadStart):
    """All classes start at the same learned row. For the arguments see `HeadStart`."""

    part = Part(
        "shared_head", "One learned row for every class", "Ye & Chao, ICLR 2022", HeadStartOptions
    )

    def add_head(self, learner: FunctionalLearner) -> None:
        """Creates the row, with the random weights of the network as initial values."""
        initial = learner.initial_parameters()[learner.num_before_last_layer() :]
        self.row = self.add_weight(
            shape=initial.shape,
            initializer=lambda shape, dtype: tf.constant(initial),
            dtype=learner.dtype,
            name="row",
        )

    def rows(self, learner: AnyWayLearner, support: Support, num_way: Tensor | int) -> Tensor:
        """Returns the row N times, [N, D + 1]."""
        del support
        return tf.tile(tf.convert_to_tensor(self.row)[tf.newaxis], [num_way, 1])

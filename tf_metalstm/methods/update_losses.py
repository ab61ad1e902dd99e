"""The multi-step loss: a weighted sum of the query losses after every update.

Antoniou, Edwards & Storkey, "How to train your MAML", ICLR 2019, section 4, equation 4 (MAML++):

    loss = sum over t of v_t L(queries at theta_t)

At first all v_t are 1/T. Over S meta-updates the weight moves linearly to the last update:

    v_t = max(0, 1 - s / S) / T for t < T,    v_T = 1 minus their sum

    paper     code                 shape
    v_t       update_weights       [T]
    s         meta_updates         []
    S         over                 []
"""

from __future__ import annotations

import tensorflow as tf

from tf_metalstm.episode import Tensor


def update_weights(num_updates: int, meta_updates: Tensor, over: int) -> Tensor:
    """Returns the weights of the losses after each update, float32 [T]; their sum is 1.

    Args:
        num_updates: T, at least 1.
        meta_updates: s, number of meta-updates so far.
        over: S, number of meta-updates after which only the last loss counts.
    """
    left = tf.maximum(0.0, 1.0 - tf.cast(meta_updates, tf.float32) / over)
    others = tf.fill([num_updates - 1], left / num_updates)
    return tf.concat([others, 1.0 - tf.reduce_sum(others, keepdims=True)], axis=0)

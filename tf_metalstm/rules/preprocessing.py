"""The inputs of rules that are LSTMs: two moderate numbers for a gradient of any magnitude.

Andrychowicz et al., NIPS 2016, appendix A; Ravi & Larochelle, ICLR 2017, section 3.2:

    pre(x) = (log|x| / p, sign(x))  where |x| >= exp(-p),  else (-1, exp(p) * x)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.options import Options, option


@dataclass(frozen=True)
class LSTMOptions(Options):
    """Options of every rule that is an LSTM."""

    hidden_units: int = option(
        20, "H, units of each LSTM layer of the rule.", at_least=1, alike=True, settled=True
    )
    preprocessing_scale: float = option(
        10.0, "p, the scale in the preprocessing of gradient and loss.", above=0, alike=True
    )


def preprocess(x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Splits numbers of any magnitude into two of moderate size.

    One expression covers both branches of the paper's definition. Below exp(-p) the
    logarithm is clipped at -1, and the sign becomes exp(p) * x, which is +-1 at exp(-p).
    So the derivative is finite everywhere, as the second order needs.

    Args:
        x: losses or gradients, any shape.
        scale: p; both papers use 10 with this form.

    Returns:
        Magnitude, at least -1, and sign in [-1, 1], each of the shape of x.
    """
    smallest = math.exp(-scale)
    magnitude = tf.math.log(tf.maximum(tf.abs(x), smallest)) / scale
    sign = tf.clip_by_value(x / smallest, -1.0, 1.0)
    return magnitude, sign

"""A start that looks at the support set: two learned vectors, mixed by its brightness."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tf_metalstm import Options, Part, Start, option


@dataclass(frozen=True)
class MixedOptions(Options):
    mixing_slope: float = option(1.0, "Factor on the mean pixel before the sigmoid.", above=0)


class MixedStart(Start):
    """theta_0 = (1 - a) dark + a light, with a = sigmoid(slope * mean pixel of the support set)."""

    part = Part("mixed", "Two learned vectors, mixed by brightness", options=MixedOptions)

    def __init__(self, slope=1.0, name="mixed", **kwargs):
        super().__init__(name=name, **kwargs)
        self.slope = slope

    @classmethod
    def from_options(cls, options):
        return cls(options.mixing_slope)

    def build(self, learner):
        both = np.stack([learner.initial_parameters()] * 2)
        self.dark_and_light = self.add_weight(
            shape=both.shape, initializer=lambda shape, dtype: tf.constant(both), name="both"
        )
        self.built = True

    def theta_0(self, learner, support, num_way):
        dark, light = tf.unstack(tf.convert_to_tensor(self.dark_and_light))
        return dark + tf.sigmoid(self.slope * tf.reduce_mean(support.inputs)) * (light - dark)

    def is_symmetric(self, learner):
        return False  # each output of the last layer has random weights of its own

    def get_config(self):
        return {**super().get_config(), "slope": self.slope}


PARTS = (MixedStart,)

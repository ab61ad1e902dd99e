"""A method: the class whose mean image is nearest, seen through learned weights of the pixels."""

from dataclasses import dataclass

import tensorflow as tf

from tf_metalstm import FewShotMethod, Options, Part, option


@dataclass(frozen=True)
class TemplateOptions(Options):
    sharpness: float = option(1.0, "Factor on the logits.", above=0)


class Templates(FewShotMethod):
    """logit of class c = -sharpness * mean over pixels of w * (query - mean image of c)^2."""

    part = Part("templates", "Mean images", options=TemplateOptions)

    def __init__(self, input_shape, sharpness, **kwargs):
        super().__init__(name="templates", **kwargs)
        self.sharpness = sharpness
        self.pixel_weights = self.add_weight(shape=input_shape, initializer="ones", name="pixels")
        self.built = True

    @classmethod
    def from_options(cls, options, builder):
        return cls(builder.tasks.input_shape, options.sharpness)

    def adapt(self, support, training=False):
        of_class = tf.one_hot(support.labels, tf.reduce_max(support.labels) + 1)
        sums = tf.einsum("bn,bhwc->nhwc", of_class, support.inputs)
        return {"templates": sums / tf.reduce_sum(of_class, 0)[:, None, None, None]}

    def query_outputs(self, adapted, query_inputs, training=False):
        difference = query_inputs[:, None] - adapted["templates"]
        squares = self.pixel_weights * tf.square(difference)
        return -self.sharpness * tf.reduce_mean(squares, axis=[2, 3, 4])


PARTS = (Templates,)

"""A rule: every coordinate moves by the sign of its gradient, each tensor at a rate of its own."""

from dataclasses import dataclass

import keras
import tensorflow as tf

from tf_metalstm import Options, Part, Rule, option


@dataclass(frozen=True)
class SignOptions(Options):
    sign_rate: float = option(
        0.1, "Step size at which the learned rates start.", above=0, training_only=True
    )


@keras.saving.register_keras_serializable("my_rule")
class SignDescent(Rule):
    """theta <- theta - rate * sign(gradient); the rates [number of tensors] are learned."""

    part = Part("sign_descent", "Descent by the sign", options=SignOptions)

    def __init__(self, rate=0.1, name="sign_descent", **kwargs):
        super().__init__(name=name, **kwargs)
        self.rate = rate

    @classmethod
    def from_options(cls, options):
        return cls(options.sign_rate)

    def build(self, blocks):
        initial = keras.initializers.Constant(self.rate)
        self.rates = self.add_weight(shape=(len(blocks),), initializer=initial, name="rates")
        self.sizes = [block.size for block in blocks]
        self.built = True

    def initial_state(self, theta):
        return ()

    def call(self, gradient, loss, theta, state):
        rates = tf.repeat(tf.convert_to_tensor(self.rates), self.sizes)
        return theta - rates * tf.sign(gradient), state

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


PARTS = (SignDescent,)

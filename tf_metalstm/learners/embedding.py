"""A learner's network without its linear layer: from images to features."""

from __future__ import annotations

import keras


def embedding_of(network: keras.Model) -> keras.Model:
    """Returns the part of a network that ends before its last layer; it shares the weights.

    Args:
        network: images -> logits, its last layer a linear one.

    Returns:
        A model, images [B, ...] -> features [B, D].
    """
    return keras.Model(network.input, network.layers[-1].input, name=f"{network.name}_embedding")

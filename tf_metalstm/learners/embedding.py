"""Networks without their linear layer: from images to features, or to feature maps."""

from __future__ import annotations

import keras

_TO_FEATURES = (keras.layers.Flatten, keras.layers.GlobalAveragePooling2D)


def embedding_of(network: keras.Model) -> keras.Model:
    """Returns a network without its last layer.

    Args:
        network: images -> logits; its last layer is linear.

    Returns:
        A model, images [B, ...] -> features [B, D], which shares the weights.
    """
    return keras.Model(network.input, network.layers[-1].input, name=f"{network.name}_embedding")


def maps_of(network: keras.Model) -> keras.Model:
    """Returns a network without its last two layers, so that it returns feature maps.

    Args:
        network: images -> logits; a layer before the linear one turns maps into vectors.

    Returns:
        A model, images [B, ...] -> maps [B, h, w, c], which shares the weights.

    Raises:
        ValueError: the network has no maps.
    """
    if len(network.layers) < 2 or not isinstance(network.layers[-2], _TO_FEATURES):
        raise ValueError(
            f"The method needs feature maps, but the network {network.name} has none before its "
            "last layer: use learner=conv4."
        )
    return keras.Model(network.input, network.layers[-2].input, name=f"{network.name}_maps")

"""A learner's network without its linear layer: from images to features, or to maps of them."""

from __future__ import annotations

import keras

_TO_FEATURES = (keras.layers.Flatten, keras.layers.GlobalAveragePooling2D)


def embedding_of(network: keras.Model) -> keras.Model:
    """Returns the part of a network that ends before its last layer; it shares the weights.

    Args:
        network: images -> logits, its last layer a linear one.

    Returns:
        A model, images [B, ...] -> features [B, D].
    """
    return keras.Model(network.input, network.layers[-1].input, name=f"{network.name}_embedding")


def maps_of(network: keras.Model) -> keras.Model:
    """Returns the part of a network that ends before its maps become features.

    Args:
        network: images -> logits, a layer that makes vectors of maps before its linear one.

    Returns:
        A model, images [B, ...] -> maps [B, h, w, c]; it shares the weights.

    Raises:
        ValueError: the network has no maps.
    """
    if len(network.layers) < 2 or not isinstance(network.layers[-2], _TO_FEATURES):
        raise ValueError(
            f"The network {network.name} has no maps before its last layer, which are needed here: "
            "use learner=conv4."
        )
    return keras.Model(network.input, network.layers[-2].input, name=f"{network.name}_maps")

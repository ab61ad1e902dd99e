"""Few-shot methods: Keras models over episodes."""

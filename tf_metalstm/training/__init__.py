"""The outer loop: Keras `fit`, with checkpoints, logs and validation around it."""

"""The outer loop: Keras fit with what a run needs around it."""

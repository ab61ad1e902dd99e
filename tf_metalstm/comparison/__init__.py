"""Compares a learned optimizer with Keras's optimizers at their best learning rates."""

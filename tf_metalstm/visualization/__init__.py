"""Figures and TensorBoard summaries of the updates of a trained rule."""

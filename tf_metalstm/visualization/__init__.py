"""Figures and TensorBoard summaries of what a trained rule does."""

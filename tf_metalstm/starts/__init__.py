"""Starts: where the parameters of a learner begin in each task."""

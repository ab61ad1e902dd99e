"""Starts: they give the first parameters of a learner in each task."""

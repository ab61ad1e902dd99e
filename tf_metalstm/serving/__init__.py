"""Exports a trained method: signatures, a SavedModel, an adapted classifier."""

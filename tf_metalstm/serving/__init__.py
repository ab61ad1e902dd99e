"""What a trained method becomes outside: signatures, a SavedModel, a classifier in Python."""

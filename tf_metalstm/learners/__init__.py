"""The networks that are adapted, and Keras models as functions of a flat parameter vector."""

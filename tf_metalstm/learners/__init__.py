"""Networks that are adapted, and a Keras model as a function of a flat parameter vector."""

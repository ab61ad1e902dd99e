"""Few-shot learning with learned update rules, on TensorFlow and Keras."""

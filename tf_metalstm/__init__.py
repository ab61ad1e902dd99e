"""Few-shot learning with learned update rules, on TensorFlow and Keras."""

import os

# TensorFlow reads this once, when it is first imported, and would otherwise greet every command
# with a page about the processor. Who wants to read that sets the variable to 0.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

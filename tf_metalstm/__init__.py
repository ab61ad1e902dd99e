"""Few-shot learning with learned update rules, on TensorFlow and Keras."""

import os

# TensorFlow reads both once, when it is first imported; what the user has set stays.
# Without oneDNN, which TensorFlow switches off by itself on processors without AVX-512, a
# meta-update at 84 x 84 took twice the processor time.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Otherwise every command begins with a page about the processor. 0 shows it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

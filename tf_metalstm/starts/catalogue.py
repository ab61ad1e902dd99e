"""The starts."""

from tf_metalstm.parts import Family
from tf_metalstm.starts.c_0 import LearnedStart

STARTS = Family("start", "Where the learner's parameters begin in each task.", (LearnedStart,))

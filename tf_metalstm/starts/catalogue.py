"""The starts."""

from tf_metalstm.parts import Family
from tf_metalstm.starts.c_0 import LearnedStart
from tf_metalstm.starts.prototypes import PrototypeStart
from tf_metalstm.starts.ridge import RidgeStart
from tf_metalstm.starts.shared_head import SharedHead
from tf_metalstm.starts.zero_head import ZeroHead

STARTS = Family(
    "start",
    "The first parameters of the learner in each task.",
    (LearnedStart, SharedHead, ZeroHead, PrototypeStart, RidgeStart),
)

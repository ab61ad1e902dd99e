"""The learners."""

from tf_metalstm.learners.conv4 import Conv4
from tf_metalstm.learners.efficientnet_lite0 import EfficientNetLite0
from tf_metalstm.learners.keras_application import KerasApplication
from tf_metalstm.learners.keras_model import KerasModel
from tf_metalstm.learners.mlp import MLP
from tf_metalstm.parts import Family

LEARNERS = Family(
    "learner",
    "The network that is adapted, or whose features are compared.",
    (Conv4, MLP, EfficientNetLite0, KerasApplication, KerasModel),
)

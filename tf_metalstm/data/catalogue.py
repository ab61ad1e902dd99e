"""The sources of tasks."""

from tf_metalstm.data.classical_functions import ClassicalFunctionTasks
from tf_metalstm.data.networks import NetworkTasks
from tf_metalstm.data.quadratics import QuadraticTasks
from tf_metalstm.data.sine import SineTasks
from tf_metalstm.data.sources.folder import Folder
from tf_metalstm.data.sources.glyphs import Glyphs
from tf_metalstm.data.sources.mini_imagenet import MiniImagenet
from tf_metalstm.data.sources.omniglot import Omniglot
from tf_metalstm.data.sources.omniglot_stream import OmniglotStream
from tf_metalstm.data.sources.omniglot_trials import OmniglotTrials
from tf_metalstm.data.sources.tfds_images import TfdsImages
from tf_metalstm.parts import Family

SOURCES = Family(
    "source",
    "Where tasks come from: images, functions or optimization problems.",
    (
        Glyphs,
        Omniglot,
        MiniImagenet,
        Folder,
        TfdsImages,
        OmniglotTrials,
        OmniglotStream,
        SineTasks,
        QuadraticTasks,
        NetworkTasks,
        ClassicalFunctionTasks,
    ),
)

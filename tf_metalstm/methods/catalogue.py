"""The methods."""

from tf_metalstm.methods.fine_tuning import FineTuning
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.methods.head_adaptation import HeadAdaptation
from tf_metalstm.methods.learned_optimizer import LearnedOptimizerMethod
from tf_metalstm.methods.logistic_regression import LogisticRegression
from tf_metalstm.methods.matching_networks import MatchingNetworks
from tf_metalstm.methods.memory_augmented import MemoryAugmentedNetwork
from tf_metalstm.methods.nearest_neighbor import NearestNeighbor
from tf_metalstm.methods.outer_product_lstm import OuterProductLSTM
from tf_metalstm.methods.pixel_nearest_neighbor import PixelNearestNeighbor
from tf_metalstm.methods.prototypical_networks import PrototypicalNetworks
from tf_metalstm.methods.relation_networks import RelationNetworks
from tf_metalstm.methods.ridge_regression import RidgeRegression
from tf_metalstm.methods.siamese_networks import SiameseNetworks
from tf_metalstm.parts import Family

METHODS = Family(
    "method",
    "How a task is learned.",
    (
        GradientBasedMethod,
        NearestNeighbor,
        PixelNearestNeighbor,
        MatchingNetworks,
        PrototypicalNetworks,
        SiameseNetworks,
        RelationNetworks,
        RidgeRegression,
        LogisticRegression,
        FineTuning,
        HeadAdaptation,
        OuterProductLSTM,
        MemoryAugmentedNetwork,
        LearnedOptimizerMethod,
    ),
)

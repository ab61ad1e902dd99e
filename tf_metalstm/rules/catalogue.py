"""The update rules."""

from tf_metalstm.parts import Family
from tf_metalstm.rules.celo import Celo
from tf_metalstm.rules.classic import Adam, Momentum, RMSprop
from tf_metalstm.rules.hierarchical_rnn import HierarchicalRNN
from tf_metalstm.rules.layer_sgd import LayerSGD
from tf_metalstm.rules.lstm_optimizer import LSTMOptimizer
from tf_metalstm.rules.meta_lstm import MetaLSTM
from tf_metalstm.rules.meta_sgd import MetaSGD
from tf_metalstm.rules.sgd import SGD

RULES = Family(
    "rule",
    "How the learner's parameters move.",
    (
        MetaLSTM,
        SGD,
        MetaSGD,
        LayerSGD,
        LSTMOptimizer,
        HierarchicalRNN,
        Celo,
        Adam,
        Momentum,
        RMSprop,
    ),
)

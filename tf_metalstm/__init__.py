"""Few-shot learning with learned update rules, on TensorFlow and Keras."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tf_metalstm import startup

startup.prepare()

if TYPE_CHECKING:
    from tf_metalstm.adaptation import InnerLoop, unroll, unroll_in_loop
    from tf_metalstm.catalogue import add_part
    from tf_metalstm.classifier import FewShotClassifier
    from tf_metalstm.data.tasks import EpisodeTasks, ImageTasks, ProblemTasks, Tasks
    from tf_metalstm.episode import EpisodeSpec, Support
    from tf_metalstm.keras_optimizer import LearnedOptimizer
    from tf_metalstm.learners.base import Learner
    from tf_metalstm.learners.functional import FunctionalLearner
    from tf_metalstm.methods.base import Method
    from tf_metalstm.methods.few_shot import FewShotMethod
    from tf_metalstm.methods.gradient_based import GradientBasedMethod
    from tf_metalstm.methods.learned_optimizer import LearnedOptimizerMethod
    from tf_metalstm.methods.matching_networks import MatchingNetworks
    from tf_metalstm.methods.nearest_neighbor import NearestNeighbor
    from tf_metalstm.methods.prototypical_networks import PrototypicalNetworks
    from tf_metalstm.options import OptionError, Options, option
    from tf_metalstm.parts import Part
    from tf_metalstm.problems import Problem, SupportProblem
    from tf_metalstm.rules.base import Rule
    from tf_metalstm.rules.celo import Celo
    from tf_metalstm.rules.hierarchical_rnn import HierarchicalRNN
    from tf_metalstm.rules.meta_lstm import MetaLSTM
    from tf_metalstm.rules.meta_sgd import MetaSGD
    from tf_metalstm.rules.sgd import SGD
    from tf_metalstm.settings import Settings, make_settings
    from tf_metalstm.starts.base import Start

# Name -> the module that it is in, imported when it is first asked for: importing the package must
# not import TensorFlow, so that the variables above are set in time, and help is quick.
_PUBLIC = {
    "Celo": "rules.celo",
    "EpisodeSpec": "episode",
    "EpisodeTasks": "data.tasks",
    "FewShotClassifier": "classifier",
    "FewShotMethod": "methods.few_shot",
    "FunctionalLearner": "learners.functional",
    "GradientBasedMethod": "methods.gradient_based",
    "ImageTasks": "data.tasks",
    "HierarchicalRNN": "rules.hierarchical_rnn",
    "InnerLoop": "adaptation",
    "LearnedOptimizer": "keras_optimizer",
    "LearnedOptimizerMethod": "methods.learned_optimizer",
    "Learner": "learners.base",
    "MatchingNetworks": "methods.matching_networks",
    "MetaLSTM": "rules.meta_lstm",
    "MetaSGD": "rules.meta_sgd",
    "Method": "methods.base",
    "NearestNeighbor": "methods.nearest_neighbor",
    "OptionError": "options",
    "Options": "options",
    "Part": "parts",
    "Problem": "problems",
    "ProblemTasks": "data.tasks",
    "PrototypicalNetworks": "methods.prototypical_networks",
    "Rule": "rules.base",
    "SGD": "rules.sgd",
    "Settings": "settings",
    "Start": "starts.base",
    "Support": "episode",
    "SupportProblem": "problems",
    "Tasks": "data.tasks",
    "add_part": "catalogue",
    "make_settings": "settings",
    "option": "options",
    "unroll": "adaptation",
    "unroll_in_loop": "adaptation",
}

__all__ = [
    "SGD",
    "Celo",
    "EpisodeSpec",
    "EpisodeTasks",
    "FewShotClassifier",
    "FewShotMethod",
    "FunctionalLearner",
    "GradientBasedMethod",
    "HierarchicalRNN",
    "ImageTasks",
    "InnerLoop",
    "LearnedOptimizer",
    "LearnedOptimizerMethod",
    "Learner",
    "MatchingNetworks",
    "MetaLSTM",
    "MetaSGD",
    "Method",
    "NearestNeighbor",
    "OptionError",
    "Options",
    "Part",
    "Problem",
    "ProblemTasks",
    "PrototypicalNetworks",
    "Rule",
    "Settings",
    "Start",
    "Support",
    "SupportProblem",
    "Tasks",
    "add_part",
    "make_settings",
    "option",
    "unroll",
    "unroll_in_loop",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Methods that adapt by gradient: a learner, a rule and a start in the inner loop.

The weights of the rule and the initial parameters c_0 are trained together on the loss of the
queries. c_0 may start from a network that was trained in another way, and may stay fixed.
The rule determines which method it is:

    rule       second_order   method
    MetaLSTM   no             the meta-learner LSTM, Ravi & Larochelle, ICLR 2017, algorithm 1
    SGD        yes            MAML, Finn et al., ICML 2017
    SGD        no             first-order MAML; with no meta-training, fine-tuning
    MetaSGD    yes            Meta-SGD, Li et al., 2017

If the start makes a row of the last layer for each class, the method takes any number of classes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_metalstm.adaptation import (
    BatchOptions,
    InnerLoop,
    InnerLoopOptions,
    unroll,
    unroll_in_loop,
    unroll_with_states,
)
from tf_metalstm.data.tasks import FUNCTIONS, IMAGES
from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.learners.second_order import check_second_order
from tf_metalstm.learners.stateless import frozen_variables
from tf_metalstm.methods.base import LOSSES, Builder, Method, TrainedOptions, copy_weights
from tf_metalstm.methods.few_shot import FewShotMethod, num_classes
from tf_metalstm.methods.update_losses import update_weights
from tf_metalstm.objectives import CLASSIFICATION, OBJECTIVES, Objective
from tf_metalstm.options import OptionError, option
from tf_metalstm.parameters import Blocks
from tf_metalstm.parts import Part
from tf_metalstm.problems import GRADIENT_DIVISORS, SupportProblem
from tf_metalstm.rules.base import Rule
from tf_metalstm.starts.base import Start
from tf_metalstm.starts.c_0 import LearnedStart

QUERY_NORMALIZATIONS = ("running", "support", "batch")
TRANSDUCTIVE = "transductive (queries normalized with each other)"
SUPPORT_NORMALIZATIONS = ("batch", "training")
TRAINING_QUERIES = ("batch", "as_after")


@dataclass(frozen=True)
class GradientBasedOptions(TrainedOptions, InnerLoopOptions, BatchOptions):
    """Options of methods that adapt by gradient."""

    gradient_divisor: str = option(
        "none",
        "With batch_size: divide the gradient of the mean loss once more by the number of images "
        "of the update.",
        choices=GRADIENT_DIVISORS,
    )
    query_normalization: str = option(
        "running",
        "Statistics of batch norm for queries outside training: the running ones of the episode "
        "(running), those after one more support pass (support), or those of the queries (batch). "
        "The first two are inductive, the last one is transductive.",
        choices=QUERY_NORMALIZATIONS,
        only_with={"support_normalization": "batch"},
    )
    support_normalization: str = option(
        "batch",
        "Statistics of batch norm in support passes: those of the support images (batch), or the "
        "running ones of the training (training), which are then used for all queries too.",
        choices=SUPPORT_NORMALIZATIONS,
        alike=True,
        settled=True,
    )
    training_queries: str = option(
        "batch",
        "Statistics of batch norm for queries in training: those of the queries, as in the paper "
        "(batch), or the same as outside training (as_after).",
        choices=TRAINING_QUERIES,
        training_only=True,
        only_with={"support_normalization": "batch"},
    )
    update_loss_steps: int = option(
        0,
        "S: in the first S meta-updates the loss is a weighted sum of the query losses after each "
        "update of the inner loop; the weight moves to the last update (MAML++). 0: only the loss "
        "after the last update.",
        at_least=0,
        training_only=True,
    )
    vectorize_episodes: bool = option(
        False,
        "Compute the E episodes of a step as one batch: faster for tiny learners without "
        "convolutions.",
        training_only=True,
    )


class Adapted(NamedTuple):
    """A learner after the inner loop.

    theta: theta_T, [P].
    statistics: batch-norm statistics for the queries, [S].
    """

    theta: Tensor
    statistics: Tensor


@keras.saving.register_keras_serializable("tf_metalstm")
class GradientBasedMethod(FewShotMethod):
    """Adapts the parameters of a learner to the support set by T updates of a rule.

    Its trainable weights are those of the rule and of the start, such as c_0 [P].

    Batch normalization of the queries in validation, test and export, `query_normalization`:

    - "running": the running statistics of this episode, collected by its support passes at
      theta_0 ... theta_{T-1}. Inductive; the paper does this. With T = 0 there are none, and it
      does the same as "support".
    - "support": as "running", after one more support pass at theta_T. Inductive too: a query
      is still classified by itself, with statistics that belong to the final parameters.
    - "batch": the moments of all queries together. *Transductive*: the answer to one query
      depends on the others.

    In meta-training the queries use their batch moments, as in the paper. With
    `training_queries` "as_after" they use the same statistics as outside meta-training.

    `support_normalization` "training" replaces all this: all support passes and queries are
    normalized by the running statistics of the training, in meta-training and after it. These
    are a weight. It starts at the statistics of the network that the run starts from, and the
    queries of each training episode move it by the momentum. With a momentum of 1 it stays.

    Args:
        learner: the network that is adapted.
        rule: the rule that updates its parameters; it is built here.
        inner_loop: options of the inner loop, such as the number of updates.
        query_normalization: see above.
        start: gives the first parameters; it is built here. None for c_0.
        num_evaluation_steps: updates outside meta-training; None for the same number.
        batch_size: support images of an update, see `SupportProblem`.
        gradient_divisor: see `SupportProblem`.
        support_normalization: "batch" or "training", see above.
        training_way: N of the training episodes, if it is the same for all and the start makes a
            row for each class; the compiled training step needs it.
        objective: the loss and the score of an episode.
        training_queries: "batch" or "as_after", see above.
        update_loss_steps: S of `methods/update_losses.py`; 0 for the loss after the last update.
        vectorize_episodes: see `FewShotMethod`.
        name: of the model.
    """

    part = Part(
        "gradient_based",
        "Adaptation by gradient (meta-LSTM, MAML, Meta-SGD, fine-tuning)",
        "Ravi & Larochelle, ICLR 2017",
        GradientBasedOptions,
        needs=("learner", "rule", "start"),
    )
    kinds: ClassVar[tuple[str, ...]] = (IMAGES, FUNCTIONS)
    starts_from: ClassVar[tuple[str, ...]] = ("nearest_neighbor", "prototypical_networks")
    idle_after_training: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        learner: FunctionalLearner,
        rule: Rule,
        inner_loop: InnerLoop,
        query_normalization: str = "running",
        *,
        start: Start | None = None,
        num_evaluation_steps: int | None = None,
        batch_size: int | None = None,
        gradient_divisor: str = "none",
        support_normalization: str = "batch",
        training_way: int | None = None,
        objective: Objective = CLASSIFICATION,
        training_queries: str = "batch",
        update_loss_steps: int = 0,
        vectorize_episodes: bool = False,
        name: str = "gradient_based_method",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            objective, vectorize_episodes, name=name, **{"dtype": learner.dtype, **kwargs}
        )
        if query_normalization not in QUERY_NORMALIZATIONS:
            raise OptionError(
                "query_normalization",
                f"must be one of {', '.join(QUERY_NORMALIZATIONS)}, got {query_normalization!r}.",
            )
        if support_normalization not in SUPPORT_NORMALIZATIONS:
            raise OptionError(
                "support_normalization",
                f"must be one of {', '.join(SUPPORT_NORMALIZATIONS)}, got "
                f"{support_normalization!r}.",
            )
        _check_vectorized(vectorize_episodes, learner, inner_loop)
        if inner_loop.second_order:
            check_second_order(learner.model)
        self.learner = learner
        self.inner_loop = inner_loop
        self.evaluation_loop = inner_loop.with_steps(num_evaluation_steps)
        self.support_normalization = support_normalization
        self.query_normalization: str | None = query_normalization
        self.statistics: Any = None
        if support_normalization == "training":
            self.query_normalization = None  # there is no choice
            self._keep_statistics(vectorize_episodes)
        if update_loss_steps and not inner_loop.num_steps:
            raise OptionError("update_loss_steps", "needs updates: leave it out with num_steps=0.")
        if training_queries not in TRAINING_QUERIES:
            raise OptionError(
                "training_queries",
                f"must be one of {', '.join(TRAINING_QUERIES)}, got {training_queries!r}.",
            )
        self.training_queries = training_queries
        self.update_loss_steps = update_loss_steps
        self.training_way = training_way
        self.batch_size, self.gradient_divisor = batch_size, gradient_divisor
        self._problem(Support(tf.zeros([1]), tf.zeros([1])))  # checks them
        if not rule.takes_rows and any(block.per_class for block in learner.parameter_blocks):
            raise OptionError(
                "rule",
                f"{rule.part.name} needs a fixed number of parameters, and this start makes a row "
                "of the last layer for each class: use start=c_0, or another rule.",
            )
        if not rule.built:
            rule.build(learner.parameter_blocks)
        start = LearnedStart(dtype=learner.dtype) if start is None else start
        if start.any_way and not objective.has_classes:
            raise OptionError(
                "start",
                f"{start.part.name} makes a row of the last layer for each class, and these tasks "
                "have none: use start=c_0.",
            )
        if start.any_way and vectorize_episodes:
            raise OptionError(
                "vectorize_episodes",
                f"needs the same number of classes in all episodes, but start={start.part.name} "
                "takes any number: leave it out, or use start=c_0.",
            )
        if not start.built:
            start.build(learner)
        # Keep this order: the optimizer's state in a checkpoint has the order of the weights.
        self.start, self.rule = start, rule
        # Weights of layers outside theta: as attributes they get into checkpoints and exports.
        self.frozen = frozen_variables(learner.model)
        self.built = True

    @classmethod
    def from_options(cls, options: GradientBasedOptions, builder: Builder) -> GradientBasedMethod:
        start = builder.start()
        num_outputs = 1 if start.any_way else builder.num_outputs(start.num_outputs)
        network = builder.network(num_outputs, _momentum(options))
        return cls(
            start.learner(network, options.second_order),
            builder.rule(),
            options.inner_loop(),
            options.query_normalization,
            start=start,
            num_evaluation_steps=options.num_evaluation_steps,
            batch_size=options.support_batch_size,
            gradient_divisor=options.gradient_divisor,
            support_normalization=options.support_normalization,
            training_way=builder.tasks.training_way if start.any_way else None,
            objective=OBJECTIVES[builder.tasks.objective],
            training_queries=options.training_queries,
            update_loss_steps=options.update_loss_steps,
            vectorize_episodes=options.vectorize_episodes,
        )

    @classmethod
    def settled(cls, options: GradientBasedOptions, tasks: Any) -> dict[str, Any]:
        """Returns the number of outputs of a learner with a fixed number, and the momentum."""
        return {"num_outputs": tasks.num_outputs, "statistics_momentum": _momentum(options)}

    def begin(self, pretrained: Method | None) -> None:
        """Starts from another run of this method, or from a network trained on all classes."""
        whole = isinstance(pretrained, GradientBasedMethod)
        if whole:
            copy_weights(self.weights, pretrained)
        network = None if whole or pretrained is None else pretrained.network
        if network is not None and self.statistics is not None:
            trained = {weight.path: weight for weight in network.weights}
            statistics = [trained[block.name] for block in self.learner.statistics_blocks]
            self.statistics.assign(
                np.concatenate([keras.ops.convert_to_numpy(x) for x in statistics])
            )
        self.start.begin(self.learner, network, whole)

    @property
    def c_0(self) -> keras.Variable:
        """The learned first parameters, [P]."""
        return self.start.c_0

    @property
    def keeps_statistics(self) -> bool:
        """Whether the running statistics belong to the training; else they belong to an episode."""
        return self.statistics is not None

    @property
    def blocks(self) -> Blocks:
        """The tensors of theta."""
        return self.learner.parameter_blocks

    @property
    def is_symmetric(self) -> bool:
        """Whether start, rule and the order of the support images treat all classes alike."""
        alike = self.rule.treats_coordinates_alike or self.start.any_way
        return alike and self.batch_size is None and self.start.is_symmetric(self.learner)

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: no weight depends on the shape of an episode."""

    @property
    def num_outputs(self) -> int | None:
        """N, the number of logits of the learner; None for any number of classes."""
        return None if self.start.any_way else self.learner.num_outputs

    @property
    def num_updates(self) -> int:
        """T outside meta-training."""
        return self.evaluation_loop.num_steps

    def one_episode(self, episode: dict[str, Tensor], training: bool) -> Tensor:
        """Adapts and answers the queries, [B, N]; [T, B, N] in training by `update_loss_steps`."""
        if not training:
            return super().one_episode(episode, training)
        support = Support(episode["support_inputs"], episode["support_labels"])
        queries = episode["query_inputs"]
        if self.update_loss_steps:
            after = self._after_each_update(support)
        else:
            after = [self.adapt(support, training=True)]
        outputs = [self.query_outputs(adapted, queries, training=True) for adapted in after]
        if self.statistics is not None and self.learner.moves_statistics:
            theta = tf.stop_gradient(after[-1].theta)
            self.statistics.assign(self.learner.moved_statistics(theta, queries))
        return tf.stack(outputs) if self.update_loss_steps else outputs[0]

    def _after_each_update(self, support: Support) -> list[Adapted]:
        """Returns the learner after each update, in training."""
        theta_0 = self.start.theta_0(self.learner, support, self._num_way(support.labels, True))
        problem = self._problem(support)
        _, states = unroll_with_states(self.rule, problem, theta_0, self.inner_loop)
        after = [Adapted(state.theta, state.carry) for state in states]
        return [
            each._replace(statistics=self._statistics(each, support, number))
            for number, each in enumerate(after, 1)
        ]

    def training_loss(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Returns the query loss; with `update_loss_steps` a sum over updates. A scalar."""
        if not self._has_each_update(labels, outputs):
            return super().training_loss(labels, outputs)
        steps = tf.unstack(outputs, num=self.inner_loop.num_steps, axis=1)
        losses = tf.stack([self.objective.loss(labels, each) for each in steps])
        optimizer = getattr(self, "optimizer", None)  # set by `compile`
        meta_updates = 0 if optimizer is None else tf.convert_to_tensor(optimizer.iterations)
        weights = update_weights(len(steps), meta_updates, self.update_loss_steps)
        return tf.reduce_sum(tf.cast(weights, losses.dtype) * losses)

    def compute_metrics(
        self, x: Any, y: Tensor, y_pred: Tensor, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Returns the metrics of the outputs after the last update."""
        if self._has_each_update(y, y_pred):
            y_pred = y_pred[:, -1]
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _has_each_update(self, labels: Tensor, outputs: Tensor) -> bool:
        """Returns whether there are outputs after each update. Validation only has the last."""
        return len(outputs.shape) > len(labels.shape) + self.objective.has_classes

    def adapt(self, support: Support, training: bool = False) -> Adapted:
        """Returns the learner after T updates on the support set of one episode."""
        return self._adapted(support, training, None)[0]

    def adapt_and_trace(
        self, support: Support, num_steps: Tensor | None = None
    ) -> tuple[Adapted, dict[str, Tensor]]:
        """Returns also the support losses [T] and the trace of the rule, [T, ...]."""
        return self._adapted(support, False, num_steps)

    def _adapted(
        self, support: Support, training: bool, num_steps: Tensor | None
    ) -> tuple[Adapted, dict[str, Tensor]]:
        loop = self.inner_loop if training else self.evaluation_loop
        theta_0 = self.start.theta_0(self.learner, support, self._num_way(support.labels, training))
        problem = self._problem(support)
        if num_steps is None:
            unrolled = unroll(self.rule, problem, theta_0, loop)
        else:
            unrolled = unroll_in_loop(self.rule, problem, theta_0, loop, num_steps)
        num_updates = loop.num_steps if num_steps is None else num_steps
        adapted = Adapted(unrolled.theta, unrolled.carry)
        trace = {LOSSES: unrolled.trajectory.losses, **unrolled.trajectory.traces}
        return adapted._replace(statistics=self._statistics(adapted, support, num_updates)), trace

    def _num_way(self, labels: Tensor, training: bool) -> Tensor | int:
        if not self.start.any_way:
            return self.learner.num_outputs
        known = self.training_way if training else None
        return num_classes(labels) if known is None else known

    def _keep_statistics(self, vectorize_episodes: bool) -> None:
        """Creates the running statistics of the training."""
        if vectorize_episodes:
            raise OptionError(
                "vectorize_episodes",
                "does not go with support_normalization=training, whose statistics the episodes "
                "move one after the other: leave one of the two out.",
            )
        if not self.learner.num_statistics:
            raise OptionError(
                "support_normalization",
                "is training, but the learner has no batch norm: leave it out.",
            )
        initial = self.learner.initial_statistics()
        self.statistics = self.learner.trained_statistics = self.add_weight(
            shape=initial.shape,
            initializer=lambda shape, dtype: tf.constant(initial),
            dtype=self.learner.dtype,
            trainable=False,
            name="statistics",
        )

    def _problem(self, support: Support) -> SupportProblem:
        return SupportProblem(
            self.learner, support, self.objective.loss, self.batch_size, self.gradient_divisor
        )

    def _statistics(self, adapted: Adapted, support: Support, num_steps: int | Tensor) -> Tensor:
        """Returns the statistics [S] that queries are normalized by."""

        def one_more_pass() -> Tensor:
            return self.learner.apply(*adapted, support.inputs, training=True)[1]

        if self.query_normalization == "batch" or not self.learner.num_statistics:
            return adapted.statistics
        if self.query_normalization == "support":
            return one_more_pass()
        if isinstance(num_steps, int):
            return adapted.statistics if num_steps else one_more_pass()
        return tf.cond(num_steps < 1, one_more_pass, lambda: adapted.statistics)

    def query_outputs(
        self, adapted: Adapted, query_inputs: Tensor, training: bool = False
    ) -> Tensor:
        """Returns the outputs [B, N] for queries [B, ...]."""
        by_batch = training and self.training_queries == "batch"
        by_batch = by_batch or self.query_normalization == "batch"
        outputs, _ = self.learner.apply(*adapted, query_inputs, training=by_batch)
        return outputs

    @property
    def transductive_mode(self) -> str | None:
        """The name of the mode, unless the method is transductive anyway."""
        has_one = self.learner.num_statistics and self.training_queries == "batch"
        others = ("running", "support")
        return TRANSDUCTIVE if has_one and self.query_normalization in others else None

    def describe_normalization(self) -> str:
        """Returns the batch-norm mode in words, for reports."""
        if not self.learner.num_statistics:
            return "none"
        if self.statistics is not None:
            return "inductive (running statistics of the training)"
        if self.query_normalization == "running" and self.num_updates == 0:
            return "inductive (statistics of the support set)"
        return {
            "running": "inductive (running statistics of the episode)",
            "support": "inductive (statistics of one more support pass)",
            "batch": TRANSDUCTIVE,
        }[str(self.query_normalization)]

    def facts(self) -> dict[str, Any]:
        """Returns rule, learner and number of parameters."""
        return {
            "rule": type(self.rule).__name__,
            "start": type(self.start).__name__,
            "learner": self.learner.model.name,
            **self.learner.facts(),
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method with fresh weights."""
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "network": keras.saving.serialize_keras_object(self.learner.model),
            "rule": keras.saving.serialize_keras_object(self.rule),
            "start": keras.saving.serialize_keras_object(self.start),
            "inner_loop": dataclasses.asdict(self.inner_loop),
            "num_evaluation_steps": self.evaluation_loop.num_steps,
            "query_normalization": self.query_normalization or QUERY_NORMALIZATIONS[0],
            "support_normalization": self.support_normalization,
            "training_way": self.training_way,
            "batch_size": self.batch_size,
            "gradient_divisor": self.gradient_divisor,
            "objective": self.objective.name,
            "training_queries": self.training_queries,
            "update_loss_steps": self.update_loss_steps,
            "vectorize_episodes": self.vectorize_episodes,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> GradientBasedMethod:
        """Returns a method from what `get_config` returned."""
        config = dict(config)
        network, rule, start = (
            keras.saving.deserialize_keras_object(config.pop(name), custom_objects)
            for name in ("network", "rule", "start")
        )
        inner_loop = InnerLoop(**config.pop("inner_loop"))
        config["objective"] = OBJECTIVES[config["objective"]]
        return cls(start.learner(network), rule, inner_loop, start=start, **config)


def _momentum(options: GradientBasedOptions) -> float:
    """Returns the momentum of running statistics, or its default."""
    # An episode has few passes, so each must count in its statistics.
    return 0.05 if options.support_normalization == "batch" else 0.99


def _check_vectorized(
    vectorize_episodes: bool, learner: FunctionalLearner, inner_loop: InnerLoop
) -> None:
    if not vectorize_episodes:
        return
    if any(len(block.shape) == 4 for block in learner.parameter_blocks):
        raise OptionError(
            "vectorize_episodes",
            "cannot give each episode convolutions of its own: leave it out, or use learner=mlp.",
        )
    if inner_loop.recompute:
        # tf.vectorized_map drops the gradient that tf.recompute_grad defines.
        raise OptionError(
            "recompute",
            "does not go with vectorize_episodes: episodes that are treated as one batch are too "
            "small to need it. Leave one of the two out.",
        )

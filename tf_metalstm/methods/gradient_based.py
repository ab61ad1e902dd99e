"""Methods that adapt by gradient: a learner, a rule and c_0 in the one inner loop.

The rule's weights and the initial parameters c_0 are trained together on the loss of
the queries; c_0 may also start from a network that was trained otherwise, or stay there.
What method it is, the rule says:

    rule       second_order   method
    MetaLSTM   no             the meta-learner LSTM, Ravi & Larochelle, ICLR 2017, algorithm 1
    SGD        yes            MAML, Finn et al., ICML 2017
    SGD        no             first-order MAML; with no meta-training, fine-tuning
    MetaSGD    yes            Meta-SGD, Li et al., 2017
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from tf_metalstm.adaptation import Adapted, InnerLoop, Trajectory, adapt, adapt_in_loop
from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.methods.base import FewShotMethod
from tf_metalstm.objectives import CLASSIFICATION, Objective
from tf_metalstm.rules.base import Rule

QUERY_NORMALIZATIONS = ("running", "support", "batch")


class GradientBasedMethod(FewShotMethod):
    """Trainable weights: those of the rule, and c_0 [P].

    Batch normalization of the queries in validation, test and export, `query_normalization`:

    - "running": the running statistics that this episode's support passes at theta_0 ...
      theta_{T-1} left behind. Inductive; what the paper does. Without any update there are none,
      and it is as "support".
    - "support": as "running", after one more support pass at theta_T. Inductive too: a query
      is still classified by itself, under statistics that belong to the final parameters.
    - "batch": the moments of all queries together. *Transductive*: the answer to one query
      depends on the others.

    In meta-training the queries always use their batch moments, as in the paper.

    Args:
        learner: the network that is adapted.
        rule: how its parameters move; built here.
        inner_loop: number of updates and the like.
        query_normalization: see above.
        num_evaluation_steps: updates outside meta-training; None for as many as in it.
        objective: what an episode asks for.
        vectorize_episodes: see `FewShotMethod`.
        learn_c_0: whether c_0 is a meta-parameter; else it stays where it starts.
        learn_linear: whether the last layer of c_0 is one too. Which class is which output is drawn
            anew for every episode, so all that meta-training finds for one output and not for
            another is noise of the last episodes, which Adam makes as large as any signal.
        name: fixed, and with it the names of the weights in a checkpoint.
    """

    def __init__(
        self,
        learner: FunctionalLearner,
        rule: Rule,
        inner_loop: InnerLoop,
        query_normalization: str = "running",
        num_evaluation_steps: int | None = None,
        objective: Objective = CLASSIFICATION,
        vectorize_episodes: bool = False,
        learn_c_0: bool = True,
        learn_linear: bool = True,
        name: str = "gradient_based_method",
        **kwargs: Any,
    ) -> None:
        super().__init__(objective, vectorize_episodes, dtype=learner.dtype, name=name, **kwargs)
        if query_normalization not in QUERY_NORMALIZATIONS:
            raise ValueError(
                f"--query_normalization must be one of {', '.join(QUERY_NORMALIZATIONS)}, "
                f"got {query_normalization!r}."
            )
        if vectorize_episodes and any(len(b.shape) == 4 for b in learner.parameter_blocks):
            raise ValueError(
                "--vectorize_episodes cannot give each episode convolutions of its own: leave it "
                "out, or use --learner=mlp."
            )
        if vectorize_episodes and inner_loop.recompute:
            # tf.vectorized_map drops the gradient that tf.recompute_grad defines.
            raise ValueError(
                "--recompute does not go with --vectorize_episodes: episodes that are treated as "
                "one batch are too small to need it. Leave one of the two out."
            )
        self.learner = learner
        self.inner_loop = inner_loop
        self.evaluation_loop = inner_loop
        if num_evaluation_steps is not None:
            self.evaluation_loop = dataclasses.replace(inner_loop, num_steps=num_evaluation_steps)
        self.query_normalization = query_normalization
        self.rule = rule
        if not rule.built:
            rule.build((learner.num_parameters,))
        start = learner.initial_parameters()
        self.c_0 = self.add_weight(
            shape=start.shape,
            initializer=lambda shape, dtype: tf.constant(start),
            trainable=learn_c_0,
            name="c_0",
        )
        self._num_learned = start.size if learn_linear else learner.num_before_last_layer()
        self.built = True

    def build(self, input_shape: Any = None) -> None:
        """Nothing left to do: no weight depends on the shape of an episode."""

    @property
    def num_outputs(self) -> int:
        """N, logits of the learner."""
        return self.learner.num_outputs

    @property
    def num_updates(self) -> int:
        """T outside meta-training."""
        return self.evaluation_loop.num_steps

    def adapt(self, support: Support, training: bool = False) -> Adapted:
        """Returns the learner after T updates on the support set of one episode."""
        return self.adapt_with_trajectory(support, training)[0]

    def adapt_with_trajectory(
        self, support: Support, training: bool = False, num_steps: Tensor | None = None
    ) -> tuple[Adapted, Trajectory]:
        """As `adapt`, with the support loss and the gates of every update.

        Args:
            support: of one episode.
            training: True in meta-training.
            num_steps: T, a scalar, instead of the number that the method was made with.
        """
        loop = self.inner_loop if training else self.evaluation_loop
        given = (self.learner, self.rule, self._theta_0(), support, loop)
        if num_steps is None:
            adapted, trajectory = adapt(*given, self.objective.loss)
        else:
            adapted, trajectory = adapt_in_loop(*given, num_steps, self.objective.loss)
        num_steps = loop.num_steps if num_steps is None else num_steps
        return adapted._replace(
            statistics=self._statistics(adapted, support, num_steps)
        ), trajectory

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

    def _theta_0(self) -> Tensor:
        c_0 = tf.convert_to_tensor(self.c_0)
        if self._num_learned == self.learner.num_parameters:
            return c_0
        return tf.concat(
            [c_0[: self._num_learned], tf.stop_gradient(c_0[self._num_learned :])], axis=0
        )

    def query_outputs(
        self, adapted: Adapted, query_inputs: Tensor, training: bool = False
    ) -> Tensor:
        """Returns the outputs [B, N] for queries [B, ...]."""
        by_batch = training or self.query_normalization == "batch"
        outputs, _ = self.learner.apply(*adapted, query_inputs, training=by_batch)
        return outputs

    def describe_normalization(self) -> str:
        """Returns the batch-norm mode in words, to stand beside every reported number."""
        if not self.learner.num_statistics:
            return "none"
        if self.query_normalization == "running" and self.num_updates == 0:
            return "inductive (statistics of the support set)"
        return {
            "running": "inductive (running statistics of the episode)",
            "support": "inductive (statistics of one more support pass)",
            "batch": "transductive (queries normalized with each other)",
        }[str(self.query_normalization)]

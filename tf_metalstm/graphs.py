"""Functions that TensorFlow traces as they are written, without AutoGraph.

The branches and loops of this package are TensorFlow's (`tf.cond`, `tf.while_loop`), so AutoGraph
has nothing to convert. It would still rewrite every function that a traced one calls, which took
a fifth of the time of an export.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

F = TypeVar("F", bound=Callable[..., Any])


def unconverted(function: F) -> F:
    """Returns the function so that AutoGraph leaves it, and all that it calls, as written."""
    return tf.autograph.experimental.do_not_convert(function)


def graph_function(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Returns the `tf.function` of a function, without AutoGraph; also a decorator.

    Args:
        function: what is traced. Without it the result is a decorator.
        **options: further arguments of `tf.function`, such as `input_signature`.
    """
    if function is None:
        return lambda decorated: graph_function(decorated, **options)
    return tf.function(unconverted(function), **options)

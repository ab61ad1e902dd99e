"""Prepares a process that runs tests."""

import hypothesis
import tensorflow as tf
import toy

from tf_metalstm import catalogue


def prepare():
    """Sets the devices of TensorFlow, its random numbers and those of hypothesis; adds toy parts.

    This is only possible before TensorFlow starts its devices, so it cannot be a fixture.
    """
    # Two logical CPUs let MirroredStrategy be tested on any machine.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    # Most graphs of the tests run once or twice. Optimizing them took a fifth of the suite's time.
    # The demo, the wheel and the commands of tests/command.py run with optimized graphs.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

    # The first call traces a graph, so there is no deadline. The examples are fixed, so that the
    # same commit always gives the same result.
    hypothesis.settings.register_profile("tf_metalstm", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("tf_metalstm")

    # This is called only once, because it makes TensorFlow forget all compiled functions.
    tf.random.set_seed(0)

    catalogue.add_part(toy.ToySource)
    catalogue.add_part(toy.ToyStream)

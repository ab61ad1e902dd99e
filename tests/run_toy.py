"""Runs the outer loop on toy images in this process, and reads the files of the run."""

import keras
import tensorflow as tf
import toy
from tensorflow.core.util.event_pb2 import Event

from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.rules.sgd import SGD
from tf_metalstm.training.outer_loop import compile_method, train
from tf_metalstm.training.schedule import Schedule


def stream(split, start=0, num_episodes=None):
    episodes = toy.image_episodes(EpisodeSpec(5, 1, 2), split)
    return episode_dataset(episodes, start=start, num_episodes=num_episodes)


def compiled_method(seed=0, **arguments):
    toy.seed(seed)
    method = toy.image_method(num_steps=1, rule=SGD(0.1, learned=True))
    compile_method(method, **arguments)
    return method


def run(
    run_dir,
    max_steps,
    seed=0,
    training=None,
    on_validation=None,
    compiled=None,
    on_list=None,
    **schedule,
):
    """Trains in new objects, as a new process does. `on_list` gets the method for the list."""
    method = compiled_method(seed, **(compiled or {}))
    schedule = {"checkpoint_every": 2, "validate_every": 4, **schedule}
    checkpoints = train(
        method,
        training or (lambda step: stream("train", step)),
        lambda: (on_list and on_list(method), stream("validation", num_episodes=4))[1],
        Schedule(max_steps, **schedule),
        run_dir,
        on_validation,
    )
    return method, checkpoints


def values(method):
    variables = [*method.weights, *method.optimizer.variables]
    return [keras.ops.convert_to_numpy(v) for v in variables]


def scalars(run_dir):
    """Returns (step, tag, value) of all curves in TensorBoard's files, sorted by step."""
    found = []
    for path in (run_dir / "tensorboard").glob("events.*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    number = float(tf.make_ndarray(value.tensor))
                    found.append((event.step, value.tag, number))
    return sorted(found)

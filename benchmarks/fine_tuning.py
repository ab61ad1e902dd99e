"""Fine-tunes a pretrained network on each support set: python benchmarks/fine_tuning.py FOLDER

The episodes are the first ones of `benchmarks/photos.py`. A new softmax layer is put on
EfficientNet-Lite0, and the layers after `--after` are trained with it by Adam on the support set.
Batch norm keeps the statistics of the pretraining. The frozen layers answer each picture once.
Prints the accuracy after each tenth epoch, and keeps the numbers as JSON. With `--ours` it measures
our method fine_tuning instead, which starts at logistic regression.
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf
import tqdm
from machine import commit, machine
from photos import QUERIES, features_of, mean_and_interval

from tf_metalstm.construction import Builder
from tf_metalstm.data.episodes import EpisodeSampler, ImageEpisodes
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.learners.efficientnet_lite0 import (
    efficientnet_lite0,
    set_weights,
    weights_file,
)
from tf_metalstm.learners.torch_file import read_torch_file
from tf_metalstm.methods.catalogue import METHODS
from tf_metalstm.settings import make_settings

LEARNER = {"learner": "efficientnet_lite0"}
BATCH = 25  # pictures in a step; a smaller support set is one batch


class FineTuned:
    """The last layers of the network and a new softmax layer, trained anew for each task."""

    def __init__(self, after, way):
        trunk = efficientnet_lite0((224, 224, 3))
        set_weights(trunk, read_torch_file(weights_file()))
        for layer in trunk.layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        cut = trunk.get_layer(after).output
        logits = keras.layers.Dense(way, dtype="float32")(trunk.output)
        self.model = keras.Model(cut, logits)
        self.optimizer = keras.optimizers.Adam(1e-3)
        self.optimizer.build(self.model.trainable_variables)
        variables = [*self.model.trainable_variables, *self.optimizer.variables]
        self.begin = [(variable, variable.numpy()) for variable in variables]
        shape = tf.TensorSpec((None, *cut.shape[1:]))
        self.step = tf.function(self._step, (shape, tf.TensorSpec((None,), tf.int64)))
        self.answer = tf.function(lambda x: self.model(x, training=False), (shape,))

    def _step(self, inputs, labels):
        with tf.GradientTape() as tape:
            logits = self.model(inputs, training=False)
            loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_mean(loss)
        gradients = tape.gradient(loss, self.model.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))

    def shares(self, support, queries, labels, rate, epochs, seed):
        """Returns the share of right answers after each tenth epoch."""
        generator = np.random.default_rng(seed)
        for variable, value in self.begin:
            variable.assign(value)
        kernel = self.model.layers[-1].kernel
        kernel.assign(keras.initializers.GlorotUniform(seed)(kernel.shape))
        self.optimizer.learning_rate.assign(rate)
        found = []
        for epoch in range(1, epochs + 1):
            order = generator.permutation(len(support))
            for part in np.array_split(order, max(1, round(len(support) / BATCH))):
                self.step(support[part], labels[0][part])
            if epoch % 10 == 0:
                answers = self.answer(queries).numpy().argmax(axis=1)
                found.append(float(np.mean(answers == labels[1])))
        return found


def episodes_of(classes, way, shot, number):
    """Yields the rows of the pictures of each episode: [way, shot] and [way, queries]."""
    spec = EpisodeSpec(way, shot, QUERIES)
    sampler = EpisodeSampler(classes, "train", spec, seed=0, source_name="folder")
    episodes = ImageEpisodes(sampler, None)
    for i in range(number):
        rows = episodes.rows(tf.constant(i, tf.int64)).numpy().reshape(way, -1)
        yield rows[:, :shot], rows[:, shot:]


def pictures_of(classes, episodes, way):
    """Yields support, queries and the labels of both for each episode."""
    for parts in tqdm.tqdm(episodes, f"{way} classes", leave=False):
        inputs = [classes.images[part.ravel()].astype(np.float32) for part in parts]
        yield *inputs, [np.repeat(np.arange(way), part.shape[1]) for part in parts]


def from_random(classes, episodes, way, options):
    """Yields the rate and epochs, and the shares of right answers, of plain fine-tuning."""
    tuned = FineTuned(options.after, way)
    for rate in options.rates:
        found = [
            tuned.shares(*pictures, rate, options.epochs, seed)
            for seed, pictures in enumerate(pictures_of(classes, episodes, way))
        ]
        for tens, right in enumerate(np.transpose(found), start=1):
            yield {"rate": rate, "epochs": 10 * tens}, right


def from_logistic_regression(classes, episodes, way, options):
    """Yields the rate and updates, and the shares of right answers, of our method."""
    for rate in options.rates:
        method = our_method(rate, options)
        adapt = tf.function(method.summarize, reduce_retracing=True)
        answer = tf.function(method.compare, reduce_retracing=True)
        found = []
        for support, queries, labels in pictures_of(classes, episodes, way):
            state = adapt(tf.constant(support), tf.constant(labels[0]), tf.constant(way))
            answers = answer(state, tf.constant(queries)).numpy().argmax(axis=1)
            found.append(np.mean(answers == labels[1]))
        choice = {"rate": rate, "updates": options.updates}
        if options.batch_size:
            choice |= {"batch_size": options.batch_size}
        if options.tuning_penalty:
            choice |= {"tuning_penalty": options.tuning_penalty}
        yield choice, found


def our_method(rate, options):
    """Returns the method fine_tuning, whose front ends where the kept features do."""
    said = {"method": "fine_tuning", "rule": "adam", "inner_rate": rate}
    said |= {"num_steps": options.updates, "trained_layers": options.trained_layers, **LEARNER}
    said |= {"support_batch_size": options.batch_size, "tuning_penalty": options.tuning_penalty}
    settings = make_settings({**said, "source": "glyphs"})

    class Pictures:
        input_shape, training_way, num_outputs, objective = (224, 224, 3), None, 1, "classification"

    method = METHODS[settings.method].from_options(
        settings.of_member("method"), Builder(settings, Pictures)
    )
    end = method.halves.front.layers[-1].name
    if end != options.after:
        raise SystemExit(f"--trained_layers {options.trained_layers} needs --after {end}")
    return method


def rows_of(folder, tasks, classes, options):
    """Returns a row of results for each size of task, learning rate and number of epochs."""
    for way, shot in options.sizes:
        if way > len(classes.class_names):
            continue
        episodes = list(episodes_of(classes, way, shot, options.skip + options.num_episodes))
        episodes = episodes[options.skip :]
        measure = from_logistic_regression if options.ours else from_random
        started = time.process_time()
        for choice, right in measure(classes, episodes, way, options):
            accuracy, interval = mean_and_interval(right)
            seconds = (time.process_time() - started) / len(episodes)
            yield {
                "data": pathlib.Path(folder).name,
                "fingerprint": tasks.data_fingerprint(),
                "method": "fine_tuning" if options.ours else "new layer",
                "after": options.after,
                "task": f"{way}-way {shot}-shot",
                **choice,
                "num_episodes": len(right),
                "accuracy": accuracy,
                "interval": interval,
                "processor_seconds_so_far": round(seconds, 1),
                "scores": [round(100 * float(each), 2) for each in right],
            }


def main(options):
    """Measures all folders."""
    report = {"machine": machine(), "commit": commit(), "when": time.strftime("%F")}
    report |= {"precision": options.precision, "rows": []}
    for folder in options.folders:
        keras.mixed_precision.set_global_policy("float32")
        tasks, classes, _ = features_of(folder, LEARNER, options.prepared_dir, options.after)
        keras.mixed_precision.set_global_policy(options.precision)  # the frozen layers keep float32
        for row in rows_of(folder, tasks, classes, options):
            print({name: value for name, value in row.items() if name != "scores"}, flush=True)
            report["rows"].append(row)
            if options.out:
                options.out.write_text(json.dumps(report) + "\n")


def size(text):
    """Returns (way, shot) from text such as 5,1."""
    way, shot = map(int, text.split(","))
    return way, shot


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", help="folders of class folders")
    parser.add_argument("--after", default="block_14_sum", help="the last layer that stays frozen")
    parser.add_argument("--sizes", type=size, nargs="+", default=[(5, 1), (5, 5), (5, 10)])
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4], help="of Adam")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--ours", action="store_true", help="measure method=fine_tuning instead")
    parser.add_argument("--updates", type=int, default=20, help="of ours")
    parser.add_argument("--batch_size", type=int, help="pictures in an update of ours")
    parser.add_argument("--tuning_penalty", type=float, help="of ours")
    parser.add_argument("--trained_layers", type=int, default=4, help="of ours")
    parser.add_argument("--num_episodes", type=int, default=20)
    parser.add_argument("--skip", type=int, default=0, help="number of episodes to leave out first")
    parser.add_argument("--precision", default="float32", choices=["float32", "mixed_bfloat16"])
    parser.add_argument("--prepared_dir")
    parser.add_argument("--out", type=pathlib.Path)
    main(parser.parse_args())

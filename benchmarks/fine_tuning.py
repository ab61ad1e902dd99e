"""Fine-tunes a pretrained network on each support set: python benchmarks/fine_tuning.py FOLDER

The episodes are the first ones of `benchmarks/photos.py`. A new softmax layer is put on
EfficientNet-Lite0, and the layers after `--after` are trained with it by Adam on the support set.
Batch norm keeps the statistics of the pretraining. The frozen layers answer each picture once.
Prints the accuracy after each tenth epoch, and keeps the numbers as JSON.
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

from tf_metalstm.data.episodes import EpisodeSampler, ImageEpisodes
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.learners.efficientnet_lite0 import (
    efficientnet_lite0,
    set_weights,
    weights_file,
)
from tf_metalstm.learners.torch_file import read_torch_file

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


def rows_of(folder, tasks, classes, options):
    """Returns a row of results for each size of task, learning rate and number of epochs."""
    for way, shot in options.sizes:
        if way > len(classes.class_names):
            continue
        tuned = FineTuned(options.after, way)
        found = {rate: [] for rate in options.rates}
        started = time.monotonic()
        episodes = list(episodes_of(classes, way, shot, options.num_episodes))
        for seed, parts in enumerate(tqdm.tqdm(episodes, f"{way}-way {shot}-shot", leave=False)):
            pictures = [classes.images[part.ravel()].astype(np.float32) for part in parts]
            labels = [np.repeat(np.arange(way), part.shape[1]) for part in parts]
            for rate, shares in found.items():
                shares.append(tuned.shares(*pictures, labels, rate, options.epochs, seed))
        seconds = (time.monotonic() - started) / len(episodes) / len(found)
        for rate, shares in found.items():
            for tens, right in enumerate(np.transpose(shares), start=1):
                accuracy, interval = mean_and_interval(right)
                yield {
                    "data": pathlib.Path(folder).name,
                    "fingerprint": tasks.data_fingerprint(),
                    "after": options.after,
                    "task": f"{way}-way {shot}-shot",
                    "rate": rate,
                    "epochs": 10 * tens,
                    "num_episodes": len(right),
                    "accuracy": accuracy,
                    "interval": interval,
                    "seconds": round(seconds, 1),
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
    parser.add_argument("--num_episodes", type=int, default=20)
    parser.add_argument("--precision", default="float32", choices=["float32", "mixed_bfloat16"])
    parser.add_argument("--prepared_dir")
    parser.add_argument("--out", type=pathlib.Path)
    main(parser.parse_args())

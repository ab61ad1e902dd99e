"""Compares two modes of batch norm: python benchmarks/batch_statistics.py --data_dir DIR

Prototypes and the outer-product LSTM on the frozen network of `benchmarks/isolated_rules.py` answer
the same test episodes twice. First batch norm has the running statistics of the training
(inductive). Then the support set is normalized by its own statistics, and the queries of an episode
by theirs (transductive), as in the paper of the outer-product LSTM. Training is in the first mode.
"""

import argparse
import json
import pathlib
import time
import types

import isolated_rules
import numpy as np
import tensorflow as tf
import tqdm
from machine import commit, machine

from tf_metalstm.construction import build_tasks
from tf_metalstm.data.episodes import EpisodeSampler, ImageEpisodes, arrange
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.exported import load_exported
from tf_metalstm.settings import make_settings

MODES = ("inductive", "transductive")
HEADS = {"prototypes": (isolated_rules.NONE, 1), "OP-LSTM": ("OP-LSTM", 3)}


def by_batch_statistics(network):
    """Returns a function from images to features by the statistics of these images."""

    @tf.function(reduce_retracing=True)
    def features(images):
        weights = network.trainable_variables, network.non_trainable_variables
        return network.stateless_call(*weights, images, training=True)[0]

    return features


def episodes_in_both_modes(classes, features, normalization, network, spec, number):
    """Returns, for each mode, the inputs of the episodes, and their labels."""
    sampler = EpisodeSampler(classes, "test", spec, 0, source_name="test")
    rows_of, own = ImageEpisodes(sampler, None).rows, by_batch_statistics(network)
    found = {mode: [] for mode in MODES}
    for index in tqdm.tqdm(range(number), leave=False):
        rows = rows_of(tf.constant(index, tf.int64)).numpy()
        inputs, labels = arrange(tf.constant(features[rows]), spec)
        found["inductive"].append((inputs["support_inputs"], inputs["query_inputs"]))
        inputs, _ = arrange(tf.constant(classes.images[rows]), spec)
        found["transductive"].append(
            tuple(own(normalization(inputs[f"{name}_inputs"])) for name in ("support", "query"))
        )
        support_labels = inputs["support_labels"]
    return found, support_labels, labels


def accuracies(method, episodes, support_labels, labels):
    """Returns the accuracy of each episode in percent."""
    unit = lambda x: tf.math.l2_normalize(x, axis=-1)  # noqa: E731
    found = []
    for support, queries in episodes:
        inputs = {
            "support_features": unit(support)[tf.newaxis],
            "support_labels": support_labels[tf.newaxis],
            "query_features": unit(queries)[tf.newaxis],
        }
        chosen = np.argmax(method(inputs)[0], axis=-1)
        found.append(100.0 * np.mean(chosen == labels))
    return np.array(found)


def main(options):
    trunk = load_exported(options.trunk)
    said = {"source": "mini_imagenet", "data_dir": options.data_dir, "normalization": "standard"}
    said |= {"method": "prototypical_networks", "prepared_dir": options.prepared_dir}
    tasks = build_tasks(make_settings(said))
    given = types.SimpleNamespace(**vars(options), learner=None, source="mini_imagenet")
    given = types.SimpleNamespace(**vars(given), others=(), split="test", only_others=False, way=5)
    training, sets = isolated_rules.sets_of(given)
    classes, features = tasks.source.load("test"), sets["mini_imagenet"].images
    report = {"machine": machine(), "commit": commit(), "when": time.strftime("%F"), "rows": []}
    for shot in options.shots:
        spec = EpisodeSpec(5, shot, options.queries)
        found, *labels = episodes_in_both_modes(
            classes, features, tasks.normalization, trunk.embedding, spec, options.num_episodes
        )
        reference = {}
        for name, (head, seeds) in HEADS.items():
            said = {**isolated_rules.rules(0.1), **isolated_rules.OTHERS}[head]
            for seed in range(seeds):
                method, _ = isolated_rules.trained(said, training, [shot], seed, given)
                for mode, episodes in found.items():
                    scores = accuracies(method, episodes, *labels)
                    reference.setdefault(mode, scores)
                    above = scores - reference[mode]
                    row = {"head": name, "shot": shot, "mode": mode, "seed": seed}
                    row |= {"accuracy": round(float(np.mean(scores)), 2)}
                    row |= {"interval": round(isolated_rules.interval(scores), 2)}
                    row |= {"above": round(float(np.mean(above)), 2)}
                    row |= {"above_interval": round(isolated_rules.interval(above), 2)}
                    print(row, flush=True)
                    report["rows"].append({**row, "scores": np.round(scores, 2).tolist()})
        if options.out:
            options.out.write_text(json.dumps(report) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trunk", default="models/mini_imagenet_trunk_conv4_64")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--prepared_dir")
    parser.add_argument("--features", help="folder to keep features in")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--updates", type=int, default=300, help="meta-updates")
    parser.add_argument("--episodes_per_step", type=int, default=2)
    parser.add_argument("--learning_rate", type=float, default=1e-2)
    parser.add_argument("--num_episodes", type=int, default=200)
    parser.add_argument("--out", type=pathlib.Path)
    main(parser.parse_args())

"""Compares rules with their start: python benchmarks/isolated_rules.py --data_dir DIR [--out FILE]

The network is trained and frozen, and the features of every picture are computed once. The last
layer begins at the prototypes of the classes. Each rule is trained on episodes of the training
classes. Then all rules, heads in closed form, and the outer-product LSTM answer the same test
episodes, of the same data and of other folders of pictures. Prints a table with paired differences,
and writes the numbers as JSON. With `--training_shots` each is trained once, on episodes with these
numbers of images a class in turn. With `--learner=efficientnet_lite0` the features are those of
`benchmarks/photos.py`, DIR is a folder of class folders for the training, and the test is on the
other folders only.
"""

import argparse
import itertools
import json
import math
import pathlib
import time

import keras
import numpy as np
import photos
import tensorflow as tf
import tqdm
from machine import commit, machine

from tf_metalstm.construction import Builder, build_tasks
from tf_metalstm.data.episodes import EpisodeSampler, ImageEpisodes, arrange, episode_dataset
from tf_metalstm.data.sources.base import ClassImages
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.exported import load_exported
from tf_metalstm.methods.catalogue import METHODS
from tf_metalstm.scoring import episode_scores
from tf_metalstm.settings import make_settings
from tf_metalstm.training.optimizer import make_learning_rate
from tf_metalstm.training.outer_loop import compile_method

FIRST_RATE = 0.1
NONE = "no update"
RULES = (NONE, "one learned rate", "a rate for each tensor and update", "Meta-SGD", "meta-LSTM")
OTHERS = {
    "OP-LSTM": {"method": "outer_product_lstm", "num_steps": 3},
    "ridge regression": {"method": "ridge_regression"},
    "logistic regression": {"method": "logistic_regression"},
}
HEADS = (*RULES, *OTHERS)


def rules(first_rate):
    """Returns the options of each rule, by name.

    Args:
        first_rate: the learning rate before the training, or the middle of its range.
    """
    scale = first_rate / FIRST_RATE
    gates = [gate + math.log(scale) for gate in (-3.0, -2.0)]  # 0.05 to 0.12, if scale is 1
    options = (
        {"rule": "sgd", "learn_inner_rate": True, "num_steps": 0},
        {"rule": "sgd", "inner_rate": first_rate, "learn_inner_rate": True},
        {"rule": "layer_sgd", "layer_rate": first_rate},
        {"rule": "meta_sgd", "meta_sgd_rates": (0.05 * scale, 0.15 * scale)},
        {
            "rule": "meta_lstm",
            "input_gate_bias": tuple(gates),
            "forget_gate_bias": (8.0, 9.0),
        },
    )
    return dict(zip(RULES, options, strict=True))


def features_of(classes, normalization, embed, name):
    """Returns the classes of a split with features in place of pictures."""
    batches = tqdm.tqdm(range(0, len(classes.images), 128), name, leave=False)
    found = [embed(normalization(classes.images[i : i + 128])).numpy() for i in batches]
    return classes._replace(images=np.concatenate(found))


def kept(path, compute):
    """Returns classes with features. If the file exists, it reads them from there."""
    if path and path.is_file():
        found = np.load(path)
        names = tuple(found["class_names"].tolist())
        return ClassImages(found["images"], found["class_sizes"], names)
    classes = compute()
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **classes._asdict())
    return classes


class FeatureTasks:
    """Episodes of classes whose pictures are features."""

    def __init__(self, classes, split, spec, seed, training=False):
        sampler = EpisodeSampler(classes, split, spec, seed, source_name=split, training=training)
        self.spec, self.images = spec, ImageEpisodes(sampler, None)
        self.features = tf.constant(classes.images)

    def __call__(self, index):
        inputs, labels = arrange(tf.gather(self.features, self.images.rows(index)), self.spec)
        return {name.replace("inputs", "features"): x for name, x in inputs.items()}, labels


def built(said, width, way, seed):
    """Returns a method whose images are features."""
    keras.utils.set_random_seed(seed)
    said = {"method": "head_adaptation", **said}
    if said["method"] in ("head_adaptation", "outer_product_lstm"):
        said["learn_features"] = False
    settings = make_settings({"learner": "mlp", "hidden_layers": (), "source": "glyphs", **said})

    class Tasks:
        input_shape, training_way, num_outputs, objective = (width,), way, 1, "classification"

    return METHODS[settings.method].from_options(
        settings.of_member("method"), Builder(settings, Tasks)
    )


def trained(said, classes, shots, seed, options):
    """Trains a method on episodes with these shots in turn. Returns it and the last loss."""
    method = built(said, classes.images.shape[-1], options.way, seed)
    rate = make_learning_rate(options.learning_rate, 0, options.updates)
    compile_method(method, rate, clip_norm=1.0)
    specs = [EpisodeSpec(options.way, shot, options.queries) for shot in shots]
    streams = [
        episode_dataset(
            FeatureTasks(classes, "train", spec, seed, training=True),
            episodes_per_step=options.episodes_per_step,
        )
        for spec in specs
    ]
    turns = tf.data.Dataset.range(len(streams)).repeat()
    stream = tf.data.Dataset.choose_from_datasets(streams, turns)
    found = method.fit(stream, steps_per_epoch=options.updates, verbose=0)
    return method, found.history["loss"][-1]


def scores(method, classes, spec, num_episodes):
    list_ = episode_dataset(
        FeatureTasks(classes, "test", spec, 0),
        num_episodes=num_episodes,
        episodes_per_step=20,
    )
    return 100 * episode_scores(method, list_, one_of_many=True).scores


def interval(values):
    return 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5


def sets_of(arguments):
    """Returns the training classes, and the classes of each test set, with features."""
    if arguments.learner:
        learner, folder = {"learner": arguments.learner}, arguments.prepared_dir
        training = photos.features_of(arguments.data_dir, learner, folder)[1]
        return training, {
            pathlib.Path(data).name: photos.features_of(data, learner, folder)[1]
            for data in arguments.others
        }
    trunk = load_exported(arguments.trunk)
    embed = tf.function(trunk.features, reduce_retracing=True)
    said = {"source": arguments.source, "normalization": "standard"}
    said |= {"method": "prototypical_networks", "prepared_dir": arguments.prepared_dir}
    if arguments.data_dir:
        said["data_dir"] = arguments.data_dir
    tasks = build_tasks(make_settings(said))
    folder = arguments.features and pathlib.Path(arguments.features)
    found = {}
    for split in ("train", arguments.split):
        path = folder and folder / f"{arguments.source}_{split}.npz"
        found[split] = kept(
            path,
            lambda split=split: features_of(
                tasks.source.load(split), tasks.normalization, embed, split
            ),
        )
    training, others = found.pop("train"), {arguments.source: found[arguments.split]}
    if arguments.only_others:
        others = {}
    for data in arguments.others:
        said = {"source": "folder", "data_dir": data, "split_fractions": (1.0, 0.0, 0.0)}
        said |= {"image_size": tasks.input_shape[0], "color": tasks.input_shape[-1] == 3}
        said |= {"prepared_dir": arguments.prepared_dir}
        other = build_tasks(make_settings({**said, "method": "prototypical_networks"}))
        name = pathlib.Path(data).name
        others[name] = kept(
            folder and folder / f"{name}.npz",
            lambda other=other, name=name: features_of(
                other.source.load("train"), tasks.normalization, embed, name
            ),
        )
    return training, others


def rows_of(training, others, training_shots, shots, options):
    reference = {}
    heads = {**rules(options.first_rate), **OTHERS}
    for name in dict.fromkeys((NONE, *options.heads)):
        said = heads[name]
        said = {"num_steps": options.steps, **said} if name in RULES else said
        for seed in range(options.seeds if name != NONE else 1):
            started = time.monotonic()
            method, loss = trained(said, training, training_shots, seed, options)
            seconds = time.monotonic() - started
            for shot, (data, classes) in itertools.product(shots, others.items()):
                spec = EpisodeSpec(options.way, shot, options.queries)
                if min(classes.class_sizes) < spec.images_per_class:
                    continue
                if len(classes.class_sizes) < spec.num_way:
                    continue
                found = scores(method, classes, spec, options.num_episodes)
                if name == NONE:
                    reference[data, shot] = found
                above = found - reference[data, shot]
                yield {
                    "data": data,
                    "way": options.way,
                    "shot": shot,
                    "rule": name,
                    "seed": seed,
                    "accuracy": round(float(np.mean(found)), 2),
                    "interval": round(interval(found), 2),
                    "above": round(float(np.mean(above)), 2),
                    "above_interval": round(interval(above), 2),
                    "training_loss": round(float(loss), 4),
                    "seconds": round(seconds, 1),
                    "scores": np.round(found, 2).tolist(),
                }


def table(rows):
    """Returns mean accuracies over seeds, and differences from no update, for each data set."""
    columns = list(dict.fromkeys((row["data"], row["shot"]) for row in rows))
    head = [f"{data}, {shot}-shot" for data, shot in columns]
    lines = [f"| | {' | '.join(head)} |", "|---" * (len(columns) + 1) + "|"]
    for name in dict.fromkeys(row["rule"] for row in rows):
        cells = []
        for data, shot in columns:
            found = [r for r in rows if (r["data"], r["shot"], r["rule"]) == (data, shot, name)]
            above = ", ".join(f"{r['above']:+.2f}" for r in found)
            mean = np.mean([r["accuracy"] for r in found])
            width = found[0]["above_interval"] if found else 0.0
            cells.append(f"{mean:.2f} ({above}; ± {width:.2f})" if found else "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(options):
    training, others = sets_of(options)
    report = {"machine": machine(), "commit": commit(), "when": time.strftime("%F")}
    report |= {"options": {name: str(value) for name, value in vars(options).items()}, "rows": []}
    for shots in [options.shots] if options.training_shots else [[shot] for shot in options.shots]:
        found = []
        for row in rows_of(training, others, options.training_shots or shots, shots, options):
            found.append(row)
            print({name: value for name, value in row.items() if name != "scores"}, flush=True)
            report["rows"].append(row)
            if options.out:
                options.out.write_text(json.dumps(report) + "\n")
        print(f"\n{table(found)}\n", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("others", nargs="*", help="folders of class folders, for tests only")
    parser.add_argument("--only_others", action="store_true", help="no test on the source")
    parser.add_argument("--trunk", default="models/mini_imagenet_trunk_conv4_64")
    parser.add_argument("--learner", help="instead of a trunk: a network with pretrained weights")
    parser.add_argument("--source", default="mini_imagenet")
    parser.add_argument("--data_dir", help="of the source; glyphs need none")
    parser.add_argument("--prepared_dir")
    parser.add_argument("--features", help="folder to keep features in")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 20, 50])
    parser.add_argument("--training_shots", type=int, nargs="+", help="default: as in the test")
    parser.add_argument("--split", default="test", help="validation, to choose settings")
    parser.add_argument("--way", type=int, default=5, help="in training and test")
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--heads", nargs="+", default=HEADS, choices=HEADS)
    parser.add_argument("--first_rate", type=float, default=FIRST_RATE, help="of the rules")
    parser.add_argument("--steps", type=int, default=10, help="updates of the last layer")
    parser.add_argument("--updates", type=int, default=500, help="meta-updates")
    parser.add_argument("--episodes_per_step", type=int, default=4)
    parser.add_argument("--learning_rate", type=float, default=1e-2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num_episodes", type=int, default=600)
    parser.add_argument("--out", type=pathlib.Path)
    main(parser.parse_args())

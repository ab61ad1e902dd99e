"""Heads on frozen features of photographs: python benchmarks/photos.py FOLDER ... [--out FILE]

Each folder has a folder of pictures for each class. The learner with its pretrained weights
computes the features of every picture once. Then every head answers the same episodes: ours, and
those of scikit-learn. The script prints a table and writes the numbers as JSON, with the accuracy
of each episode and the differences from our logistic regression on the same episodes.
"""

import argparse
import json
import pathlib
import time
import warnings

import keras
import numpy as np
import sklearn.linear_model
import sklearn.neighbors
import tensorflow as tf
import tqdm
from machine import commit, machine

from tf_metalstm.construction import Builder, build_tasks
from tf_metalstm.data.episodes import EpisodeSampler, ImageEpisodes, arrange
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.methods.catalogue import METHODS
from tf_metalstm.settings import make_settings

QUERIES = 15
REFERENCE = "logistic regression"  # its default penalty
SIZES = [(n, k) for n in (5, 10, 20) for k in (1, 5, 10)]
HEADS = {
    "nearest neighbour, cosine": {"method": "nearest_neighbor", "num_training_classes": 2},
    "prototypes, Euclidean": {"method": "prototypical_networks"},
    "prototypes, cosine": {"method": "prototypical_networks", "distance": "cosine"},
    "ridge regression": {"method": "ridge_regression"},
    "ridge regression, penalty 0.01": {"method": "ridge_regression", "ridge_penalty": 0.01},
    "ridge regression, penalty 0.001": {"method": "ridge_regression", "ridge_penalty": 0.001},
    "logistic regression": {"method": "logistic_regression"},
    "logistic regression, penalty 0.1": {
        "method": "logistic_regression",
        "logistic_penalty": 0.1,
    },
}


def unit(features):
    """Returns features scaled to length 1."""
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def logistic(x, y, z, **options):
    """Returns the answers of scikit-learn's logistic regression to z."""
    # In the space of the support set: the answers are the same, and many features take less time.
    directions, _ = np.linalg.qr(x.T)
    x, z = x @ directions, z @ directions
    return sklearn.linear_model.LogisticRegression(**options).fit(x, y).predict(z)


def centroid(x, y, z):
    """Returns the answers of scikit-learn's nearest centroid to z."""
    return sklearn.neighbors.NearestCentroid().fit(x, y).predict(z)


# As a user would call it, and on features of length 1.
SKLEARN = {
    "scikit-learn LogisticRegression()": logistic,
    "scikit-learn LogisticRegression(C=10), features of length 1": lambda x, y, z: logistic(
        unit(x), y, unit(z), C=10.0
    ),
    "scikit-learn NearestCentroid()": centroid,
}


def features_of(folder, learner, prepared_dir, layer=None):
    """Returns the tasks of a folder, and its classes with features instead of pictures.

    The features are the outputs of the named layer; by default those of the last hidden layer.
    """
    said = {"source": "folder", "data_dir": folder, "split_fractions": (1.0, 0.0, 0.0)}
    settings = make_settings(
        {**said, **learner, "method": "prototypical_networks", "prepared_dir": prepared_dir}
    )
    tasks = build_tasks(settings)
    classes = tasks.source.load("train")
    pixels = classes.images
    parts = [tasks.data_fingerprint(), *map(str, learner.values()), *([layer] if layer else [])]
    name = f"{'_'.join(parts)}.npy"
    kept = prepared_dir and pathlib.Path(prepared_dir, "features", name)
    if kept and kept.is_file():
        return tasks, classes._replace(images=np.load(kept)), 0.0
    network = Builder(settings, tasks).network(1, 0.99)
    output = network.get_layer(layer).output if layer else network.layers[-1].input
    embed = tf.function(keras.Model(network.input, output))
    batches = tqdm.tqdm(range(0, len(pixels), 32), pathlib.Path(folder).name, leave=False)
    started = time.monotonic()
    found = [embed(tasks.normalization(pixels[i : i + 32])).numpy() for i in batches]
    seconds = (time.monotonic() - started) / len(pixels)
    features = np.concatenate(found)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, features)
    return tasks, classes._replace(images=features), seconds


def head(name, width):
    """Returns a method that takes features instead of images."""
    said = {"learner": "mlp", "hidden_layers": (), "source": "glyphs", **HEADS[name]}
    settings = make_settings(said)

    class Tasks:
        input_shape, training_way, num_outputs, objective = (width,), None, 1, "classification"

    return METHODS[settings.method].from_options(
        settings.of_member("method"), Builder(settings, Tasks)
    )


def correct(classes, way, shot, num_episodes, wanted):
    """Returns the share of right answers in each episode, by the name of the head."""
    spec = EpisodeSpec(way, shot, QUERIES)
    sampler = EpisodeSampler(classes, "train", spec, seed=0, source_name="folder")
    episodes = ImageEpisodes(sampler, None)
    features = tf.constant(classes.images)
    heads = {name: head(name, features.shape[-1]) for name in HEADS if name in wanted}
    answer = {name: tf.function(each) for name, each in heads.items()}
    rights = {name: [] for name in wanted}
    for i in tqdm.tqdm(range(num_episodes), f"{way}-way {shot}-shot", leave=False):
        rows = episodes.rows(tf.constant(i, tf.int64))
        inputs, labels = arrange(tf.gather(features, rows), spec)
        batch = {name: value[tf.newaxis] for name, value in inputs.items()}
        for name, each in answer.items():
            found = tf.argmax(each(batch, training=False)[0], axis=-1).numpy()
            rights[name].append(np.mean(found == labels))
        x, y, z = (inputs[n].numpy() for n in ("support_inputs", "support_labels", "query_inputs"))
        for name, each in SKLEARN.items():
            if name not in wanted:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns if it stops at its last iteration
                rights[name].append(np.mean(each(x, y, z) == labels.numpy()))
    return rights


def rows_of(folder, learner, prepared_dir, num_episodes, wanted):
    """Returns a row of results for each head and task of a folder."""
    tasks, classes, seconds = features_of(folder, learner, prepared_dir)
    num_classes, num_pictures = len(classes.class_names), len(classes.images)
    print(f"{folder}: {num_classes} classes, {num_pictures} pictures, {1000 * seconds:.0f} ms each")
    for way, shot in SIZES:
        if way > num_classes:
            continue
        rights = correct(classes, way, shot, num_episodes, wanted)
        for name, right in rights.items():
            yield {
                "data": pathlib.Path(folder).name,
                "fingerprint": tasks.data_fingerprint(),
                "learner": learner["learner"],
                "task": f"{way}-way {shot}-shot",
                "head": name,
                "num_episodes": num_episodes,
                **numbers(right, rights.get(REFERENCE)),
            }


def mean_and_interval(values):
    """Returns the mean of shares, and half of its 95 % interval, both in percent."""
    interval = 1.96 * np.std(values, ddof=1) / len(values) ** 0.5
    return round(100 * float(np.mean(values)), 2), round(100 * float(interval), 2)


def numbers(right, reference):
    """Returns the entries of a row that come from the shares of right answers in each episode."""
    found = dict(zip(("accuracy", "interval"), mean_and_interval(right), strict=True))
    if reference is not None:
        above = mean_and_interval(np.subtract(right, reference[: len(right)]))
        found |= dict(zip(("above", "above_interval"), above, strict=True))
    return {**found, "scores": [round(100 * float(each), 2) for each in right]}


def table(rows):
    """Returns a table of accuracies as text, with a column for each task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    lines = ["| | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for name in dict.fromkeys(row["head"] for row in rows):
        found = {row["task"]: row for row in rows if row["head"] == name}
        cells = [f"{found[t]['accuracy']:.1f} ± {found[t]['interval']:.1f}" for t in tasks]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments):
    """Measures all folders and prints the table."""
    learner = {"learner": arguments.learner}
    for each in arguments.option:
        name, _, value = each.partition("=")
        learner[name] = int(value) if value.isdigit() else value
    report = {"machine": machine(), "commit": commit(), "when": time.strftime("%F"), "rows": []}
    for folder in arguments.folders:
        wanted = arguments.heads or [*HEADS, *SKLEARN]
        rows = list(
            rows_of(folder, learner, arguments.prepared_dir, arguments.num_episodes, wanted)
        )
        print(f"\n{pathlib.Path(folder).name}, {arguments.learner}\n\n{table(rows)}\n")
        report["rows"] += rows
        if arguments.out:
            arguments.out.write_text(json.dumps(report) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", help="folders of class folders")
    parser.add_argument("--learner", default="efficientnet_lite0")
    parser.add_argument("--option", action="append", default=[], help="of the learner, NAME=VALUE")
    parser.add_argument("--heads", nargs="+", choices=[*HEADS, *SKLEARN], help="default: all")
    parser.add_argument("--num_episodes", type=int, default=200)
    parser.add_argument("--prepared_dir")
    parser.add_argument("--out", type=pathlib.Path)
    main(parser.parse_args())

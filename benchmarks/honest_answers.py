"""Measures how right the estimates of an adapted classifier are, on pictures of known classes.

    python benchmarks/honest_answers.py --model DIR --pictures DIR DIR ... --task WAY,SHOT,TASKS ...
        [--out FILE] [--cache DIR]

Each folder has a folder of pictures for each class. A task adapts the model to a few pictures of
some classes. The queries are other pictures of these classes, pictures of other classes of the
folder (near), and pictures of the next folder (far). Over all tasks the script measures the
accuracy and its estimate, how often the accuracy is in the interval, the calibration error before
and after, how many pictures are called foreign at 5 % false alarms, and how many mislabelled
pictures are named.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

import numpy as np
import tqdm
from machine import commit

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tf_metalstm import classifier as asked
from tf_metalstm.data.sources.folders import files_below
from tf_metalstm.loaded_model import load_model
from tf_metalstm.serving import estimate as estimate_of
from tf_metalstm.serving.given_images import take_images

EACH = ("accuracy", "estimate", "low", "high")  # numbers that are kept of each task
BINS = 15  # bins of confidence, for the calibration error


class Model:
    """A model, used as FewShotClassifier does, with stored features of all pictures."""

    def __init__(self, folder):
        self.name = pathlib.Path(folder).resolve().as_posix().replace("/", "_")
        self.model = load_model(folder)
        manifest = json.loads(pathlib.Path(folder, "manifest.json").read_text())
        self.settings = manifest["method_settings"]
        is_quick = self.model.has_features and self.model.num_steps is None
        self.most = estimate_of.ROUNDS if is_quick else estimate_of.ROUNDS_BY_UPDATES
        steps = self.model.num_steps
        self.steps = {} if steps is None else {"num_steps": np.int32(steps)}

    def keep(self, folder, most, cache):
        """Returns the features, or pixels, of each class of a folder."""
        file = pathlib.Path(cache or ".", f"{self.name}_{pathlib.Path(folder).name}_{most}.npz")
        if cache and file.is_file():
            return dict(np.load(file))
        classes = {}
        for one in sorted(path for path in pathlib.Path(folder).iterdir() if path.is_dir()):
            files = [str(path) for path in files_below(one)][:most]
            pixels = take_images(files, self.model.image_shape, skip_corrupt=True).pixels
            has_features = self.model.has_features
            classes[one.name] = self.model.features(pixels) if has_features else pixels
        if cache:
            np.savez(file, **classes)
        return classes

    def ask(self, kept, labels):
        """Returns a function from the places of a support set and of queries to logits."""

        def logits(rest, queries):
            learned = asked._adapt(self.model, kept[rest], labels[rest], self.steps)
            state = {name: learned[name] for name in self.names(learned)}
            return asked._logits(self.model, state, kept[queries], int(labels.max()) + 1)

        return logits

    def names(self, learned):
        return learned if self.model.has_features else self.model.state_names

    def estimate(self, kept, labels):
        """Returns the estimate from a support set."""
        features = kept if self.model.has_features else None
        answers = estimate_of.ask_in_rounds(labels, self.ask(kept, labels), features, self.most)
        return estimate_of.estimate(labels, answers)


def draw(generator, classes, way, shot, num_query):
    """Returns support, queries, their labels, and pictures of the other classes."""
    names = generator.permutation(list(classes))
    orders = [generator.permutation(len(classes[name])) for name in names[:way]]
    support, queries = (
        [classes[name][order[part]] for name, order in zip(names, orders, strict=False)]
        for part in (slice(shot), slice(shot, shot + num_query))
    )
    labels = [np.repeat(np.arange(way), [len(x) for x in part]) for part in (support, queries)]
    near = [classes[name] for name in names[way:]]
    return np.concatenate(support), labels[0], np.concatenate(queries), labels[1], near


def one_task(model, generator, classes, others, way, shot, options):
    """Returns the results of a task: numbers by name, and probabilities and labels of queries."""
    support, labels, queries, right, near = draw(generator, classes, way, shot, options.num_query)
    groups = {"alarms": queries}
    for name, arrays in (("near", near), ("far", others)):
        if arrays:
            pool = np.concatenate(arrays)
            groups[name] = pool[generator.permutation(len(pool))[: options.num_foreign]]
    everything = np.concatenate([support, *groups.values()])
    known = np.concatenate([labels, np.zeros(len(everything) - len(labels), int)])
    places = np.arange(len(everything))
    logits = model.ask(everything, known)(places[: len(labels)], places[len(labels) :])
    if model.model.has_features:
        near_of = estimate_of.nearness(
            everything[len(labels) :], estimate_of.class_means(support, labels, way)
        )
    else:
        near_of = estimate_of.certainty(logits)
    found = model.estimate(support, labels)
    foreign = near_of < estimate_of.threshold(found.nearness)
    ends = np.cumsum([len(group) for group in groups.values()])[:-1]
    numbers = {
        name: part.mean() for name, part in zip(groups, np.split(foreign, ends), strict=True)
    }
    answers = logits[: len(right)]
    accuracy = float(np.mean(answers.argmax(axis=1) == right))
    numbers |= {"accuracy": accuracy, "estimate": found.accuracy}
    numbers |= {"low": found.low, "high": found.high}
    numbers["named"] = len(estimate_of.contradicted(found, labels)) / len(labels)
    if shot > 2 and model.model.has_features:  # one picture in a wrong class
        place = int(generator.integers(len(labels)))
        labels[place] = (labels[place] + 1 + generator.integers(way - 1)) % way
        named = estimate_of.contradicted(model.estimate(support, labels), labels)
        numbers["planted"] = place in named
    raw, calibrated = (estimate_of.softmax(answers / t) for t in (1.0, found.temperature))
    return numbers, raw, calibrated, right


def calibration_error(probabilities, labels):
    """Returns the mean distance of confidence and accuracy, over bins of the confidence."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return round(float(np.abs(np.bincount(bins, confidence - right, BINS)).sum() / len(labels)), 4)


def percent(values):
    """Returns a mean over tasks with half of its 95 % interval, in percent."""
    values = np.asarray(values, float)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return [round(100 * float(values.mean()), 2), round(100 * float(half), 2)]


def summary(numbers):
    """Returns the means over tasks, and the ends of each interval, for a row."""
    values = {name: np.asarray([one[name] for one in numbers], float) for name in numbers[0]}
    accuracy, expected, low, high = (values[name] for name in EACH)
    values["above"] = accuracy - expected
    values["covered"] = (low <= accuracy) & (accuracy <= high)
    values["too_low"], values["too_high"] = accuracy > high, accuracy < low
    values["width"] = high - low
    means = {name: percent(each) for name, each in values.items() if name not in ("low", "high")}
    each = {name: [round(100 * float(one), 2) for one in values[name]] for name in EACH}
    return {**means, "each": each}


def measure(model, classes, others, way, shot, tasks, options):
    """Returns the means of all numbers over tasks of one kind, as a row."""
    generator = np.random.default_rng(options.seed)
    each = [
        one_task(model, generator, classes, others, way, shot, options)
        for _ in tqdm.trange(tasks, disable=None)
    ]
    numbers, raw, calibrated, right = zip(*each, strict=True)
    right = np.concatenate(right)
    return {
        **summary(numbers),
        "calibration_error": calibration_error(np.concatenate(raw), right),
        "calibrated_error": calibration_error(np.concatenate(calibrated), right),
        "queries": len(right),
    }


def main():
    """Measures all tasks and prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument(
        "--pictures", required=True, nargs="+", help="folders with a folder for each class"
    )
    parser.add_argument("--task", required=True, nargs="+", help="as 5,5,200: way, shot, tasks")
    parser.add_argument(
        "--num_query", type=int, default=40, help="largest number of queries of a class"
    )
    parser.add_argument("--num_foreign", type=int, default=50)
    parser.add_argument(
        "--most", type=int, default=100, help="largest number of pictures of a class"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", help="a folder to store features in")
    parser.add_argument("--out", help="a JSON file; the rows are added to it")
    options = parser.parse_args()
    model = Model(options.model)
    kept = {
        pathlib.Path(folder).name: model.keep(folder, options.most, options.cache)
        for folder in options.pictures
    }
    names = list(kept)
    for text in options.task:
        way, shot, tasks = map(int, text.split(","))
        for place, name in enumerate(names):
            far = names[(place + 1) % len(names)]
            others = list(kept[far].values()) if far != name else []
            row = {
                "model": model.settings,
                "pictures": name,
                "others": far if others else None,
                "num_way": way,
                "num_shot": shot,
                "tasks": tasks,
                "seed": options.seed,
                "commit": commit(),
                **measure(model, kept[name], others, way, shot, tasks, options),
            }
            print(json.dumps(row), flush=True)
            if options.out:
                path = pathlib.Path(options.out)
                rows = json.loads(path.read_text()) if path.exists() else []
                path.write_text(json.dumps([*rows, row], indent=1) + "\n")


if __name__ == "__main__":
    main()

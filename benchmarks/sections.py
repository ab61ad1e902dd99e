"""The measurements. Each section runs in a separate process and returns a list of rows.

python benchmarks/sections.py NAME      prints the rows as JSON
"""

import dataclasses
import json
import pathlib
import sys
import tempfile
import time

import tf_metalstm  # noqa: F401  # before TensorFlow, to switch oneDNN on as the commands do

# isort: split
import numpy as np
import tensorflow as tf
from measure import multiply_rate, peak_bytes, timed
from optimizers import SECTIONS as OPTIMIZERS
from subject import NUM_WAY, Case, build, episode, operations, update

from tf_metalstm.data.episodes import EpisodeSampler, ImageEpisodes, episode_dataset
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.data.sources.base import ClassImages
from tf_metalstm.episode import EpisodeSpec, Support
from tf_metalstm.objectives import CLASSIFICATION
from tf_metalstm.serving.saved_model import save_method
from tf_metalstm.serving.served import ServedMethod

FIVE_SHOT, ONE_SHOT = Case(), Case(num_shot=1, num_steps=12)


def _update_row(case, repeats=8):
    """Returns the times of meta-updates; measures the matrix product before and after."""
    method = build(case)
    make_update = update(method, case)
    began = time.perf_counter()
    make_update()
    tracing = time.perf_counter() - began
    rate = multiply_rate()
    row = timed(make_update, repeats, warm_up=1)
    rate = max(rate, multiply_rate())
    floor = operations(method, case) / rate
    return {
        **dataclasses.asdict(case),
        **row,
        "first_call_seconds": tracing,
        "multiply_rate": rate,
        "floor_seconds": floor,
        "times_the_floor": row["seconds"] / floor,
    }


def updates():
    """Measures a meta-update for several shots, T, image sizes and E."""
    cases = [
        dataclasses.replace(case, image_size=size, episodes_per_step=episodes)
        for size in (28, 84)
        for case in (FIVE_SHOT, ONE_SHOT)
        for episodes in (1, 4)
    ]
    return [_update_row(case, repeats=8 if case.episodes_per_step == 1 else 4) for case in cases]


def rules():
    """Measures the same episode with several rules."""
    cases = [
        FIVE_SHOT,
        dataclasses.replace(FIVE_SHOT, rule="sgd"),
        dataclasses.replace(FIVE_SHOT, rule="sgd", second_order=True),
        dataclasses.replace(FIVE_SHOT, rule="meta_sgd", second_order=True),
    ]
    return [_update_row(case) for case in cases]


def modes():
    """Measures the effect of options, and eager execution."""
    # XLA comes first, because a process cannot switch deterministic operations off again.
    switched = {
        "xla": {"jit_compile": True, "deterministic": False},
        "graph": {},
        "recompute": {"recompute": True},
        "bfloat16": {"precision": "bfloat16"},
    }
    rows = [
        {"mode": mode, **_update_row(dataclasses.replace(FIVE_SHOT, **changes), repeats=6)}
        for mode, changes in switched.items()
    ]
    for case in (ONE_SHOT, dataclasses.replace(ONE_SHOT, recompute=True)):
        mode = "recompute" if case.recompute else "graph"
        rows.append({"mode": mode, **_update_row(case, repeats=10)})
    method = build(FIVE_SHOT)
    method.run_eagerly = True
    inputs, labels = episode(FIVE_SHOT)
    row = timed(lambda: method.train_on_batch(inputs, labels), repeats=3, warm_up=1)
    return [*rows, {"mode": "eager", **row}]


def not_deterministic():
    """Measures meta-updates without deterministic operations."""
    cases = [dataclasses.replace(case, deterministic=False) for case in (FIVE_SHOT, ONE_SHOT)]
    return [_update_row(case) for case in cases]


def growth():
    """Measures the time for several T and several P."""
    cases = [dataclasses.replace(ONE_SHOT, num_steps=steps) for steps in (1, 5, 12, 24)]
    cases += [dataclasses.replace(ONE_SHOT, filters=filters) for filters in (16, 48)]
    return [_update_row(case, repeats=5) for case in cases]


def parts():
    """Measures each part of a meta-update alone."""
    rows = []
    for case in (FIVE_SHOT, ONE_SHOT):
        method = build(case)
        (inputs, labels), learner, rule = episode(case), method.learner, method.rule
        support = Support(inputs["support_inputs"][0], inputs["support_labels"][0])
        theta = tf.constant(learner.initial_parameters())
        statistics = tf.constant(learner.initial_statistics())
        gradient = tf.random.stateless_normal(theta.shape, [1, 2]) * 1e-3

        def passes(images, targets, learner=learner, theta=theta, statistics=statistics):
            with tf.GradientTape() as tape:
                tape.watch(theta)
                outputs, _ = learner.apply(theta, statistics, images, training=True)
                loss = CLASSIFICATION.loss(targets, outputs)
            return tape.gradient(loss, theta)

        def rule_only(backward, case=case, rule=rule, theta=theta, gradient=gradient):
            def run():
                with tf.GradientTape() as tape:
                    moved, state = theta, rule.initial_state(theta)
                    for _ in range(case.num_steps):
                        moved, state = rule(gradient, tf.constant(1.0), moved, state)
                    total = tf.reduce_sum(moved)
                if not backward:
                    return total
                gradients = tape.gradient(total, rule.trainable_variables)
                return tf.add_n([tf.reduce_sum(g) for g in gradients])

            return run

        def support_passes(case=case, support=support, passes=passes):
            total = 0.0
            for step in range(case.num_steps):  # TensorFlow would merge passes with equal inputs
                total += tf.reduce_sum(passes(support.inputs * (1.0 + step), support.labels))
            return total

        def convolutions(case=case, learner=learner, inputs=inputs):
            support_images, queries = inputs["support_inputs"][0], inputs["query_inputs"][0]
            batches = [support_images * (1.0 + step) for step in range(case.num_steps)]
            return sum(_convolutions(learner.model, images) for images in (*batches, queries))

        def outer_step(method=method):
            variables = method.trainable_variables
            method.optimizer.apply([tf.ones(v.shape, v.dtype) for v in variables], variables)
            return tf.reduce_sum(variables[0])

        measured = {
            "convolutions alone": convolutions,
            "outer step": outer_step,
            "support passes": support_passes,
            "query pass": lambda p=passes, i=inputs, y=labels: tf.reduce_sum(
                p(i["query_inputs"][0], y[0])
            ),
            "rule forward": rule_only(False),
            "rule forward and backward": rule_only(True),
        }
        whole = _update_row(case)["seconds"]
        for part, function in measured.items():
            compiled = tf.function(function)
            row = timed(lambda f=compiled: f().numpy(), repeats=8)
            share = row["seconds"] / whole
            rows.append({"case": f"{case.num_shot}-shot", "part": part, **row, "share": share})
        rows.append({"case": f"{case.num_shot}-shot", "part": "whole update", "seconds": whole})
    return rows


def _convolutions(model, images):
    """Runs only the convolutions of one pass and their two gradients, on random images."""
    total = 0.0
    for layer in model.layers:
        if not hasattr(layer, "kernel") or len(layer.kernel.shape) != 4:
            continue
        kernel = tf.convert_to_tensor(layer.kernel)
        shape = [images.shape[0], *layer.input.shape[1:]]
        # The inputs depend on the images, so that TensorFlow does not merge passes.
        inputs = images if layer.input.shape[-1] < 32 else tf.fill(shape, images[0, 0, 0, 0])
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            if inputs is not images:  # the gradient of the images themselves is never needed
                tape.watch(inputs)
            outputs = tf.nn.conv2d(inputs, kernel, 1, "SAME")
        sources = [kernel] if inputs is images else [kernel, inputs]
        results = [outputs, *tape.gradient(outputs, sources)]
        total += sum(tf.reduce_sum(x[:1]) for x in results)
    return total


def memory(num_steps, recompute, **changes):
    """Measures the peak memory of a meta-update with T updates."""
    case = dataclasses.replace(ONE_SHOT, num_steps=num_steps, recompute=recompute, num_query=1)
    case = dataclasses.replace(case, **changes)
    method = build(case)
    make_update = update(method, case)
    for _ in range(3):
        make_update()
    row = timed(make_update, repeats=3, warm_up=0)
    return [
        {
            "num_steps": num_steps,
            "recompute": recompute,
            "parameters": method.learner.num_parameters,
            "peak_bytes": peak_bytes(),
            **row,
        }
    ]


def data():
    """Measures the episodes per second of the pipeline alone."""
    rows = []
    for size, channels in ((28, 1), (84, 3)):
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (64 * 60, size, size, channels), dtype=np.uint8)
        classes = ClassImages(images, np.full([64], 60), tuple(f"class_{i}" for i in range(64)))
        for shot in (1, 5):
            sampler = EpisodeSampler(classes, "train", EpisodeSpec(NUM_WAY, shot, 15), seed=0)
            normalization = Normalization((0.0,) * channels, (255.0,) * channels)
            stream = iter(episode_dataset(ImageEpisodes(sampler, normalization)))

            def hundred(stream=stream):
                for _ in range(100):
                    next(stream)

            row = timed(hundred, repeats=5)
            rate = 100 / row["seconds"]
            rows.append({"image_size": size, "num_shot": shot, "episodes_per_second": rate})
    return rows


def training():
    """Measures a meta-update on the same episode each time, and on episodes of the pipeline."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (64 * 60, 84, 84, 3), dtype=np.uint8)
    classes = ClassImages(images, np.full([64], 60), tuple(f"class_{i}" for i in range(64)))
    rows = []
    for case in (FIVE_SHOT, ONE_SHOT):
        sampler = EpisodeSampler(classes, "train", EpisodeSpec(NUM_WAY, case.num_shot, 15))
        normalization = Normalization((120.0,) * 3, (70.0,) * 3)
        pipeline = episode_dataset(ImageEpisodes(sampler, normalization))
        method = build(case)
        for source, dataset in (("one episode", None), ("pipeline", pipeline)):
            row = timed(update(method, case, dataset), repeats=12)
            rows.append({"case": f"{case.num_shot}-shot", "source": source, **row})
    return rows


def served():
    """Measures the SavedModel in a program without the package."""
    case = FIVE_SHOT
    method = build(case)
    shape = case.image_shape
    normalization = Normalization((0.0,) * 3, (255.0,) * 3)
    inputs, _ = episode(case)
    support = {
        "support_images": inputs["support_inputs"][0],
        "support_labels": inputs["support_labels"][0],
    }
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder, "model")
        save_method(ServedMethod(method, normalization, shape, NUM_WAY), target)
        began = time.perf_counter()
        model = tf.saved_model.load(str(target))
        load = time.perf_counter() - began
        adapt, predict = model.signatures["adapt"], model.signatures["predict"]
        began = time.perf_counter()
        support["num_steps"] = tf.constant(case.num_steps)
        adapted = adapt(**support)
        first = time.perf_counter() - began
        state = {name: value for name, value in adapted.items() if name in _arguments(predict)}
        queries = inputs["query_inputs"][0]
        rows = [
            {"what": "load", "seconds": load},
            {"what": "adapt, first call", "seconds": first},
            {"what": "adapt", **timed(lambda: _wait(adapt(**support)))},
            {"what": "predict 75", **timed(lambda: _wait(predict(query_images=queries, **state)))},
        ]
    return rows


def _arguments(signature):
    return signature.structured_input_signature[1]


def _wait(outputs):
    return [value.numpy() for value in outputs.values()]


SECTIONS = {
    "updates": updates,
    "rules": rules,
    "modes": modes,
    "not_deterministic": not_deterministic,
    "growth": growth,
    "parts": parts,
    "data": data,
    "served": served,
    "training": training,
    **{
        f"memory_{steps}_{'recompute' if recompute else 'keep'}": (
            lambda steps=steps, recompute=recompute: memory(steps, recompute)
        )
        for steps in (2, 12, 24, 48, 100)
        for recompute in (False, True)
    },
    **{
        f"memory_wide_{steps}_{'recompute' if recompute else 'keep'}": (
            lambda steps=steps, recompute=recompute: memory(
                steps, recompute, image_size=28, filters=64
            )
        )
        for steps in (8, 24)
        for recompute in (False, True)
    },
    **OPTIMIZERS,
}

if __name__ == "__main__":
    print(json.dumps(SECTIONS[sys.argv[1]]()))

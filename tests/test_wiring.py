"""What is said reaches what is built: every setting of the method, of the training, of the data."""

import dataclasses
import itertools

import numpy as np
import pytest
import toy

from tf_metalstm import evaluate, experiment, train
from tf_metalstm.construction import build_method
from tf_metalstm.data.sources.glyphs import Glyphs
from tf_metalstm.flags import parse_settings
from tf_metalstm.settings import MethodSettings, TrainingSettings


@pytest.fixture
def source(monkeypatch):
    found = toy.ToySource()
    monkeypatch.setattr(experiment, "make_source", lambda *args, **options: found)
    return found


def parse(*arguments):
    return parse_settings(arguments)


SMALL = ("--num_way=3", "--num_shot=2", "--num_query=3", "--filters=4", "--normalization=unit")
SMALL += ("--max_steps=4", "--checkpoint_every=2", "--validate_every=4", "--validation_episodes=2")


def rule(name):
    return lambda method: method.rule.get_config()[name]


def layer(network, name, attribute):
    def look(method):
        model = method.learner.model if network == "learner" else getattr(method, network)
        return getattr(model.get_layer(name), attribute)

    return look


def layers(method):
    network = method.learner.model if hasattr(method, "learner") else method.embedding
    return {one.name for one in network.layers}


def linear_layer_is_zero(method):
    return not np.any(method.c_0[method.learner.num_before_last_layer() :])


# Of each setting: what else has to be said, the setting, what is looked at, what is to be seen.
SGD, META_SGD, MLP = ("--rule=sgd",), ("--rule=meta_sgd",), ("--learner=mlp",)
MATCHING, NEIGHBOR = ("--method=matching_networks",), ("--method=nearest_neighbor",)
FULL_CONTEXT = (*MATCHING, "--full_context")
METHOD = {
    "method": ((), "matching_networks", lambda m: m.name, "matching_networks"),
    "rule": ((), "sgd", lambda m: type(m.rule).__name__, "SGD"),
    "hidden_units": ((), "3", rule("hidden_units"), 3),
    "gate_feedback": ((), "logit", rule("gate_feedback"), "logit"),
    "preprocessing_scale": ((), "7", rule("preprocessing_scale"), 7.0),
    "inner_rate": (SGD, "0.3", rule("rate"), 0.3),
    "inner_decay": (SGD, "0.5", rule("decay"), 0.5),
    "learn_inner_rate": (SGD, "true", rule("learned"), True),
    "meta_sgd_rates": (META_SGD, "0.2,0.3", lambda m: (m.rule.low, m.rule.high), (0.2, 0.3)),
    "learner": ((), "mlp", lambda m: m.learner.model.name, "mlp"),
    "num_outputs": ((), "7", lambda m: m.num_outputs, 7),
    "num_training_classes": (NEIGHBOR, "9", lambda m: m.network.output_shape[-1], 9),
    "learn_c_0": ((), "false", lambda m: m.c_0.trainable, False),
    "learn_linear": ((), "false", lambda m: m._num_learned < m.learner.num_parameters, True),
    "dropout": (MATCHING, "0.3", lambda m: "dropout_1" in layers(m), True),
    "similarity": (MATCHING, "sum", lambda m: m.similarity, "sum"),
    "cosine_scale": (MATCHING, "3", lambda m: m.cosine_scale, 3.0),
    "full_context": (MATCHING, "true", lambda m: m.query_context is not None, True),
    "attention_steps": (FULL_CONTEXT, "2", lambda m: m.query_context.attention_steps, 2),
    "filters": ((), "6", layer("learner", "conv_4", "filters"), 6),
    "downsampling": ((), "stride", layer("learner", "conv_1", "strides"), (2, 2)),
    "features": ((), "mean", lambda m: "mean" in layers(m), True),
    "hidden_layers": (MLP, "9,8", layer("learner", "hidden_1", "units"), 9),
    "mlp_batch_normalization": (MLP, "true", lambda m: "norm_1" in layers(m), True),
    "batch_norm_scale": ((), "false", layer("learner", "norm_1", "scale"), False),
    "learner_initialization": ((), "zero_linear", linear_layer_is_zero, True),
    "learner_precision": ((), "bfloat16", layer("learner", "conv_1", "compute_dtype"), "bfloat16"),
    "statistics_momentum": ((), "0.7", layer("learner", "norm_4", "momentum"), 0.7),
    "num_steps": ((), "3", lambda m: m.inner_loop.num_steps, 3),
    "num_evaluation_steps": ((), "9", lambda m: (m.num_updates, m.inner_loop.num_steps), (9, 5)),
    "support_batch_size": ((), "4", lambda m: m.evaluation_loop.batch_size, 4),
    "second_order": ((), "true", lambda m: m.inner_loop.second_order, True),
    "gradient_divisor": ((), "batch_size", lambda m: m.inner_loop.gradient_divisor, "batch_size"),
    "recompute": ((), "true", lambda m: m.inner_loop.recompute, True),
    "query_normalization": ((), "batch", lambda m: m.query_normalization, "batch"),
}
OF_START = {"pretrained_run_dir", "kernel_scale"}  # what `start` does, see test_baselines


@pytest.mark.parametrize("name", METHOD)
def test_a_setting_of_the_method_reaches_it(name, source):
    context, value, look, expected = METHOD[name]
    found = []
    for said in ((), (f"--{name}={value}",)):
        settings = parse(*SMALL, *context, *said)
        found.append(look(build_method(settings, experiment.build_tasks(settings.data))))
    assert found[1] == expected
    assert found[0] != expected


def test_no_setting_of_the_method_escapes():
    assert METHOD.keys() | OF_START == {field.name for field in dataclasses.fields(MethodSettings)}


class CalledError(Exception):
    """Ends a training where it would begin."""


@pytest.fixture
def started(source, monkeypatch, tmp_path):
    """What `train` hands to the outer loop, for flags."""
    numbers = itertools.count()

    def start(*arguments):
        given = {}

        def outer_loop(method, training, validation, schedule, *_, **__):
            given.update(method=method, validation=validation, schedule=schedule)
            given["inputs"] = next(iter(training(0)))[0]
            raise CalledError

        monkeypatch.setattr(train, "train", outer_loop)
        run_dir = tmp_path / str(next(numbers))
        with pytest.raises(CalledError):
            train.main(dataclasses.replace(parse(*SMALL, *arguments), run_dir=str(run_dir)))
        return given

    return start


def schedule(name):
    return lambda given: getattr(given["schedule"], name)


def rate(step):
    def look(given):
        found = given["method"].optimizer._learning_rate
        return float(found(step) if callable(found) else found)

    return look


def optimizer(name):
    return lambda given: getattr(given["method"].optimizer, name)


def images(given):
    return given["inputs"]["query_inputs"].shape[:2].as_list()


LOOSE = ("--nodeterministic",)
TRAINING = {
    "max_steps": ((), "6", schedule("max_steps"), 6),
    "max_minutes": ((), "7", schedule("max_minutes"), 7.0),
    "checkpoint_every": ((), "1", schedule("checkpoint_every"), 1),
    "validate_every": ((), "8", schedule("validate_every"), 8),
    "learning_rate": ((), "0.5", rate(0), pytest.approx(0.5)),
    "warmup_steps": ((), "10", rate(5), pytest.approx(5e-4)),
    "decay_steps": ((), "10", rate(1000), pytest.approx(1e-5)),
    "weight_average": ((), "0.9", optimizer("ema_momentum"), 0.9),
    "clip_norm": ((), "3", optimizer("clip_norm"), 3.0),
    "clip_value": ((), "4", optimizer("clip_value"), 4.0),
    "joint_batch_size": (NEIGHBOR, "12", images, [1, 12]),
    "episodes_per_step": ((), "2", images, [2, 9]),
    "vectorize_episodes": (MLP, "true", lambda given: given["method"].vectorize_episodes, True),
    "validation_episodes": ((), "3", lambda given: int(given["validation"].cardinality()), 3),
    "jit_compile": ((), "true", lambda given: given["method"].jit_compile, True),
}
# The seed: see below. Devices: test_workers. Determinism cannot be switched off again in a process.
ELSEWHERE = {"seed", "strategy", "deterministic"}


@pytest.mark.parametrize("name", TRAINING)
def test_a_setting_of_the_training_reaches_it(name, started):
    context, value, look, expected = TRAINING[name]
    assert look(started(*LOOSE, *context, f"--{name}={value}")) == expected
    assert look(started(*LOOSE, *context)) != expected


def test_no_setting_of_the_training_escapes():
    names = {field.name for field in dataclasses.fields(TrainingSettings)}
    assert TRAINING.keys() | ELSEWHERE == names


def test_the_seed_is_that_of_the_weights_and_of_the_episodes(started):
    given = [started(*LOOSE, f"--seed={seed}") for seed in (1, 1, 2)]
    for values in (
        [one["method"].c_0.numpy() for one in given],
        [one["inputs"]["query_inputs"].numpy() for one in given],
    ):
        np.testing.assert_array_equal(values[0], values[1])
        assert np.abs(values[0] - values[2]).max() > 1e-3


def are_of(images, split):
    """Whether all images, divided by 255, are images of a split."""
    known = {image.tobytes() for image in toy.glyph_like_classes(8, seed=len(split)).images}
    pixels = np.round(255.0 * images.numpy()).astype(np.uint8).reshape(-1, 16, 16, 1)
    return all(image.tobytes() in known for image in pixels)


@pytest.mark.parametrize("method", ["gradient_based", "nearest_neighbor"])
def test_every_command_takes_the_classes_of_its_split(method, source, started, tmp_path):
    given = started(*LOOSE, f"--method={method}")
    assert are_of(given["inputs"]["query_inputs"], "train")
    for inputs, _ in given["validation"]:
        assert are_of(inputs["support_inputs"], "validation")
        assert are_of(inputs["query_inputs"], "validation")
    assert set(source.asked) == {"train", "validation"}


@pytest.mark.parametrize("split", ["test", "validation", "train"])
def test_evaluate_takes_the_split_that_it_names(split, source, monkeypatch, tmp_path):
    settings = parse(*SMALL, *LOOSE, "--rule=sgd", "--num_steps=1", f"--split={split}")
    evaluation = dataclasses.replace(settings.evaluation, num_episodes=2)
    settings = dataclasses.replace(settings, run_dir=str(tmp_path / "run"), evaluation=evaluation)
    train.main(settings)
    source.asked.clear()
    seen = []
    scores = evaluate.episode_scores

    def looking(method, stream, num_outputs):
        seen.extend(inputs["query_inputs"] for inputs, _ in stream)
        return scores(method, stream, num_outputs)

    monkeypatch.setattr(evaluate, "episode_scores", looking)
    evaluate.main(settings)
    assert len(seen) == 2
    assert all(are_of(images, split) for images in seen)
    assert set(source.asked) == {split}


def test_only_training_is_augmented(source):
    tasks = experiment.build_tasks(parse(*SMALL, "--augmentation=flip").data)
    trained, looked_at = (
        tasks.episodes("train", 0, training=training)(0)[0]["query_inputs"]
        for training in (True, False)
    )
    assert are_of(looked_at, "train")
    assert not are_of(trained, "train")
    joint, _ = tasks.joint_batches(64, 0)(0)
    assert not are_of(joint["query_inputs"], "train")


def test_classes_are_consumed_in_permutations_in_training_alone(source):
    plain, permuted = (
        experiment.build_tasks(parse(*SMALL, f"--class_sampling={name}").data)
        for name in ("independent", "permutation")
    )
    in_training, fixed = (
        [
            tasks.episodes("train", 0, training=training).fingerprint(5)
            for tasks in (plain, permuted)
        ]
        for training in (True, False)
    )
    assert in_training[0] != in_training[1]
    assert fixed[0] == fixed[1]
    assert fixed[0] not in in_training


def test_the_normalization_is_the_one_that_was_asked_for(source):
    for name, expected in (("unit", (0.0, 255.0)), ("standard", (100.0, 50.0))):
        tasks = experiment.build_tasks(parse(*SMALL, f"--normalization={name}").data)
        [mean], [deviation] = tasks.normalization
        assert (mean, deviation) == expected


def test_the_ranges_of_the_waves_are_those_of_their_flags():
    said = ("--source=sine", "--sine_frequencies=2,3", "--sine_phases=7,8")
    wave = experiment.build_tasks(parse(*said).data).episodes("test", 0).wave(0)
    _, frequency, phase = (float(number) for number in wave)
    assert 2.0 <= frequency <= 3.0
    assert 7.0 <= phase <= 8.0


def test_what_a_source_takes_is_handed_to_it(monkeypatch):
    given = {}
    monkeypatch.setattr(
        experiment, "make_source", lambda name, **options: given.update(options) or Glyphs()
    )
    said = ("--source=omniglot", "--data_dir=a", "--prepared_dir=b", "--image_size=20")
    said += ("--skip_corrupt", "--omniglot_split=alphabets", "--noomniglot_rotations")
    wanted = {
        "data_dir": "a",
        "prepared_dir": "b",
        "image_size": 20,
        "skip_corrupt": True,
        "split": "alphabets",
        "rotations": False,
    }
    experiment.build_tasks(parse("--source=omniglot").data)
    assert all(given.get(name) != value for name, value in wanted.items())
    experiment.build_tasks(parse(*said).data)
    assert given == wanted

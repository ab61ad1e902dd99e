"""Tests what every method must do. A method in the catalogue is tested automatically."""

import functools
import json
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm import experiment
from tf_metalstm.construction import build_method, build_tasks, resolve
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.graphs import graph_function
from tf_metalstm.methods.catalogue import METHODS
from tf_metalstm.methods.few_shot import FewShotMethod
from tf_metalstm.options import options_of
from tf_metalstm.rules.catalogue import RULES
from tf_metalstm.serving.served import ServedMethod
from tf_metalstm.serving.signatures import build_signatures
from tf_metalstm.settings import OptimizerOptions, make_settings
from tf_metalstm.training.checkpoints import RunCheckpoints
from tf_metalstm.training.outer_loop import compile_method

SHAPE = (16, 16, 1)
NUM_WAY = 3
PIXELS = Normalization((0.0,), (255.0,))


def company(member):
    """Returns options beside the method that keep it small."""
    if "streams" in member.kinds:
        sizes = {"num_way": 2, "num_showings": 3, "controller_units": 8}
        return {"source": "toy_stream", **sizes}
    if "images" not in member.kinds:
        return {"source": "quadratics", "rule": "sgd", "learn_inner_rate": True}
    said = {"source": "toys", "normalization": "unit", "num_shot": 2, "num_query": 3}
    said["num_way"] = NUM_WAY
    if "learner" in member.part.needs:
        said |= toy.CONV4 if member.part.name == "relation_networks" else toy.MLP
        said["statistics_momentum"] = 0.8
    if "rule" in member.part.needs:
        said |= {"num_steps": 2, "statistics_momentum": 0.05}
    if "logistic_steps" in options_of(member.part.options):
        said["logistic_steps"] = 5
    return said


def variants():
    """Returns every method with its defaults, with rules, and with each choice of its own."""
    found, shared = {}, set()
    for member in METHODS:
        name, said = member.part.name, {"method": member.part.name, **company(member)}
        found[name] = said
        if member.part.name == METHODS.default:  # rules are the same in all methods
            others = [rule for rule in toy.FEW_SHOT_RULES if rule != RULES.default]
            found |= {f"{name}-{rule}": {**said, "rule": rule} for rule in others}
        for each in options_of(member.part.options).values():
            if each.training_only or each.name in shared:
                continue
            if (
                each.owner is not member.part.options
            ):  # a base class: tested with one of its methods
                shared.add(each.name)
            others = each.choices or ((True,) if each.kind is bool else ())
            for value in others:
                if value not in (each.default, "batch"):  # "batch" is transductive
                    found[f"{name}-{each.name}={value}"] = {**said, each.name: value}
    return found


VARIANTS = variants()
FEW_SHOT = [
    name for name, said in VARIANTS.items() if issubclass(METHODS[said["method"]], FewShotMethod)
]
TRAINED = [name for name, said in VARIANTS.items() if METHODS[said["method"]].is_trained]
# One variant of each method for tests that do not depend on options, and rules for training.
CLASSES = METHODS.names()
TO_TRAIN = [name for name in TRAINED if "=" not in name]


def depends_on_order(method):
    """Whether the order of the support images matters, because an LSTM reads them."""
    return getattr(method, "support_context", None) is not None


def parts(name):
    settings = make_settings(VARIANTS[name])
    tasks = build_tasks(settings)
    return resolve(settings, tasks), tasks


def build(name):
    return build_method(*parts(name))


@pytest.fixture(params=VARIANTS)
def name(request):
    return request.param


@functools.cache
def built(name):
    """Builds one method for all tests that do not change it."""
    return build(name)


@pytest.fixture(params=FEW_SHOT)
def few_shot(request):
    return built(request.param)


@functools.cache
def answers(name):
    """Returns the outputs of the method for `one_step()`."""
    return built(name)(one_step()[0], training=False).numpy()


def episodes(num_episodes=1, start=0, episodes_per_step=1, num_way=NUM_WAY):
    settings = make_settings({"source": "toys", "normalization": "unit", "num_way": num_way})
    settings = settings.changed(num_shot=2, num_query=3)
    stream = build_tasks(settings).episodes("validation", 0)
    return episode_dataset(
        stream, start=start, num_episodes=num_episodes, episodes_per_step=episodes_per_step
    )


@functools.cache
def one_step(**arguments):
    return next(iter(episodes(**arguments)))


@functools.cache
def tasks_of(name, **arguments):
    """Returns a training step of tasks for the method."""
    _, tasks = parts(name)
    return next(iter(episode_dataset(tasks.episodes("validation", 0), **arguments)))


class Trained(NamedTuple):
    """A short training: the method, and the traces after the first step and in all."""

    method: Any
    first_traces: int
    traces: int


@functools.cache
def trained(name):
    toy.seed(0)
    method = build(name)
    steps, rate = (100, 4e-3) if name in CLASSES else (200, 2e-3)  # rules are slower learners
    compile_method(method, learning_rate=rate)
    traced = []
    call = method.call

    def counting(*args, **kwargs):
        traced.append(1)
        return call(*args, **kwargs)

    method.call = counting
    stream = experiment.training_episodes(*parts(name), start=0)
    method.fit(stream.take(4), verbose=0, shuffle=False)
    first = len(traced)
    method.fit(stream.skip(4).take(steps - 4), verbose=0, shuffle=False)
    del method.call
    return Trained(method, first, len(traced))


def test_it_says_what_it_is(name):
    method = built(name)
    assert method.part.title
    assert json.dumps(method.facts())
    words = method.describe_normalization()
    assert words == "none" or words.startswith("inductive (")
    assert {w.path for w in method.weights} or not method.is_trained


def test_an_answer_for_every_query(few_shot):
    inputs, labels = one_step(num_episodes=2, episodes_per_step=2)
    assert few_shot(inputs, training=False).shape == (*labels.shape, NUM_WAY)


@pytest.mark.parametrize("name", CLASSES)
def test_tasks_do_not_touch_each_other(name):
    answer = graph_function(built(name))
    inputs, _ = tasks_of(name, num_episodes=6, episodes_per_step=6)  # too many episodes to unroll
    together = answer(inputs)
    for i in (0, 2, 5):
        alone = answer({name: x[i : i + 1] for name, x in inputs.items()})
        np.testing.assert_allclose(together[i : i + 1], alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", FEW_SHOT)
def test_queries_do_not_see_each_other(name):
    inputs, _ = one_step()
    changed = dict(inputs)
    others = toy.noise(*inputs["query_inputs"][:, 1:].shape)
    changed["query_inputs"] = tf.concat([inputs["query_inputs"][:, :1], others], axis=1)
    again = built(name)(changed, training=False)
    np.testing.assert_allclose(again[0, 0], answers(name)[0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FEW_SHOT)
def test_the_support_set_matters(name):
    inputs, _ = one_step()
    other, _ = one_step(start=1)
    mixed = {**other, "query_inputs": inputs["query_inputs"]}
    assert np.abs(built(name)(mixed, training=False) - answers(name)).max() > 1e-6


@pytest.mark.parametrize("name", FEW_SHOT)
def test_labels_may_arrive_as_floats(name):
    inputs, _ = one_step()
    as_floats = {**inputs, "support_labels": tf.cast(inputs["support_labels"], tf.float32)}
    np.testing.assert_array_equal(built(name)(as_floats), answers(name))


CYCLES = [np.roll(range(NUM_WAY), -shift) for shift in range(NUM_WAY)]


def permuted(inputs, order):
    """Returns the same episode with its classes in another order: class k becomes order[k]."""
    labels = tf.gather(tf.constant(order), inputs["support_labels"])
    return {**inputs, "support_labels": labels}


@pytest.mark.parametrize("name", FEW_SHOT)
def test_permuted_classes_permute_the_answers(name):
    if not built(name).is_symmetric:
        return  # the next test covers these
    order = [2, 0, 1]
    other = tf.gather(built(name)(permuted(one_step()[0], order)), order, axis=-1)
    np.testing.assert_allclose(other, answers(name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FEW_SHOT)
def test_where_classes_are_not_alike_an_export_is_the_mean_over_relabellings(name):
    method = built(name)
    served = ServedMethod(method, PIXELS, SHAPE, method.num_outputs)
    assert (served.relabellings == 1) == method.is_symmetric
    if depends_on_order(method):
        return
    inputs, _ = one_step()
    support, queries = inputs["support_inputs"][0] * 255.0, inputs["query_inputs"][0] * 255.0
    labels = inputs["support_labels"][0]
    plain, turned = (
        served.answers(served.adapt(support, given)[0], queries)
        for given in (labels, (labels + 2) % NUM_WAY)
    )
    np.testing.assert_allclose(tf.roll(plain, 2, axis=1), turned, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", FEW_SHOT)
def test_the_order_of_the_support_images_does_not_count(name):
    if depends_on_order(built(name)):
        return
    inputs, _ = one_step()
    order = np.random.default_rng(0).permutation(2 * NUM_WAY)
    other = dict(inputs)
    for key in ("support_inputs", "support_labels"):
        other[key] = tf.gather(inputs[key], order, axis=1)
    np.testing.assert_allclose(built(name)(other), answers(name), rtol=1e-2, atol=1e-3)


def test_other_numbers_of_classes(few_shot):
    most = few_shot.num_outputs
    for num_way in (2, 8):
        inputs, labels = one_step(num_way=num_way)
        if most is not None and num_way > most:
            continue
        found = few_shot(inputs)
        assert found.shape == (1, labels.shape[1], most or num_way)
        assert np.all(np.argmax(found, axis=-1) < num_way)


@pytest.mark.parametrize("name", CLASSES)
def test_asking_leaves_no_trace(name):
    """Outside training a call changes no weight of a method, and no running statistics."""
    method = built(name)
    before = [keras.ops.convert_to_numpy(v).copy() for v in method.variables]
    method(tasks_of(name)[0], training=False)
    for one, other in zip(before, method.variables, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in CLASSES))
        for name in TO_TRAIN
        if name in FEW_SHOT
    ],
)
def test_training_helps_on_unseen_episodes_and_noise_stays_at_chance(name):
    toy.seed(0)
    start = build(name)
    method = trained(name).method
    for before, after in zip(start.trainable_weights, method.trainable_weights, strict=True):
        assert np.abs(before.numpy() - after.numpy()).max() > 1e-5, after.path
    scores = method.evaluate(episodes(30, start=1000), verbose=0, return_dict=True)
    # Chance is 0.33. How far above it a method gets depends on the seed and the processor.
    assert scores["accuracy"] > 0.6
    scores = method.evaluate(
        episodes(30, start=1000).enumerate().map(with_noise), verbose=0, return_dict=True
    )
    assert abs(scores["accuracy"] - 1 / NUM_WAY) < 0.1


def with_noise(number, episode):
    """Returns the same episode with images of noise."""
    inputs, labels = episode
    noise = {
        name: tf.random.stateless_uniform(tf.shape(inputs[name]), [number, seed])
        for seed, name in enumerate(("support_inputs", "query_inputs"))
    }
    return {**inputs, **noise}, labels


PROBLEMS = [n for n in TO_TRAIN if METHODS[VARIANTS[n]["method"]].kinds == ("problems",)]


@pytest.mark.parametrize("name", PROBLEMS)
def test_training_lowers_the_losses_of_unseen_problems(name):
    problems = tasks_of(name, num_episodes=32, episodes_per_step=32)[0]
    before = np.mean(build(name)(problems)[:, -1])
    assert np.mean(trained(name).method(problems)[:, -1]) < 0.9 * before


@pytest.mark.parametrize("name", CLASSES)
def test_checkpoints_bring_everything_back(name, tmp_path):
    method = trained(name).method if name in TRAINED else build(name)
    RunCheckpoints(tmp_path, method).save(3, 0.0)
    toy.seed(1)
    fresh = build(name)
    assert RunCheckpoints(tmp_path, fresh).restore()
    inputs, _ = tasks_of(name)
    np.testing.assert_array_equal(method(inputs), fresh(inputs))


def test_is_saved_and_loaded_as_a_keras_model(name, tmp_path):
    method = build(name)
    for index, weight in enumerate(method.weights):  # so that the test sees every weight
        noise = np.random.default_rng(index).uniform(0.0, 0.01, weight.shape)
        weight.assign(weight + noise)
    if name in TO_TRAIN:
        compile_method(method)
    method.save(tmp_path / "method.keras")
    loaded = keras.models.load_model(tmp_path / "method.keras")
    assert type(loaded) is type(method)
    assert [w.path for w in loaded.weights] == [w.path for w in method.weights]
    inputs, _ = tasks_of(name)
    np.testing.assert_array_equal(loaded(inputs, training=False), method(inputs, training=False))


@pytest.mark.parametrize("name", FEW_SHOT)
def test_its_signatures_answer_as_the_method(name):
    method = built(name)
    served = ServedMethod(method, PIXELS, SHAPE, method.num_outputs)
    _, signatures = build_signatures(served)
    inputs, _ = one_step()
    found = signatures["classify"](
        support_images=inputs["support_inputs"][0] * 255.0,
        support_labels=inputs["support_labels"][0],
        query_images=inputs["query_inputs"][0] * 255.0,
    )
    several = [
        np.roll(tf.nn.softmax(method(permuted(inputs, order))[0]), -shift, axis=1)
        for shift, order in enumerate(CYCLES[: served.relabellings])
    ]
    np.testing.assert_allclose(
        found["probabilities"], np.mean(several, axis=0), rtol=1e-3, atol=1e-4
    )


BY_UPDATES = [
    name
    for name in CLASSES
    if name in FEW_SHOT and "num_steps" in options_of(METHODS[name].part.options)
]


@pytest.mark.parametrize("name", BY_UPDATES)
def test_the_number_of_updates_is_that_which_was_asked_for(name):
    method = built(name)
    _, signatures = build_signatures(ServedMethod(method, PIXELS, SHAPE, method.num_outputs))
    inputs, _ = one_step()
    support, labels = inputs["support_inputs"][0] * 255.0, inputs["support_labels"][0]
    queries = inputs["query_inputs"][0] * 255.0

    def asked(number):
        steps = {"num_steps": tf.constant(number)}
        support_set = {"support_images": support, "support_labels": labels, **steps}
        found = signatures["classify"](**support_set, query_images=queries)["probabilities"]
        if "adapt_features" not in signatures:
            return found
        kept, asked_of = (signatures["features"](images=x)["features"] for x in (support, queries))
        state = signatures["adapt_features"](support_features=kept, support_labels=labels, **steps)
        logits = signatures["predict_features"](query_features=asked_of, **state)["logits"]
        np.testing.assert_allclose(tf.nn.softmax(logits), found, rtol=1e-3, atol=1e-5)
        return found

    usual = asked(method.num_updates)
    assert np.abs(usual - asked(0)).max() > 1e-6
    assert np.abs(usual - asked(method.num_updates + 3)).max() > 1e-6


@pytest.mark.parametrize("name", [name for name in CLASSES if name in TRAINED])
def test_a_second_step_is_not_traced_again(name):
    assert trained(name).traces == trained(name).first_traces > 0


@pytest.mark.parametrize("name", CLASSES)
def test_what_it_shows_has_an_entry_for_every_update(name):
    method = built(name)
    inputs, _ = tasks_of(name)
    trace = method.trace({key: value[0] for key, value in inputs.items()})
    assert bool(trace) == bool(method.num_updates)
    for values in trace.values():
        assert values.shape[0] == method.num_updates


def test_options_of_the_optimizer_are_for_methods_that_are_trained():
    untrained = [member for member in METHODS if not member.is_trained]
    for member in untrained:
        values = make_settings({"method": member.part.name}).values
        assert not values.keys() & options_of(OptimizerOptions).keys()

"""The signatures of an exported model. They take and return plain tensors.

    signature   inputs                                       outputs
    adapt       support_images, support_labels, num_steps    parameters, statistics, class_mask,
                                                             support_losses, forget_gates,
                                                             input_gates
    predict     query_images, and the outputs of `adapt`     probabilities
                parameters, statistics, class_mask
    classify    support_images, support_labels,              probabilities
                query_images, num_steps

    support_images   [B, h, w, c]  float32, pixels 0 ... 255 as they come from a file
    support_labels   [B]           int32 in [0, N); some labels may be missing
    num_steps        []            int32, T, at most 1000; default: that of the training
    query_images     [B, h, w, c]  as support_images
    parameters       [P] or [N, P] theta_T; or one for each of the N relabellings of the classes, if
                                   the answer is their mean (`ServedMethod`)
    statistics       [S] or [N, S] batch-norm statistics of the queries
    class_mask       [N]           1 for labels that the support set has, else 0
    support_losses   [T]           L_1 ... L_T, before each update
    forget_gates     [T, P]        forget gates of each update
    input_gates      [T, P]        input gates of each update
    probabilities    [B, N]        0 where class_mask is 0

Each of the three has four forms, with these endings of the name:

    ..._encoded        *_images are the bytes of JPEG, PNG, GIF, BMP or WebP files, strings [B]
    ..._named          support_labels are names, strings [B], at most N different ones. `adapt`
                       returns class_names [C] instead of class_mask; `predict` takes these and
                       returns class_names, labels [B] (the most probable name) and
                       probabilities [B, C]
    ..._encoded_named  both

A model of images also has a signature for clients without a decoder:

    pixels_encoded     images, as files                        pixels [B, h, w, c], float32

A method that only uses the features of images also has

    features           images                                  features
    features_encoded   images, as files                        features
    adapt_features     support_features, support_labels,       as `adapt`, without traces
                       num_steps
    predict_features   query_features, and outputs of          logits
                       `adapt_features`, as in `predict`

    features         [B, ...]      features of each image, the same in every episode
    logits           [B, N]        probabilities are their softmax; the lowest number where
                                   class_mask is 0

With these a client computes the features of an image once. Then it can add an image or leave one
out without another pass of the network.

The outputs of `adapt` have the names that the method and its rule give them. Those above are of a
gradient-based method with a meta-LSTM; the nested outputs of other methods become named tensors in
the same way. Some methods take any number of classes N.

A model of functions has `support_inputs` and `query_inputs` [B, D] and `support_labels` float32
[B, 1], and returns `outputs` [B, 1]. It only has the first form of the three signatures.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.graphs import graph_function
from tf_metalstm.serving.pictures import picture_decoder
from tf_metalstm.serving.served import MAX_CLASSES, AdaptedClasses, ServedMethod

ENCODED, NAMED = "_encoded", "_named"
# Fields of the result of `adapt` that have another name in the signatures.
_PUBLIC_NAMES = {"theta": "parameters"}


def build_signatures(served: ServedMethod) -> tuple[tf.Module, dict[str, Any]]:
    """Returns a module with the variables of the method, and the signatures by name."""
    core = _Core(served)
    signatures = {}
    for encoded in (False, True) if served.takes_images else (False,):
        for named in (False, True) if served.has_classes else (False,):
            ending = ENCODED * encoded + NAMED * named
            for name, function in _triple(served, core, encoded, named).items():
                signatures[name + ending] = function
    if served.takes_images:
        signatures["pixels" + ENCODED] = _pixels(served, core)
    if served.compares_features and served.takes_images:
        signatures |= _of_features(served, core)
    module = tf.Module()
    # Only the variables, because a Keras model would add its own traces.
    module.meta_parameters = [variable.value for variable in served.method.served_variables]
    for name, function in signatures.items():  # in Python these have the default num_steps too
        setattr(module, name, function)
    return module, signatures


class _Core:
    """The functions that all signatures share, each traced once."""

    def __init__(self, served: ServedMethod):
        self.structure: Any = None  # structure of the result of `adapt`; known after tracing
        steps = [] if served.num_steps is None else [tf.TensorSpec([], tf.int32)]
        inputs = served.input_spec()
        self.features: Any = None
        if served.compares_features:
            self.features = graph_function(served.features, input_signature=[inputs])

        @graph_function(input_signature=[inputs, served.label_spec(), *steps])
        def adapt(*support: Tensor) -> tuple[dict[str, Tensor], Any, dict[str, Tensor]]:
            inputs, labels, *num_steps = support
            number = num_steps[0] if num_steps else None
            adapted, extras = served.adapt(inputs, labels, number)
            self.structure = adapted.learned
            return _by_name(adapted.learned), adapted.class_mask, extras

        self.adapt = adapt
        learned, mask, _ = adapt.get_concrete_function().structured_outputs
        self.learned_specs = {name: tf.TensorSpec(t.shape, t.dtype) for name, t in learned.items()}
        mask_spec = tf.nest.map_structure(tf.TensorSpec.from_tensor, mask)

        @graph_function(input_signature=[self.learned_specs, mask_spec, inputs])
        def answers(learned: Mapping[str, Tensor], mask: Any, queries: Tensor) -> Tensor:
            return served.answers(self.adapted(learned, mask), queries, embed=self.features)

        self.answers = answers

        if served.takes_images:
            self.decode = picture_decoder(served.input_shape)

    def adapted(self, learned: Mapping[str, Tensor], mask: Any) -> AdaptedClasses:
        """Returns the result of `adapt` from its tensors by name."""
        leaves = [learned[name] for name in self.learned_specs]
        return AdaptedClasses(tf.nest.pack_sequence_as(self.structure, leaves), mask)


def _pixels(served: ServedMethod, core: _Core) -> Any:
    """Returns the signature that only decodes files."""

    def pixels(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"pixels": core.decode(inputs["images"], tf.constant("images"))}

    return _signature(pixels, {"images": tf.TensorSpec([None], tf.string)}, served)


def _of_features(served: ServedMethod, core: _Core) -> dict[str, Any]:
    """Returns the signatures of a method that compares features."""
    features = core.features.get_concrete_function().structured_outputs
    spec = tf.TensorSpec([None, *features.shape[1:]], features.dtype)
    mask = tf.TensorSpec([served.num_way], tf.float32)

    def of_images(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"features": core.features(inputs["images"])}

    def of_files(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"features": core.features(core.decode(inputs["images"], tf.constant("images")))}

    def adapt(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        adapted = served.adapt_features(
            inputs["support_features"], inputs["support_labels"], inputs.get("num_steps")
        )
        return {**_by_name(adapted.learned), "class_mask": adapted.class_mask}

    def predict(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        adapted = core.adapted(inputs, inputs["class_mask"])
        return {"logits": served.feature_logits(adapted, inputs["query_features"])}

    support = {"support_features": spec, "support_labels": served.label_spec(), **_steps(served)}
    queries = {"query_features": spec, **core.learned_specs, "class_mask": mask}
    files = {"images": tf.TensorSpec([None], tf.string)}
    return {
        "features": _signature(of_images, {"images": served.input_spec()}, served),
        "features" + ENCODED: _signature(of_files, files, served),
        "adapt_features": _signature(adapt, support, served),
        "predict_features": _signature(predict, queries, served),
    }


def _steps(served: ServedMethod) -> dict[str, tf.TensorSpec]:
    """Returns the input num_steps of `adapt`, for a method with updates."""
    return {} if served.num_steps is None else {"num_steps": tf.TensorSpec([], tf.int32)}


def _triple(
    served: ServedMethod, core: _Core, encoded: bool, named: bool
) -> dict[str, Callable[..., dict[str, Tensor]]]:
    support_name, query_name = (f"{part}_{served.input_name}" for part in ("support", "query"))
    input_spec = tf.TensorSpec([None], tf.string) if encoded else served.input_spec()
    label_spec = tf.TensorSpec([None], tf.string) if named else served.label_spec()
    class_specs: dict[str, tf.TensorSpec] = {}
    if named:
        class_specs["class_names"] = tf.TensorSpec([None], tf.string)
    elif served.has_classes:
        class_specs["class_mask"] = tf.TensorSpec([served.num_way], tf.float32)

    def pixels(inputs: Mapping[str, Tensor], name: str) -> Tensor:
        return core.decode(inputs[name], tf.constant(name)) if encoded else inputs[name]

    def adapt(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        labels, names = inputs["support_labels"], None
        if named:
            names, labels = _numbered(labels, served)
        steps = [inputs["num_steps"]] if "num_steps" in inputs else []
        learned, mask, extras = core.adapt(pixels(inputs, support_name), labels, *steps)
        classes = {"class_names": names} if named else {"class_mask": mask}
        return {**learned, **(classes if served.has_classes else {}), **extras}

    def predict(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        learned = {name: inputs[name] for name in core.learned_specs}
        queries = pixels(inputs, query_name)
        if not served.has_classes:
            return {served.output_name: core.answers(learned, (), queries)}
        if not named:
            return {served.output_name: core.answers(learned, inputs["class_mask"], queries)}
        names = inputs["class_names"]
        num_way = tf.size(names) if served.num_way is None else served.num_way
        mask = tf.cast(tf.range(num_way) < tf.size(names), tf.float32)
        probabilities = core.answers(learned, mask, queries)[:, : tf.size(names)]
        best = tf.gather(names, tf.argmax(probabilities, axis=1))
        return {"class_names": names, "labels": best, served.output_name: probabilities}

    def classify(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return predict({**inputs, **adapt(inputs)})

    steps = _steps(served)
    support = {support_name: input_spec, "support_labels": label_spec}
    queries = {query_name: input_spec}
    adapted = {**core.learned_specs, **class_specs}
    return {
        "adapt": _signature(adapt, {**support, **steps}, served),
        "predict": _signature(predict, {**queries, **adapted}, served),
        "classify": _signature(classify, {**support, **queries, **steps}, served),
    }


def _signature(
    function: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    specs: Mapping[str, tf.TensorSpec],
    served: ServedMethod,
) -> Any:
    """Returns a function of named tensors, with a default for `num_steps` if it has that."""

    def signature(*tensors: Tensor) -> dict[str, Tensor]:
        return function(dict(zip(specs, tensors, strict=True)))

    # TensorFlow reads names and defaults from the signature of the Python function.
    signature.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=tf.constant(served.num_steps)
                if name == "num_steps"
                else inspect.Parameter.empty,
            )
            for name in specs
        ]
    )
    return graph_function(signature, input_signature=list(specs.values()))


def _numbered(labels: Tensor, served: ServedMethod) -> tuple[Tensor, Tensor]:
    """Returns the different names, and for each label the number of its name."""
    names, numbers = tf.unique(labels)
    most = MAX_CLASSES if served.num_way is None else served.num_way
    check = tf.debugging.assert_less_equal(
        tf.size(names),
        most,
        f"support_labels has too many names: the model tells at most {most} classes apart",
    )
    with tf.control_dependencies([check]):
        names, numbers = tf.identity(names), tf.identity(numbers)
    if served.relabellings == 1:
        return names, numbers  # in the order of first use
    # The order must not depend on that of the images; TensorFlow cannot sort strings.
    order = tf.argsort(name_keys(names))
    return tf.gather(names, order), tf.gather(tf.argsort(order), numbers)


def name_keys(names: Tensor) -> Tensor:
    """Returns a number for each name; names are ordered by it."""
    return tf.strings.to_hash_bucket_fast(names, 2**62)


def _by_name(adapted: Any) -> dict[str, Tensor]:
    """Returns the tensors of a nested structure by the name of their field, else by a number."""
    leaves = tf.nest.flatten(adapted)
    fields = getattr(adapted, "_fields", ())
    if len(fields) != len(leaves):  # not a plain NamedTuple of tensors
        fields = [f"adapted_{i}" for i in range(len(leaves))]
    return {_PUBLIC_NAMES.get(name, name): leaf for name, leaf in zip(fields, leaves, strict=True)}

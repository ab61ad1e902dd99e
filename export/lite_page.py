"""The files of a page that runs an adapted classifier in the browser, without a server of its own.

    index.html, *.js   the page, from the folder `page` beside this file
    predict.tflite     from one image to probabilities and nearness
    classifier.json    that of the classifier, and the sentences that the page shows
    litert             LiteRT for the browser, from the npm package @litertjs/core

LiteRT for the browser (2.5.3) has neither strings nor truth values, and only fixed shapes. So the
page has its own predict.tflite, and takes the names and the limits from classifier.json. Needs
tensorflow, numpy, and the other files of this folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from estimate import in_words
from folders import ClientError
from remarks import BLANK, look_at, of_queries
from saved_classifier import CLASSIFIER

PAGE = "page"
"""The folder of the page."""

_OUTPUTS = ("probabilities", "nearness")
_LITERT = {
    "core": ("package.json", "dist/index.js", "wasm/litert_wasm_internal.js",
             "wasm/litert_wasm_internal.wasm", "wasm/litert_wasm_compat_internal.js",
             "wasm/litert_wasm_compat_internal.wasm"),
    "wasm-utils": ("package.json", "dist/index.js"),
}  # fmt: skip


def page_files(node_modules: Path) -> dict[str, bytes]:
    """Returns the files of the page by name, without those of a classifier.

    Args:
        node_modules: the folder that `npm install @litertjs/core` made.

    Raises:
        ClientError: LiteRT is not there.
    """
    page = Path(__file__).with_name(PAGE)
    files = {path.name: path.read_bytes() for path in sorted(page.iterdir()) if path.is_file()}
    for package, names in _LITERT.items():
        for name in names:
            path = node_modules / "@litertjs" / package / name
            try:
                files[f"litert/{package}/{name}"] = path.read_bytes()
            except OSError as error:
                raise ClientError(
                    f"--page {node_modules} has no LiteRT for the browser: {path} cannot be read "
                    f"({error.strerror}). `npm install @litertjs/core` makes a folder node_modules "
                    "that has it."
                ) from error
    return files


def facts_with_sentences(classifier: bytes) -> bytes:
    """Returns the classifier.json of the page, so that it says what the other clients say.

    It has besides:

        introduction    the classes, and how good the answers will be
        blank           the warning about a blank picture; "{name}" stands for its name
        blank_levels    most levels between the darkest and the lightest pixel of such a picture

    Args:
        classifier: the classifier.json of the classifier.
    """
    facts = json.loads(classifier)
    blank = look_at("{name}", None, np.zeros(facts["image_shape"], np.float32))
    facts["introduction"] = f"{_classes(facts['class_names'])} {in_words(facts['estimate'])}"
    [facts["blank"]] = of_queries([], [blank])
    facts["blank_levels"] = BLANK
    return json.dumps(facts, indent=1).encode()


def _classes(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"The only class is {names[0]}."
    return f"The classes are {', '.join(names[:-1])} and {names[-1]}."


def convert_one(model: Path, quantize: bool) -> bytes:
    """Returns an adapted classifier as a LiteRT model of one image, for the browser.

    Its signature takes `query_images`, float32 [1, h, w, c], pixels 0 ... 255, and returns
    `probabilities` [1, C] and `nearness` [1].

    Args:
        model: folder of the adapted classifier.
        quantize: whether constant weights are stored in 8 bits.
    """
    import tensorflow as tf

    shape = json.loads((model / CLASSIFIER).read_bytes())["image_shape"]
    loaded = tf.saved_model.load(str(model))
    predict = loaded.signatures["predict"]

    @tf.function(input_signature=[tf.TensorSpec([1, *shape], tf.float32, "query_images")])
    def answer(query_images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = predict(query_images=query_images)
        return {name: outputs[name] for name in _OUTPUTS}

    function = answer.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], loaded)
    if quantize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()

"""The files of a page that runs an adapted classifier in the browser, without a server of its own.

    index.html, *.js   the page, from the folder `page` beside this file
    predict.tflite     from one image to probabilities and nearness
    classifier.json    the classes, the shape of images, the limit of "none of these", the estimate
    litert             LiteRT for the browser, from the npm package @litertjs/core

LiteRT for the browser (2.5.3) has neither strings nor truth values, and only fixed shapes. So the
page has its own predict.tflite, and takes the names and the limit from classifier.json. Needs
tensorflow.
"""

from __future__ import annotations

import json
from pathlib import Path

from folders import ClientError
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

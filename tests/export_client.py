"""Imports the files of export/ as modules. They are not in a package."""

import importlib
import pathlib
import sys
import types

import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "export"
CLIENT = FOLDER / "adapt.py"

SANITIZED = "-g -fsanitize=address,undefined -fno-sanitize-recover=all"
"""Options for a C compiler, under which a program tells what it oversteps or leaks."""

sys.path[:0] = [str(FOLDER), str(FOLDER / "serving")]
try:
    client, adapted, folders, images, lite_page, report, to_lite = map(
        importlib.import_module,
        ("adapt", "adapted", "folders", "images", "lite_page", "report", "to_lite"),
    )
    rest, grpc_client, sending = map(importlib.import_module, ("rest", "grpc_client", "sending"))
finally:
    del sys.path[:2]


SHAPE = (28, 28, 1)  # of the pictures of `FirstClass`


class Value:
    """A tensor that clients can read with `numpy()`."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def numpy(self):
        return self.values


class FirstClass:
    """Stands for a loaded SavedModel. The answer is always the class whose name is first.

    Args:
        taken: a list that gets the number of updates of every adaptation.
    """

    class Signature:
        """A function with the names of its inputs."""

        def __init__(self, function, *names):
            self.function = function
            pictures = types.SimpleNamespace(shape=(None, *SHAPE))
            self.structured_input_signature = ((), dict.fromkeys(names, pictures))

        def __call__(self, **tensors):
            return self.function(**tensors)

    def __init__(self, taken=None):
        self.taken = [] if taken is None else taken
        adapt = self.Signature(self.adapt, "support_images", "support_labels", "num_steps")
        predict = self.Signature(self.predict, "query_images", "class_names")
        self.signatures = {"adapt_named": adapt, "predict_named": predict}

    def adapt(self, support_images, support_labels, num_steps=None):
        self.taken.append(num_steps)
        return {"class_names": Value(sorted(set(support_labels)))}

    def predict(self, query_images, class_names):
        row = [1.0] + [0.0] * (len(class_names.numpy()) - 1)
        return {"probabilities": Value([row] * len(query_images))}

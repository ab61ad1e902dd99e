"""Measures each client: python benchmarks/clients.py [--model DIR] [--episode DIR] [--out FILE]

Each client runs in a separate process, one after the other. Measured are the time to load the
model, to adapt for the first time and later, to answer all queries, and the peak memory. If the
client is a command, the time of the whole command is measured. The default is the model of the
tests, 28 x 28. Nothing else should run meanwhile.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from machine import commit, machine

ROOT = pathlib.Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
REPEATS = 10


def episode(folder):
    """Returns support files, their class names, and query files."""
    support = sorted(folder.glob("support/*/*"))
    return support, [path.parent.name for path in support], sorted(folder.glob("query/*/*"))


def timed(function, repeats):
    """Returns the median time of a call in seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def phases(load, adapt, predict):
    """Returns the times of loading, adaptation and prediction; each gets the earlier results."""
    start = time.perf_counter()
    model = load()
    loaded = time.perf_counter() - start
    start = time.perf_counter()
    adapted = adapt(model)
    first = time.perf_counter() - start
    predict(model, adapted)
    return {
        "load_s": loaded,
        "first_adapt_s": first,
        "adapt_s": timed(lambda: adapt(model), REPEATS),
        "predict_s": timed(lambda: predict(model, adapted), REPEATS),
    }


def saved_model(folder, images):
    """Measures tf.saved_model.load and the signatures for files."""
    import tensorflow as tf

    support, names, queries = images
    inputs = [tf.constant([path.read_bytes() for path in files]) for files in (support, queries)]

    def predict(model, adapted):
        inputs_of_signature = model.signatures["predict_encoded_named"].structured_input_signature[
            1
        ]
        state = {name: value for name, value in adapted.items() if name in inputs_of_signature}
        model.signatures["predict_encoded_named"](query_images=inputs[1], **state)

    return phases(
        lambda: tf.saved_model.load(str(folder)),
        lambda model: model.signatures["adapt_encoded_named"](
            support_images=inputs[0],
            support_labels=tf.constant(names),
            num_steps=tf.constant(json.loads((folder / "manifest.json").read_text())["num_steps"]),
        ),
        predict,
    )


def classifier(folder, images):
    """Measures FewShotClassifier, which needs the package."""
    from tf_metalstm.classifier import FewShotClassifier

    support, names, queries = images
    return phases(
        lambda: FewShotClassifier.load(folder),
        lambda model: model.fit(support, names),
        lambda _, adapted: adapted.predict(queries),
    )


def lite(folder, images):
    """Measures predict.tflite in the interpreter of TensorFlow's wheel, with one thread."""
    import numpy as np
    import tensorflow as tf

    sys.path.insert(0, str(ROOT / "export"))
    import to_lite

    support, names, queries = images
    model = tf.saved_model.load(str(folder))
    decoded = [
        tf.constant(
            np.stack([tf.io.decode_image(path.read_bytes()).numpy() for path in files]), tf.float32
        )
        for files in (support, queries)
    ]
    numbers = np.unique(names, return_inverse=True)[1].astype(np.int32)
    adapted = model.signatures["adapt"](
        support_images=decoded[0], support_labels=tf.constant(numbers), num_steps=tf.constant(5)
    )
    contents = to_lite.convert(folder, "predict")

    def load():
        interpreter = tf.lite.Interpreter(model_content=contents)
        runner = interpreter.get_signature_runner("predict")
        input_names = runner.get_input_details()
        return runner, {name: value for name, value in adapted.items() if name in input_names}

    before = resident_mb()
    measured = phases(
        load,
        lambda _: None,  # the SavedModel has adapted already
        lambda loaded, _: loaded[0](query_images=decoded[1], **loaded[1]),
    )
    # The added memory in a process that has TensorFlow already, whose wheel has the interpreter.
    added = {"added_memory_mb": resident_mb() - before, "bytes": len(contents)}
    return {name: measured[name] for name in ("load_s", "predict_s")} | added


def resident_mb():
    """Returns the present memory of this process in MB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def c_client(folder, images):
    """Builds and measures few_shot.c."""
    support, _, queries = images
    with tempfile.TemporaryDirectory() as built:
        code = pathlib.Path(built, "c")
        leave_out = shutil.ignore_patterns("*.o", "adapt")
        shutil.copytree(ROOT / "export" / "c", code, ignore=leave_out)
        shutil.copy(ROOT / "benchmarks" / "time_client.c", code / "adapt.c")
        make = ["make", "-s", "-C", str(code), f"PYTHON={sys.executable}"]
        subprocess.run(make, check=True)
        command = [code / "adapt", folder, str(REPEATS), str(len(support)), *support, *queries]
        # Clients run with oneDNN, because models are trained with its kernels.
        environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        process = subprocess.run(
            list(map(str, command)), check=True, capture_output=True, text=True, env=environment
        )
    return json.loads(process.stdout)


def command(*arguments):
    """Returns a function that measures a client that is a command."""

    def run(folder, images):
        del images
        with tempfile.TemporaryDirectory() as out:
            filled = [text.format(model=folder, episode=EPISODE, out=out) for text in arguments]
            start = time.perf_counter()
            subprocess.run(filled, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return {"whole_s": time.perf_counter() - start}

    return run


CLIENTS = {
    "tf.saved_model.load": saved_model,
    "FewShotClassifier": classifier,
    "export/adapt.py": command(
        sys.executable,
        str(ROOT / "export" / "adapt.py"),
        "--model={model}",
        "--support={episode}/support",
        "--query={episode}/query",
    ),
    "export/c": c_client,
    "predict.tflite": lite,
}


def main():
    """Measures each client in a separate process and writes the report."""
    report = {"machine": machine(), "commit": commit(), "when": time.strftime("%F"), "clients": {}}
    for name in CLIENTS:
        call = [sys.executable, __file__, "--client", name, "--model", str(arguments.model)]
        call += ["--episode", str(EPISODE)]
        process = subprocess.run(call, capture_output=True, text=True)
        if process.returncode:
            sys.exit(f"{name} failed:\n{process.stderr[-3000:]}")
        report["clients"][name] = json.loads(process.stdout.splitlines()[-1])
        print(name, json.dumps(report["clients"][name]), flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def one_client(name):
    """Measures one client in this process and prints the numbers as JSON."""
    measured = CLIENTS[name](arguments.model, episode(EPISODE))
    if not {"memory_mb", "added_memory_mb"} & measured.keys():
        who = resource.RUSAGE_CHILDREN if "whole_s" in measured else resource.RUSAGE_SELF
        measured["memory_mb"] = resource.getrusage(who).ru_maxrss * 1024 / 1e6  # KiB on Linux
    print(json.dumps({key: round(value, 5) for key, value in measured.items()}))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, default=GOLDEN / "model")
    parser.add_argument("--episode", type=pathlib.Path, default=GOLDEN / "episode")
    parser.add_argument(
        "--client", choices=sorted(CLIENTS), help="run only this one, in this process"
    )
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    EPISODE = arguments.episode
    if arguments.client:
        one_client(arguments.client)
    else:
        main()

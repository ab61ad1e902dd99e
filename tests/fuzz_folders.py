"""Gives random folders to the clients for as long as asked.

    python tests/fuzz_folders.py --seconds 600 [--seed 0] [--kind client]

The folders have names that are no text, hidden and huge names, links that lead anywhere or in
circles, empty folders, folders named like pictures, pipes, and files without permission. Every
client must end with an exit code and a sentence. It must read each file that an independent walk
finds exactly once.
"""

import argparse
import codecs
import contextlib
import json
import os
import pathlib
import shutil
import socket
import sys
import tempfile

import hunting
import hypothesis.strategies as st
import numpy as np
import tensorflow_datasets as tfds
import toy_images
from export_client import FOLDER, FirstClass, client, folders
from hunting import Find

from tf_metalstm.data.sources.base import (
    CorruptImageError,
    InconsistentDataError,
    MissingDataError,
)
from tf_metalstm.data.sources.mini_imagenet import MiniImagenet
from tf_metalstm.data.sources.omniglot import Omniglot
from tf_metalstm.serving.given_images import take_images

sys.path[:0] = [str(FOLDER), str(FOLDER / "serving")]
import rest  # noqa: E402
from decoding import UnreadableImageError, decode_image  # noqa: E402

SHAPE = (8, 8, 1)
NOBODY = 65534
codecs.lookup("utf-8-sig")  # imported now, because the user nobody may not read Python's folder
PICTURE = toy_images.encode(np.arange(64, dtype=np.uint8).reshape(8, 8), "PNG")
CONTENTS = {
    "picture": PICTURE,
    "color": toy_images.encode(np.full((9, 7, 3), 77, np.uint8), "JPEG"),
    "half": PICTURE[:40],
    "empty": b"",
    "text": b"filename,label\na.png,b\n",
    "zip": b"PK\x03\x04" + b"\0" * 40,
}
OTHERS = ("folder", "link", "pipe", "socket", "unreadable", "closed")
ODD_NAMES = [
    "a",
    "b",
    "a.png",
    "b.JPG",
    "c.zip",
    "Thumbs.db",
    ".hidden",
    "@eaDir",
    "support",
    "query",
    "train",
    "-x",
    "--csv",
    "~",
    "~nobody",
    "*",
    "[a]",
    "a b",
    " ",
    "é",
    "\u202e",
    "\N{PILE OF POO}",
    "a\nb",
    "\x1b[31m",
    os.fsdecode(b"\xff.png"),
    os.fsdecode(b"\xff\xfe"),
    "x" * 255,
    "a,b",
    '"',
    "<b>",
    "%s{0}",
    "con",
    "class_names",
]
SOURCE_NAMES = ["train", "val", "test", "images", "images_background", "images_evaluation"]
SOURCE_NAMES += ["train.csv", "train.zip", "n01", "n02", "Latin", "character01", "0001_01.png"]
TARGETS = [
    "",
    ".",
    "..",
    "../..",
    "/",
    "/dev/null",
    "nowhere",
    "outside",
    "a",
    "b",
    "a.png",
    "self",
]
RAW = {
    MiniImagenet: (MissingDataError, CorruptImageError, InconsistentDataError),
    Omniglot: (MissingDataError, CorruptImageError, InconsistentDataError),
}


def trees(names, depth=4):
    """Draws the entries of a folder: ((names of the path), kind, target of a link)."""
    path = st.lists(st.sampled_from(names), min_size=1, max_size=depth).map(tuple)
    kind = st.sampled_from([*CONTENTS, "picture", "picture", "picture", *OTHERS])
    return st.lists(st.tuples(path, kind, st.sampled_from(TARGETS)), max_size=12)


def make(root, tree):
    """Makes the entries of a tree that can be made. Later ones may conflict with earlier ones."""
    for path, kind, target in tree:
        place = root.joinpath(*path)
        with contextlib.suppress(OSError):  # a file is in the way, or the name is too long
            place.parent.mkdir(parents=True, exist_ok=True)
            if kind == "folder":
                place.mkdir()
            elif kind == "link":
                place.symlink_to(place.name if target == "self" else target)
            elif os.path.lexists(place):
                continue
            elif kind == "pipe":
                os.mkfifo(place)
            elif kind == "socket":
                with socket.socket(socket.AF_UNIX) as opened:
                    opened.bind(str(place))
            elif kind == "closed":
                place.mkdir(mode=0)
            else:
                place.write_bytes(CONTENTS.get(kind, PICTURE))
                if kind == "unreadable":
                    place.chmod(0)


@contextlib.contextmanager
def made(*given):
    """Makes folders with random trees, for a user who may not read all of them."""
    scratch = pathlib.Path(tempfile.mkdtemp())
    scratch.chmod(0o755)
    is_root = os.geteuid() == 0
    try:
        roots = [scratch / str(number) for number in range(len(given))]
        for root, tree in zip(roots, given, strict=True):
            root.mkdir()
            make(root, tree)
        if is_root:
            os.chown(scratch, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        yield scratch, *roots
    finally:
        if is_root:
            os.seteuid(0)
        shutil.rmtree(scratch)


def files_below(folder):
    """Returns the real files below a class folder, found by an independent walk."""
    found, seen, waiting = set(), set(), [os.path.realpath(folder)]
    while waiting:
        real = waiting.pop()
        if real in seen:
            continue
        seen.add(real)
        for entry in os.scandir(real):
            path = os.path.join(real, entry.name)
            if folders.is_clutter(entry.name):
                continue
            if os.path.isdir(path):
                waiting.append(os.path.realpath(path))
            elif os.path.isfile(path):
                found.add(os.path.realpath(path))
    return found


def check_taken(root, classes):
    """Checks that a client read every file of the class folders once."""
    for name, taken in classes.items():
        paths = [os.path.realpath(path) for path in taken]
        if len(set(map(str, taken))) != len(taken):
            raise Find(f"a file is taken twice\n{taken}")
        outer = [os.path.realpath(root), *map(str, pathlib.Path(os.path.realpath(root)).parents)]
        missed = files_below(root / name) - set(paths) if not links_out(root / name, outer) else ()
        if missed:
            raise Find(f"files are not taken\n{missed}")


def links_out(folder, outer):
    """Whether a link below a folder leads to a folder above it. Such links are left out."""
    waiting, seen = [os.path.realpath(folder)], set()
    while waiting:
        real = waiting.pop()
        if real in outer:
            return True
        if real not in seen:
            seen.add(real)
            waiting += [
                os.path.realpath(entry.path)
                for entry in os.scandir(real)
                if not folders.is_clutter(entry.name) and os.path.isdir(entry.path)
            ]
    return False


def check_end(code, out, err):
    """Checks how a client ended."""
    if code not in (0, 1, 2) or "Traceback" in err + out:
        raise Find(f"exit code {code}\n{err[-2000:]}")
    said = err.strip().splitlines()
    if code == 1 and not any(line.startswith("error: ") for line in said):
        raise Find(f"no sentence\n{err[-2000:]}")
    if "cannot be printed" in err or "Graph execution" in err or "codec" in err:
        raise Find(f"strange words\n{err[-2000:]}")


def check_client(example):
    """Checks adapt.py with a support folder, queries and an output file."""
    support, queries, names = example
    with made(support, queries) as (scratch, first, second):
        client.load_model = lambda path: FirstClass()
        client.read_manifest = lambda path: {"image_shape": SHAPE, "num_steps": 5}
        query = [str(second / name) for name in names] or [str(second)]
        out = [f"--{kind}={scratch / kind}" for kind in ("csv", "json", "html")]
        arguments = ["--model=m", f"--support={first}", *out, "--query", *query]
        code, said, err = hunting.call(client.main, arguments)
        check_end(code, said, err)
        if code == 0:
            check_taken(first, folders.class_files(first))
            json.loads((scratch / "json").read_text())


def served(url, body=None):
    """Stands for TensorFlow Serving."""
    if body is None:
        inputs = {
            rest.ADAPT: ["support_images", "support_labels"],
            rest.PREDICT: ["query_images", "state"],
        }
        found = {name: {"inputs": dict.fromkeys(each)} for name, each in inputs.items()}
        sides = {"dim": [{"size": str(side)} for side in (-1, *SHAPE)]}
        found["adapt"] = {
            "inputs": {"support_images": {"tensor_shape": sides}},
            "outputs": {"class_mask": {"tensor_shape": {"dim": [{"size": "-1"}]}}},
        }
        return {"metadata": {"signature_def": {"signature_def": found}}}
    request = json.loads(body)["inputs"]
    part = "support" if "support_images" in request else "query"
    for place, image in enumerate(request[f"{part}_images"]):
        try:
            decode_image(rest.base64.b64decode(image["b64"]), f"{part}_images[{place}]")
        except UnreadableImageError as error:
            raise rest.ServerError(str(error).replace(" is not", ": is not", 1)) from error
    number = len(request.get("query_images", ()))
    return {"outputs": {"state": 1, "labels": ["a"] * number, "probabilities": [[1.0]] * number}}


def check_rest(example):
    """Checks rest.py with a support folder and queries, with and without bad files."""
    support, queries, names = example
    with made(support, queries) as (_, first, second):
        rest._answer = served
        query = [str(second / name) for name in names] or [str(second)]
        skip = ["--skip_corrupt"] if len(names) % 2 else []
        code, out, err = hunting.call(rest.main, [f"--support={first}", *skip, "--query", *query])
        check_end(code, out, err)


def check_classifier(example):
    """Checks FewShotClassifier with all files and folders of a tree as a list."""
    tree, _, names = example
    with made(tree) as (_, root):
        paths = [p for p in sorted(root.rglob("*")) if p.is_dir() or p.is_file() or p.is_symlink()]
        paths += [root / name for name in names]
        paths = [path for path in paths if not path.is_fifo()]
        for skip in (False, True):
            try:
                taken = take_images(list(map(str, paths)), SHAPE, skip)
            except (FileNotFoundError, ValueError) as error:
                if isinstance(error, UnicodeError) or "Traceback" in str(error):
                    raise Find(f"{type(error).__name__}\n{error}") from error
            else:
                if len(taken.pixels) + len(taken.skipped) != len(paths):
                    raise Find("images are neither taken nor skipped")


def check_page(example):
    """Checks the page with a tree as its examples."""
    from tf_metalstm import demo  # Gradio takes seconds

    tree, _, _ = example
    with made(tree) as (_, root):
        try:
            demo._examples(root, 5)
        except (OSError, ValueError) as error:
            str(error)


def check_source(example):
    """Checks the folder source, from reading files to its description."""
    tree, kind, prepares = example
    with made(tree) as (scratch, root):
        source = kind(root, scratch / "prepared", image_size=8, skip_corrupt=prepares)
        try:
            if prepares:
                source.prepare()
                source.describe().encode()
                source.load("train")
            else:
                source.fingerprint()
                staged = source.stage()
                "".join((*staged.skipped, *staged.left_out)).encode()
        except RAW[kind] as error:
            str(error)
        except OSError as error:
            if error.filename is None and "cannot be" not in str(error):
                raise Find(f"OSError without a name\n{error!r}") from error
        except Exception as error:
            raise Find(hunting._where(error)) from error


PAIRS = st.tuples(
    trees(ODD_NAMES),
    trees(ODD_NAMES),
    st.lists(st.sampled_from([*ODD_NAMES, "**", "?"]), max_size=3),
)
KINDS = {
    "client": (check_client, PAIRS),
    "rest": (check_rest, PAIRS),
    "classifier": (check_classifier, PAIRS),
    "page": (check_page, PAIRS),
    "source": (
        check_source,
        st.tuples(trees(SOURCE_NAMES * 3 + ODD_NAMES), st.sampled_from(list(RAW)), st.booleans()),
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="for each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, action="append")
    options = parser.parse_args()
    tfds.disable_progress_bar()
    found = [
        hunting.report(kind, *hunting.hunt(*KINDS[kind], options.seconds, options.seed))
        for kind in options.kind or KINDS
    ]
    return int(any(found))


if __name__ == "__main__":
    sys.exit(main())

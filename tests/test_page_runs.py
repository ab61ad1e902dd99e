"""Runs the commands and the Python code of the pages, page by page, in a folder like a clone.

Trainings and evaluations are shortened. Pages about many devices and benchmarks are not run.

It takes minutes: `make test-slow PYTEST_ARGS="-k page_runs"`.
"""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import toy_images
from page_blocks import ROOT, blocks, commands

PAGES = [
    "README.md",
    "models/README.md",
    *(f"docs/{name}.md" for name in ("index", "pictures", "optimizer", "results")),
    *(f"docs/write/{name}.md" for name in ("rule", "method", "start", "source", "task")),
]
# Beginnings of commands that are not run here, the file that does the same, and its words for it.
ELSEWHERE = {
    "make demo": ("docs/lab_book/glyphs_demo.md", "make demo"),
    "make test": (".ci/run", "make check"),
    "pip install ": ("tools/install.sh", '--editable "$requirement"'),
    "source ": ("tools/install.sh", "-m venv"),
    "python -m tf_metalstm.demo ": ("tests/test_demo.py", '"-m", "tf_metalstm.demo", "--model"'),
    "npm install ": ("tools/install_litert_js.sh", "npm install"),
    "python export/to_lite.py --model mine ": ("tests/test_page_alone.py", '"--page"'),
    "python -m http.server ": ("tests/test_page_alone.py", "http.server.SimpleHTTPRequestHandler"),
    "from tf_metalstm import Celo": ("tests/rules/test_celo.py", "from tf_metalstm import Celo"),
}
# Values for words that a reader replaces.
WORDS = {
    "--data_dir=DIR": "--data_dir=omniglot",
    "--support DIR --query DIR": "--support few/support --query few/query",
    " MODEL ": " runs/photos/saved_model ",
}
SMALL = ["--checkpoint_every=2", "--validate_every=2"]
# Further flags, by the beginning of a command. A later flag replaces an earlier one.
SMALLER = {
    "train --learner": [],  # trains nothing
    "train --recipe=omniglot": [
        *SMALL,
        "--max_steps=2",
        "--validation_episodes=2",
        "--num_query=2",
    ],
    "train --flagfile=flags/recipes/optimizer": [
        *SMALL,
        "--max_steps=2",
        "--num_steps=4",
        "--unroll_steps=2",
        "--validation_episodes=32",
    ],
    "train ": [*SMALL, "--max_steps=2", "--validation_episodes=2"],
    "evaluate ": ["--num_episodes=2"],
    "compare_optimizers ": [
        "--num_episodes=4",
        "--validation_episodes=4",
        "--num_evaluation_steps=2",
    ],
}
# Names that a reader of docs/optimizer.md has defined before the blocks of that page.
BEFORE = """
import keras, numpy as np, tensorflow as tf
from tf_metalstm import MetaLSTM
from tf_metalstm.parameters import blocks_of

model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
inputs, targets = np.random.default_rng(0).normal(size=[40, 4]), np.arange(40) % 3
"""
RULE = """
theta, gradient, loss, rule = tf.ones([3]), tf.ones([3]), tf.constant(1.5), MetaLSTM()
rule.build(blocks_of([("kernel", (3,))]))
state = rule.initial_state(theta)
"""


def smaller(command):
    """Returns the command with flags that make it short."""
    for word, value in WORDS.items():
        command = command.replace(word, value)
    found = re.match(r"(?:python -m tf_metalstm\.|tf-metalstm )(.*)", command, flags=re.DOTALL)
    beginnings = [b for b in SMALLER if found and found[1].startswith(b)]
    return " ".join([command, *(SMALLER[beginnings[0]] if beginnings else ())])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Makes a folder for prepared pictures and for the programs `python` and `tf-metalstm`."""
    folder = tmp_path_factory.mktemp("home")
    for name, options in (("python", ""), ("tf-metalstm", "-m tf_metalstm ")):
        program = folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {options}"$@"\n')
        program.chmod(0o755)
    return folder


@pytest.fixture
def clone(tmp_path):
    """Makes a folder with the files of a clone, pictures in folders, and an Omniglot of noise."""
    for path in ROOT.iterdir():
        if path.name not in ("runs", "build", "site") and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    pictures = toy_images.folder_files("abcdef", images=7)
    few = toy_images.folder_files("abc", images=2)
    for folder, files in (("my_images", pictures), ("few", few)):
        toy_images.write_folder(tmp_path / folder / "support", files)
        queries = {path.replace("/", "_"): file for path, file in files.items()}
        toy_images.write_folder(tmp_path / folder / "query", queries)
    for split in ("train", "validation", "test"):
        toy_images.write_folder(tmp_path / "pictures" / split, pictures)
    return tmp_path


def write_omniglot(folder):
    """Writes the 1,623 characters that a split by characters needs, with seven drawings each."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    for part, count in (("background", 964), ("evaluation", 659)):
        files = {}
        for number in range(count):
            for drawing in range(7):
                name = f"images_{part}/{part}{number // 50:02d}/character{number % 50:02d}"
                ink = generator.random((28, 28)) < 0.1
                files[f"{name}/{number:04d}_{drawing:02d}.png"] = toy_images.encode(~ink, "PNG")
        toy_images.write_zip(folder / f"images_{part}.zip", files)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_works(page, clone, home):
    markdown = (ROOT / page).read_text()
    if "--data_dir=DIR" in markdown:
        write_omniglot(clone / "omniglot")
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{home}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(clone),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    python = [BEFORE] if page == "docs/optimizer.md" else []
    for block in blocks(markdown):
        for text in commands(block.text) if block.kind == "shell" else [block.text]:
            if block.kind == "text" or text.startswith(tuple(ELSEWHERE)):
                continue
            if block.kind == "python":
                python += [*([RULE] if text.startswith("theta, state") else []), text]
                continue
            run(["bash", "-euo", "pipefail", "-c", smaller(text)], clone, environment)
    if python:
        run(["python", "-c", "\n".join(python)], clone, environment)


def run(call, folder, environment):
    done = subprocess.run(
        call, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, f"{call[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_what_is_not_run_here_is_run_elsewhere():
    for file, words in ELSEWHERE.values():
        assert words in (ROOT / file).read_text(), (file, words)


def test_no_exception_is_for_a_command_that_is_gone():
    found = [block for page in PAGES for block in blocks((ROOT / page).read_text())]
    shell = [text for block in found if block.kind == "shell" for text in commands(block.text)]
    python = [block.text for block in found if block.kind == "python"]
    for beginning in ELSEWHERE:
        assert any(text.startswith(beginning) for text in [*shell, *python]), beginning
    for word in WORDS:
        assert any(word in text for text in shell), word
    for beginning in SMALLER:
        programs = (f"python -m tf_metalstm.{beginning}", f"tf-metalstm {beginning}")
        assert any(text.startswith(programs) for text in shell), beginning

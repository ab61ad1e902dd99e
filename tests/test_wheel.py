"""The unpacked wheel works in an empty folder, without the clone.

`make wheel-test` installs it into its own environment, and trains and exports there.
"""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # `make check` tests the wheel in another way

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys, setuptools.build_meta as backend; print(backend.build_wheel(sys.argv[1]))"
# One process for all, because each import of TensorFlow takes seconds.
ASK = """
import contextlib, io, pathlib, sys
sys.path.insert(0, sys.argv[1])
import tf_metalstm
from tf_metalstm import __main__, export, flagfiles, reproduce, shipped
from tf_metalstm.flags import parse_settings

def call(*arguments):
    sys.argv, out = ["tf-metalstm", *arguments], io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            __main__.main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
            if isinstance(code, str):  # as the interpreter does
                print(code)
                code = 1
    print(f"> {' '.join(arguments)}: {code}")
    print(out.getvalue())

print(tf_metalstm.__file__)
call("recipes")
for name in flagfiles.recipe_names():
    print(name, parse_settings([f"--recipe={name}"]).source)
print("models", *shipped.model_names())
print("model", (shipped.model_folder("omniglot_5way_5shot") / "saved_model.pb").is_file())
print(export._next_command(pathlib.Path("runs/a"), None))
call("reproduce", "--table=omniglot", "--print_only")
call("adapt", "--model=omniglot_5way_5shot", "--support=nowhere")
call("to_lite", "--model=omniglot_5way_5shot", "--out=lite")
call("train", "--recipe=omniglot_5way_1sht")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Returns a folder with the contents of the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy is built, so nothing is written into the clone or taken from an earlier build.
    (folder / "build.cfg").write_text(
        f"[build]\nbuild_base = {folder}/build\n[egg_info]\negg_base = {folder}\n"
    )
    environment = {**os.environ, "DIST_EXTRA_CONFIG": str(folder / "build.cfg")}
    command = [sys.executable, "-c", BUILD, folder]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [file] = folder.glob("*.whl")
    zipfile.ZipFile(file).extractall(folder / "unpacked")
    return folder / "unpacked"


def test_recipes_models_and_records_are_reached_from_the_wheel_alone(wheel, tmp_path):
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    # -P: the current folder, which is empty, is not on the path.
    done = subprocess.run(
        [sys.executable, "-P", "-c", ASK, wheel],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert said.startswith(str(wheel / "tf_metalstm"))
    recipes = sorted(path.stem for path in (ROOT / "flags" / "recipes").glob("*.flags"))
    sources = dict(line.split(" ") for line in said.splitlines() if line.count(" ") == 1)
    assert set(recipes) <= sources.keys()
    assert "omniglot_5way_1shot  " in said  # with its title
    models = sorted(path.parent.name for path in ROOT.glob("models/omniglot_*/manifest.json"))
    assert f"models {' '.join(models)}\n" in said
    assert "model True" in said
    assert "python -m tf_metalstm adapt --model runs/a --support" in said
    ended = re.findall(r"^> (\w+)[^\n]*: (\d+)\n(.*?)(?=^> |\Z)", said, re.MULTILINE | re.DOTALL)
    assert [(name, code) for name, code, _ in ended] == [
        ("recipes", "0"),
        ("reproduce", "0"),
        ("adapt", "1"),
        ("to_lite", "0"),
        ("train", "1"),
    ]
    texts = {name: text for name, _, text in ended}
    assert "| recorded |" in texts["reproduce"]
    assert texts["adapt"].strip() == "error: nowhere is not a folder."
    assert re.search(r"Wrote lite/predict.tflite: \d+ kB, needs LiteRT\n", texts["to_lite"])
    assert "did you mean omniglot_5way_1shot" in texts["train"]
    assert not [line for line in said.splitlines() if str(ROOT / "export") in line]

#!/usr/bin/env bash
# Usage: tools/try_wheel.sh PYTHON
#
# Builds the wheel and tries it in a new environment, as a user would who has nothing else. PYTHON is
# that of the development environment. The new environment uses its third-party packages, so that
# TensorFlow is not installed twice.
set -euo pipefail

python=$(realpath --no-symlinks "$1")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# `build` makes the wheel from the source distribution. A wheel that is built in place would also have
# the files of earlier builds in build/.
"$python" -m build --outdir "$scratch/dist" . >"$scratch/build.log" 2>&1 \
  || { cat "$scratch/build.log"; exit 1; }
wheel=$(echo "$scratch"/dist/*.whl)

"$python" - "$wheel" <<'END'
import pathlib
import sys
import zipfile

names = {n for n in zipfile.ZipFile(sys.argv[1]).namelist() if ".dist-info/" not in n}
shipped = {
    "tf_metalstm": "tf_metalstm",
    "export": "tf_metalstm/share/clients",
    "flags": "tf_metalstm/share/flags",
    "docs/tables": "tf_metalstm/share/tables",
    **{str(p): f"tf_metalstm/share/{p}" for p in pathlib.Path("models").glob("omniglot_*")},
}
expected = {
    f"{target}/{path.relative_to(folder).as_posix()}"
    for folder, target in shipped.items()
    for path in pathlib.Path(folder).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts and path.name[0] != "."
    and not (path.parent.name == "c" and path.suffix not in (".c", ".h") and path.name != "Makefile")
}
for title, difference in (("lacks", expected - names), ("should not have", names - expected)):
    if difference:
        sys.exit(f"The wheel {title}: {', '.join(sorted(difference))}")
END

# A .pth file adds the third-party packages, but does not run the .pth files among them. So the editable
# install of the clone is not used.
"$python" -m venv --without-pip "$scratch/venv"
fresh=$scratch/venv/bin/python
site_packages='import sysconfig; print(sysconfig.get_path("purelib"))'
"$python" -c "$site_packages" >"$("$fresh" -c "$site_packages")/lent.pth"
"$python" -m pip --python "$fresh" install --quiet --disable-pip-version-check \
  --no-deps --no-index "$wheel"

mkdir "$scratch/empty"
cd "$scratch/empty"
unset PYTHONPATH
"$fresh" - "$scratch/venv" <<'END'
import sys

import tf_metalstm

if not tf_metalstm.__file__.startswith(sys.argv[1]):
    sys.exit(f"Imported {tf_metalstm.__file__}, which is not in the wheel")
END
for command in train evaluate visualize export; do
  # absl exits with 1 after it has printed the help.
  help=$("$fresh" -m "tf_metalstm.$command" --helpshort 2>"$scratch/stderr") || [[ $? == 1 ]]
  if [[ $help != *--run_dir* ]]; then
    cat "$scratch/stderr"
    echo "tf_metalstm.$command --helpshort does not name --run_dir but prints: $help"
    exit 1
  fi
done

tf_metalstm=$scratch/venv/bin/tf-metalstm
says() {  # WORDS COMMAND...: checks that the output of the command has the words; ignores its exit code
  local said
  said=$("${@:2}" 2>&1) || true
  [[ $said == *"$1"* ]] || { echo "$(basename "${*:2}") does not say \"$1\" but: $said"; exit 1; }
}
says "meta-learner LSTM on Omniglot, 5-way 1-shot" "$tf_metalstm" recipes
says "omniglot needs a --data_dir" "$tf_metalstm" train --recipe=omniglot_5way_1shot
says "omniglot needs a --data_dir" \
  "$fresh" -m tf_metalstm.train --flagfile=flags/recipes/omniglot_5way_1shot.flags
says "did you mean omniglot_5way_1shot" "$tf_metalstm" train --recipe=omniglot_5way_1sht
says "| recorded |" "$tf_metalstm" reproduce --table=omniglot --print_only
says "Adapted to 2 images of 2 classes" "$fresh" - <<'END'
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tf_metalstm import FewShotClassifier

for name, gray in (("dark", 20), ("light", 200)):
    Path("support", name).mkdir(parents=True)
    Image.new("L", (9, 9), gray).save(f"support/{name}/1.png")
command = [sys.executable, "-m", "tf_metalstm", "adapt", "--model", "omniglot_5way_5shot"]
subprocess.run([*command, "--support", "support", "--query", "support"], check=True)
files = [f"support/{name}/1.png" for name in ("dark", "light")]
FewShotClassifier.load("omniglot_5way_5shot").fit(files, ["dark", "light"]).predict(files)
END
"$tf_metalstm" train --recipe=glyphs_pixel_nearest_neighbor --prepared_dir=prepared \
  --validation_episodes=2 --run_dir=run >"$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }
says "accuracy" "$tf_metalstm" evaluate --run_dir=run --num_episodes=2
says "Next, with one folder of images a class: python -m tf_metalstm adapt --model run/saved_model" \
  "$tf_metalstm" export --run_dir=run
echo "$(basename "$wheel") has the expected files; its commands, recipes, models and tables work in an empty folder"

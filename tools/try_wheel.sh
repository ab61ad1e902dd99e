#!/usr/bin/env bash
# Usage: tools/try_wheel.sh PYTHON
#
# Builds the wheel and tries it as somebody would who has nothing else of ours: PYTHON is that of the
# development environment, whose third-party packages are lent to a fresh environment, so that
# TensorFlow is not installed twice.
set -euo pipefail

python=$(realpath --no-symlinks "$1")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Through the source distribution, the default of `build`: a wheel built in place would take along
# whatever an earlier build had left in build/.
"$python" -m build --outdir "$scratch/dist" . >"$scratch/build.log" 2>&1 \
  || { cat "$scratch/build.log"; exit 1; }
wheel=$(echo "$scratch"/dist/*.whl)

"$python" - "$wheel" <<'END'
import pathlib
import sys
import zipfile

names = {n for n in zipfile.ZipFile(sys.argv[1]).namelist() if ".dist-info/" not in n}
files = (p for p in pathlib.Path("tf_metalstm").rglob("*") if p.is_file())
expected = {p.as_posix() for p in files if "__pycache__" not in p.parts}
for title, difference in (("lacks", expected - names), ("holds besides", names - expected)):
    if difference:
        sys.exit(f"The wheel {title}: {', '.join(sorted(difference))}")
END

# A .pth file adds the lent packages without running .pth files among them: the editable install of
# the clone stays out.
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
    sys.exit(f"Imported {tf_metalstm.__file__}, which is not the wheel")
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
echo "$(basename "$wheel") holds the package alone, and its commands start in an empty folder"

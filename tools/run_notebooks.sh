#!/usr/bin/env bash
# Usage: tools/run_notebooks.sh PYTHON
#
# Runs the notebooks and keeps in them what they print and draw, but for progress bars and the lines that
# TensorFlow writes to standard error.
set -euo pipefail

python=$1
"$python" -m nbconvert --execute --to notebook --inplace --log-level WARN notebooks/*.ipynb
"$python" tools/tidy_notebooks.py notebooks/*.ipynb

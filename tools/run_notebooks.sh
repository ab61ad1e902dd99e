#!/usr/bin/env bash
# Usage: tools/run_notebooks.sh PYTHON
#
# Runs the notebooks and saves their output and figures, without progress bars and without the lines that
# TensorFlow writes to standard error.
set -euo pipefail

python=$1
"$python" -m nbconvert --execute --to notebook --inplace --log-level WARN notebooks/*.ipynb
"$python" tools/tidy_notebooks.py notebooks/*.ipynb

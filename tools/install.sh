#!/usr/bin/env bash
# Usage: tools/install.sh VENV REQUIREMENT PYTHON...
#
# Installs REQUIREMENT, editable, into the virtual environment VENV. If VENV does not work or does not
# exist, it is created with the first PYTHON of a suitable version.
set -euo pipefail

venv=$1 requirement=$2
shift 2

# TensorFlow 2.21 is published for these versions only.
suitable='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
can_make_venv='import ensurepip, venv'

find_python() {
  local candidate version without_venv=""
  for candidate in "$@"; do
    # The version also shows whether the program runs at all.
    version=$("$candidate" -c 'import platform; print(platform.python_version())' 2>/dev/null) \
      || version="not found"
    if ! "$candidate" -c "$suitable" 2>/dev/null; then
      echo "  $candidate: $version" >&2
    elif ! "$candidate" -c "$can_make_venv" 2>/dev/null; then
      echo "  $candidate: $version, cannot make virtual environments" >&2
      without_venv=${version%.*}
    else
      echo "$candidate"
      return
    fi
  done
  {
    echo "No suitable Python was found (see above): it must be 3.11, 3.12 or 3.13 with the module venv."
    if [[ -n $without_venv ]]; then
      echo "Install the module (Debian, Ubuntu: apt-get install python$without_venv-venv) and try again."
    else
      echo "Install one, or name its path: make PYTHON=/path/to/python3.12 ..."
    fi
  } >&2
  return 1
}

if ! { "$venv/bin/python" -c "$suitable" && "$venv/bin/python" -m pip --version; } &>/dev/null; then
  python=$(find_python "$@")
  echo "Creating $venv with $("$python" --version)"
  "$python" -m venv --clear "$venv"
fi

echo "Installing $requirement into $venv (the first time takes some minutes)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$requirement"

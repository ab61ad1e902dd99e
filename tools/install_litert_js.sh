#!/usr/bin/env bash
# Usage: tools/install_litert_js.sh
#
# Installs LiteRT for the browser, the npm package @litertjs/core, into build/litert_js. The tests of
# the page that runs a classifier in the browser (tests/test_page_alone.py) need it.
set -euo pipefail

package=@litertjs/core@2.5.3
folder=$(dirname "${BASH_SOURCE[0]}")/../build/litert_js

cannot() {
  echo "The tests of the page that runs LiteRT need the npm package $package: $1." >&2
  exit 1
}

if grep -qs '"version": "2.5.3"' "$folder/node_modules/@litertjs/core/package.json"; then
  exit
fi
if ! command -v npm >/dev/null; then
  command -v apt-get >/dev/null || cannot "npm is missing, and so is apt-get"
  [[ $(id -u) == 0 ]] || cannot "npm is missing, and only root may install it"
  echo "Installing npm (a minute)"
  apt-get update --quiet=2 >/dev/null || cannot "apt-get update failed"
  DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends npm \
    >/dev/null || cannot "apt-get could not install npm"
fi
mkdir -p "$folder"
npm install --prefix "$folder" --no-audit --no-fund --loglevel=error "$package" \
  || cannot "npm could not install it"

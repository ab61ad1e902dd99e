#!/usr/bin/env bash
# Usage: tools/install_browser.sh
#
# Installs Chromium and its driver from Debian's packages, if they are missing. The tests of the demo
# page (tests/test_demo.py) need them. If they cannot be installed, it fails and says what to do.
set -euo pipefail

packages=(chromium chromium-driver)

is_there() {
  command -v chromium && command -v chromedriver
} >/dev/null

cannot() {
  {
    echo "The tests of the demo page need chromium and chromedriver on the PATH: $1."
    echo "Install them (Debian: apt-get install ${packages[*]}), or leave these tests out: make check"
  } >&2
  exit 1
}

if is_there; then
  exit
fi
command -v apt-get >/dev/null || cannot "they are missing, and so is apt-get"
[[ $(id -u) == 0 ]] || cannot "they are missing, and only root may install them"
echo "Installing ${packages[*]} (half a minute)"
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2 >/dev/null || cannot "apt-get update failed"
apt-get install --quiet=2 --yes --no-install-recommends "${packages[@]}" >/dev/null \
  || cannot "apt-get could not install ${packages[*]}"
is_there || cannot "apt-get installed ${packages[*]}, but not under these names"

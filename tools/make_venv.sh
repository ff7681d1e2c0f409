#!/bin/sh
# Makes the virtual environment; on a Debian whose python3 lacks the venv module, installs that first (as root).
# The Envoy front loads a shared libpython, which Debian keeps in a package of its own.
set -eu
python=${PYTHON:-python3}
root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  root || { echo "python3-venv is missing; install it: apt-get install python3-venv" >&2; exit 1; }
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv "libpython$version" >/dev/null
fi
"$python" -m venv "$1"
"$1/bin/python" -m pip install --quiet --upgrade pip

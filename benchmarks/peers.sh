#!/bin/sh
# Installs the other servers, each into an environment of its own below .venv-peers: their pins contradict ours.
# PyTriton's Triton loads a shared libpython, so its environment is made by the system's python3 (Debian's has one).
# One that cannot be installed is left out with a word; the benchmark then skips it.
set -u
here=$(dirname "$0")
install() {
  name=$1 python=$2 log=.venv-peers/$1.log
  [ -f ".venv-peers/$name/.installed" ] && return
  mkdir -p .venv-peers
  echo "installing $name …"
  if PYTHON=$python sh tools/make_venv.sh ".venv-peers/$name" >"$log" 2>&1 &&
    ".venv-peers/$name/bin/python" -m pip install --quiet --requirement "$here/peers-$name.txt" >>"$log" 2>&1; then
    touch ".venv-peers/$name/.installed"
  else
    echo "$name does not install here and will be skipped; see $log" >&2
  fi
}
system=/usr/bin/python3
[ -x "$system" ] || system=${PYTHON:-python3}
install mlserver "${PYTHON:-python3}"
install triton "$system"

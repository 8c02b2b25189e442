#!/usr/bin/env bash
# make-venv.sh VENV LOCK: an environment with exactly the locked packages, and this package on top of them.
set -euo pipefail
venv=$1 lock=$2

new_enough() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in python3.13 python3.12 python3 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python3; do
    if new_enough "$candidate"; then echo "$candidate"; return; fi
  done
  echo "No Python >= 3.12 with venv found (looked for python3.13, python3.12, python3 and pyenv's versions)." >&2
  exit 1
}

python=$(find_python)
if ! new_enough "$venv/bin/python"; then
  rm -rf "$venv"
  "$python" -m venv "$venv"
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1
echo "Installing the locked dependencies into $venv ($("$venv/bin/python" --version)) …"
"$venv/bin/python" -m pip install --quiet --require-hashes --requirement "$lock"
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable api

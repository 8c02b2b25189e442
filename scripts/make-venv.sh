#!/usr/bin/env bash
# make-venv.sh VENV LOCK: an environment with exactly the locked packages, and this package on top of them.
set -euo pipefail
venv=$1 lock=$2
here=$(dirname "$0")

python=$(bash "$here/find-python.sh")
rm -rf "$venv"
"$python" -m venv "$venv"
export PIP_DISABLE_PIP_VERSION_CHECK=1
echo "Installing the locked dependencies into $venv ($("$venv/bin/python" --version)) …"
"$venv/bin/python" -m pip install --quiet --require-hashes --requirement "$lock"
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable api

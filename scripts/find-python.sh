#!/usr/bin/env bash
# Prints the first interpreter that can carry the project: Python >= 3.12 with venv and pip.
new_enough() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; }

for candidate in python3.13 python3.12 python3 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python3; do
  if new_enough "$candidate"; then
    echo "$candidate"
    exit 0
  fi
done
echo "No Python >= 3.12 with venv found (looked for python3.13, python3.12, python3 and pyenv's versions)." >&2
exit 1

#!/usr/bin/env bash
# Fetch perf_analyzer, NVIDIA's load generator for the Open Inference Protocol (BSD licence), into DIR/perf_analyzer.
# It is published inside older wheels of tritonclient, for Linux on x86-64, and links the CUDA runtime even where no GPU is.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."

[ "$(uname -sm)" = "Linux x86_64" ] || { echo "perf_analyzer is published for Linux on x86-64 only" >&2; exit 1; }
if ! ldconfig -p | grep -q 'libb64\.so\.0d'; then
  echo "perf_analyzer needs libb64: apt-get install libb64-0d" >&2
  exit 1
fi
if [ ! -x "$dir/perf_analyzer" ]; then
  python=.venv/bin/python
  [ -x "$python" ] || python=$(bash scripts/find-python.sh)
  aside=$(mktemp -d "$dir/.fetch.XXXXXX")
  trap 'rm -rf "$aside"' EXIT
  cat > "$aside/wheels.txt" <<'WHEELS'
tritonclient==2.49.0 --hash=sha256:e7b40ba11056c93da434bc8a8b302c0a337489923a0a747c5d313314baa26db3
nvidia-cuda-runtime-cu12==12.4.127 --hash=sha256:64403288fa2136ee8e467cdc9c9427e0434110899d07c779f25b5c068934faa5
WHEELS
  "$python" -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
    --platform manylinux1_x86_64 --platform manylinux2014_x86_64 --dest "$aside" -r "$aside/wheels.txt"
  for wheel in "$aside"/*.whl; do "$python" -m zipfile -e "$wheel" "$aside/wheels"; done
  mkdir -p "$dir/lib"
  cp "$aside"/wheels/nvidia/cuda_runtime/lib/libcudart.so.12 "$dir/lib/"
  cp "$aside"/wheels/tritonclient-*.data/data/bin/perf_analyzer "$dir/lib/perf_analyzer"
  chmod +x "$dir/lib/perf_analyzer"
  cat > "$aside/perf_analyzer" <<'RUN'
#!/bin/sh
lib=$(dirname "$(readlink -f "$0")")/lib
LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$lib/perf_analyzer" "$@"
RUN
  chmod +x "$aside/perf_analyzer"
  mv "$aside/perf_analyzer" "$dir/perf_analyzer"
fi
"$dir/perf_analyzer" --version > /dev/null 2>&1
echo "$dir/perf_analyzer"

#!/usr/bin/env bash
# Solves the dependencies anew into hashed lock files that name no index.
set -euo pipefail
cd "$(dirname "$0")/.."
solve() { # OUTPUT ARGS…
  local output=$1; shift
  uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url \
    --no-emit-find-links --no-header --no-annotate "$@" --output-file "$output" api/pyproject.toml
}
solve api/requirements.lock     --extra cpu --extra eotdl --extra grpc --group api/pyproject.toml:build "$@"
solve api/requirements-gpu.lock --extra gpu --extra eotdl --extra grpc --group api/pyproject.toml:build "$@"
solve api/requirements-dev.lock --extra cpu --extra eotdl --extra grpc --group api/pyproject.toml:build --group api/pyproject.toml:dev "$@"

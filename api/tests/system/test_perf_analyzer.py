"""perf_analyzer, the load generator that Triton's users know, drives this service over REST and over gRPC.

The binary comes from `scripts/perf-analyzer.sh`; its random data are FP32 of random bits, so that only zeros fit into JSON.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from system.conftest import start, stop

BINARY = Path(sys.prefix) / "perf-analyzer" / "perf_analyzer"
MODEL = "landcover-share"
PIXELS = "reflectance:4,64,64"


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """Where a service of its own answers REST and gRPC."""
    if not BINARY.exists():
        pytest.skip("perf_analyzer is absent: bash scripts/perf-analyzer.sh .venv/perf-analyzer fetches it")
    pytest.importorskip("grpc", reason="the `grpc` extra is not installed")
    server = start(tmp_path_factory.mktemp("perf"), MODELS=MODEL)
    yield {"http": server.url.removeprefix("http://"), "grpc": server.grpc}
    assert stop(server) == 0


def analyse(address, protocol, table, *more):
    """Measure in windows of 200 ms, call three in a row stable whatever they show, and give the table's rows."""
    windows = ["--measurement-interval", "200", "--max-trials", "3", "--stability-percentage", "999"]
    command = [
        BINARY,
        "-m",
        MODEL,
        "-u",
        address,
        "-i",
        protocol,
        "--shape",
        PIXELS,
        *windows,
        "-f",
        table,
        *more,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with table.open(newline="") as file:
        return done.stdout, list(csv.DictReader(file))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_sweep_of_concurrency_prints_its_table(addresses, protocol, tmp_path):
    sweep = ("--concurrency-range", "1:4:1")
    printed, rows = analyse(addresses[protocol], protocol, tmp_path / "table.csv", *sweep)
    assert sorted(int(row["Concurrency"]) for row in rows) == [1, 2, 3, 4]
    for row in rows:
        assert f"Concurrency: {row['Concurrency']}, throughput: " in printed
        assert float(row["Inferences/Second"]) > 0
        assert 0 < int(row["p50 latency"]) <= int(row["p99 latency"])
        # What the server says of itself, from two readings of its statistics.
        assert int(row["Server Compute Infer"]) > 0
        assert int(row["Server Queue"]) + int(row["Server Compute Infer"]) <= int(row["p99 latency"])
    counted = [int(count) for count in re.findall(r"Inference count: (\d+)", printed)]
    asked = [int(count) for count in re.findall(r"Request count: (\d+)", printed)]
    assert len(counted) == len(asked) == 4
    for server, client in zip(counted, asked, strict=True):
        assert abs(server - client) <= 0.1 * client + 8  # requests under way when the window opened or closed


@pytest.mark.parametrize(
    ("protocol", "how"),
    [
        ("http", ("-b", "4")),
        ("http", ("--input-data", "zero", "--input-tensor-format", "json", "--output-tensor-format", "json")),
        ("http", ("--async", "--concurrency-range", "4")),
        ("http", ("--request-rate-range", "50")),
        ("grpc", ("-b", "4")),
        ("grpc", ("--async", "--streaming", "--concurrency-range", "4")),
        ("grpc", ("--grpc-compression-algorithm", "gzip")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_its_other_ways_to_ask_work(addresses, protocol, how, tmp_path):
    _, rows = analyse(addresses[protocol], protocol, tmp_path / "table.csv", *how)
    assert [float(row["Inferences/Second"]) > 0 for row in rows] == [True]


def test_a_version_that_is_not_there_is_told(addresses, tmp_path):
    with pytest.raises(AssertionError, match="no version '7'"):
        analyse(addresses["http"], "http", tmp_path / "table.csv", "-x", "7")

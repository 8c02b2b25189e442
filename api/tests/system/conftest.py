"""A real server process on loopback, and formulas in plain numpy to hold its answers against."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import httpx
import pytest


@dataclass
class Server:
    """A running service."""

    url: str
    process: subprocess.Popen
    grpc: str
    """`host:port`; empty where gRPC is off."""

    def metrics(self):
        """Every sample of /metrics as `name{labels}` → value."""
        text = httpx.get(f"{self.url}/metrics", timeout=30).text
        return {
            m[1]: float(m[2])
            for m in re.finditer(r"^([a-zA-Z_:][^\s{]*(?:\{[^}]*\})?)\s(\S+)$", text, re.MULTILINE)
        }

    def total(self, name, **labels):
        """Sum of a metric's samples over the labels that are not named."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            value
            for sample, value in self.metrics().items()
            if sample.split("{")[0] == name and all(label in sample for label in wanted)
        )


def start(folder, **environ):
    """Start `ml-inference serve` on free ports, and wait for the lines that say where it answers."""
    log = folder / "server.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "ml_inference", "serve", "--port", "0"],
            cwd=folder,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith(("EOTDL", "OTEL"))},
                "MODEL_SOURCES": "samples:",
                "EOTDL_DOWNLOAD_PATH": str(folder / "cache"),
                "GRPC_PORT": "0",
                **environ,
            },
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    ready, _, _ = select.select([process.stdout], [], [], 60)
    line = process.stdout.readline() if ready else ""
    found = re.search(r"http://\S+", line)
    if not found:
        process.kill()
        pytest.fail(f"the server did not start: {line!r} {log.read_text()}")
    spoken = environ.get("GRPC_PORT") != "off"
    grpc = re.search(r"gRPC.*?(\S+:\d+)$", process.stdout.readline()) if spoken else None
    return Server(found[0], process, grpc[1] if grpc else "")


def stop(server):
    """SIGTERM, and the exit status."""
    server.process.send_signal(signal.SIGTERM)
    status = server.process.wait(30)
    server.process.stdout.close()
    return status


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One service with the sample models for all tests of this folder."""
    running = start(tmp_path_factory.mktemp("service"))
    deadline = time.monotonic() + 60
    while httpx.get(f"{running.url}/health/ready", timeout=30).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield running
    assert stop(running) == 0

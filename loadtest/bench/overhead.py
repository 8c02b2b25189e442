#!/usr/bin/env python
"""What the service adds to a lone request, in milliseconds, and where they go.

Starts a real server, posts one tile again and again over one connection, and in turn does by hand what cannot be
saved: decode the same bytes and run the same graph. Prints a Markdown table of medians.

    python loadtest/bench/overhead.py [--size 64] [--model landcover-share] [--rounds 400] [--v2]

With --v2 the tile goes as a tensor in the binary form of the Open Inference Protocol, and by hand only the graph is run.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from ml_inference import imagery
from ml_inference.contract.raster import Raster
from ml_inference.imagery.raster_file import write_raster
from ml_inference.sources.base import ModelReference
from ml_inference.sources.samples import SamplesSource

if TYPE_CHECKING:
    from collections.abc import Iterator

WARM_UP = 50
"""Rounds that are not counted."""
LIMITS = imagery.DecodeLimits(max_pixels=1 << 24, max_bytes=1 << 28, max_bands=64)


def tile(size: int) -> bytes:
    """A GeoTIFF of four Sentinel-2-like bands."""
    pixels = np.random.default_rng(0).integers(1, 6000, (4, size, size), dtype=np.uint16)
    return write_raster(Raster(pixels, bands=("B02", "B03", "B04", "B08")))


@contextmanager
def server() -> Iterator[int]:
    """A real server process on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {
        **os.environ,
        "PORT": str(port),
        "GRPC_PORT": "off",
        "MODEL_SOURCES": "samples:",
        "LOG_LEVEL": "warning",
    }
    process = subprocess.Popen([sys.executable, "-m", "ml_inference", "serve"], env=environ)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 0.1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


type Request = tuple[str, bytes, dict[str, str]]
"""Path, body and headers."""


def image_request(model: str, body: bytes) -> Request:
    """The tile as it is."""
    return f"/{model}", body, {"Content-Type": "image/tiff"}


def tensor_request(model: str, body: bytes, session: ort.InferenceSession) -> Request:
    """The tile as the tensor that the model takes, behind a head in JSON."""
    x = tensor_of(body).tobytes()
    tensor = {
        "name": session.get_inputs()[0].name,
        "datatype": "FP32",
        "shape": tensor_of(body).shape,
        "parameters": {"binary_data_size": len(x)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return f"/v2/models/{model}/infer", head + x, {"Inference-Header-Content-Length": str(len(head))}


def tensor_of(body: bytes) -> np.ndarray:
    """What the model's card makes of the tile."""
    return imagery.decode(body, LIMITS).pixels.astype(np.float32)[None] / np.float32(10000)


def post(connection: http.client.HTTPConnection, request: Request) -> tuple[float, dict[str, float]]:
    """Milliseconds of one round trip, and what `Server-Timing` says of it."""
    path, body, headers = request
    started = time.perf_counter()
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    answer = response.read()
    elapsed = (time.perf_counter() - started) * 1e3
    if response.status != http.HTTPStatus.OK:
        raise SystemExit(f"{response.status}: {json.loads(answer)}")
    phases = re.findall(r"(\w+);dur=([\d.]+)", response.headers["Server-Timing"])
    return elapsed, {name: float(value) for name, value in phases}


def ping(connection: http.client.HTTPConnection) -> float:
    """Milliseconds of a request that does nothing: what HTTP itself costs."""
    started = time.perf_counter()
    connection.request("GET", "/health/live")
    connection.getresponse().read()
    return (time.perf_counter() - started) * 1e3


def by_hand(body: bytes, session: ort.InferenceSession) -> tuple[float, float]:
    """Milliseconds of decoding, and of running the graph."""
    started = time.perf_counter()
    imagery.decode(body, LIMITS)
    decoded = time.perf_counter()
    x = tensor_of(body)
    prepared = time.perf_counter()
    session.run(None, {session.get_inputs()[0].name: x})
    return (decoded - started) * 1e3, (time.perf_counter() - prepared) * 1e3


def bare_session(model: str) -> ort.InferenceSession:
    """The same graph, alone."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = SamplesSource(Path(folder)).fetch(ModelReference(model, None))
        options = ort.SessionOptions()
        options.intra_op_num_threads = max(1, len(os.sched_getaffinity(0)) - 1)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return ort.InferenceSession(str(bundle.model_path), options, ["CPUExecutionProvider"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="landcover-share")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--v2", action="store_true", help="a binary tensor instead of an image")
    options = parser.parse_args()
    body, session = tile(options.size), bare_session(options.model)
    request = (
        tensor_request(options.model, body, session) if options.v2 else image_request(options.model, body)
    )
    served, pings, decodes, runs, phases = [], [], [], [], []
    with server() as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for i in range(options.rounds + WARM_UP):
            elapsed, timing = post(connection, request)
            decode, run = by_hand(body, session)
            nothing = ping(connection)
            if i >= WARM_UP:
                served.append(elapsed)
                phases.append(timing)
                decodes.append(0.0 if options.v2 else decode)
                runs.append(run)
                pings.append(nothing)
    report(served, pings, decodes, runs, phases)


def report(served, pings, decodes, runs, phases) -> None:  # noqa: ANN001
    """Print medians in milliseconds."""
    middle = statistics.median
    whole, floor = middle(served), middle(decodes) + middle(runs)
    work = "decode + session.run by hand" if any(decodes) else "session.run by hand"
    rows = [("one request, as the client sees it", whole), (work, floor)]
    rows.append(("**added by the service**", whole - floor))
    parts = {name: middle([p.get(name, 0.0) for p in phases]) for name in phases[0]}
    rows += [(f"in the server: {name}", value) for name, value in parts.items()]
    rows.append(("an HTTP request that does nothing", middle(pings)))
    print("| median | ms |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value:.2f} |")


if __name__ == "__main__":
    main()

"""Start, refuse to start, drain: the process as its supervisor sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest
from system.conftest import start, stop
from system.files import geotiff, opened, scene

NAMES = ("B02", "B03", "B04", "B08")


def test_sigterm_under_load_loses_no_accepted_request(tmp_path):
    server = start(tmp_path)
    body = geotiff(scene(1, 300, 300), NAMES)
    httpx.post(f"{server.url}/spectral-landcover", content=body, timeout=60)
    answers = []

    def ask():
        with httpx.Client(timeout=60) as client:
            while True:
                try:
                    answers.append(client.post(f"{server.url}/spectral-landcover", content=body))
                except httpx.TransportError:  # the service has gone, and takes no more
                    return

    callers = [threading.Thread(target=ask) for _ in range(8)]
    for caller in callers:
        caller.start()
    time.sleep(1.0)
    assert stop(server) == 0
    for caller in callers:
        caller.join(30)
    assert len(answers) > 8
    assert {answer.status_code for answer in answers} <= {200, 503}
    complete = [a for a in answers if a.status_code == 200]
    assert all(opened(a.content)[0]["width"] == 300 for a in complete)
    # Every request that the service took up and answered has reached its caller, the first one included.
    log = (tmp_path / "server.log").read_text()
    taken_up = [line for line in log.splitlines() if "method=POST" in line]
    assert len([line for line in taken_up if "status=200" in line]) == len(complete) + 1
    assert not [line for line in taken_up if "status=5" in line and "status=503" not in line]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"BATCH_SIZE": "many"}, ["BATCH_SIZE", "many"]),
        ({"DEVICE": "cuda"}, ["DEVICE=cuda"]),
        ({"MODEL_SOURCES": "ftp://x"}, ["MODEL_SOURCES", "ftp://x"]),
    ],
)
def test_what_cannot_be_started_is_refused_in_one_line(tmp_path, environ, words):
    done = subprocess.run(
        [sys.executable, "-m", "ml_inference", "serve", "--port", "0"],
        cwd=tmp_path,
        env={**os.environ, "MODEL_SOURCES": "samples:", "GRPC_PORT": "off", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "DEVICE" in environ and done.returncode == 0:
        pytest.skip("this machine has CUDA")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr


def test_a_refused_model_says_why_and_leaves_the_others_alone(tmp_path):
    broken = tmp_path / "models" / "broken"
    broken.mkdir(parents=True)
    (broken / "item.json").write_text('{"type": "Feature",\n "properties": {')
    server = start(tmp_path, MODEL_SOURCES=f"samples:,{tmp_path / 'models'}", MODELS="broken")
    try:
        response = httpx.post(f"{server.url}/broken", content=b"x", timeout=30)
        assert response.status_code == 500
        assert "item.json" in response.text
        assert str(tmp_path) not in response.text
        card = httpx.get(f"{server.url}/models/broken", timeout=30).json()
        assert card["state"] == "refused"
        ready = httpx.get(f"{server.url}/health/ready", timeout=30)
        assert ready.status_code == 503
        assert "broken" in ready.text
        assert httpx.get(f"{server.url}/health/live", timeout=30).status_code == 200
        good = httpx.post(f"{server.url}/ndvi", content=geotiff(scene(1, 8, 8), NAMES), timeout=30)
        assert good.status_code == 200
    finally:
        assert stop(server) == 0


def test_a_second_sigint_is_not_needed(tmp_path):
    server = start(tmp_path)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(20) in {0, 130}
    server.process.stdout.close()

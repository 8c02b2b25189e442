"""The service in its own process, spoken to byte by byte: clients that lie, stall, cut and leave."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time

import httpx
import pytest
from web.slow_model import FOREVER, image

TIMEOUT = 1.5
CAP = 100_000


@pytest.fixture(scope="module")
def port(model_folder, tmp_path_factory):
    environment = {
        **{name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}},
        "MODEL_SOURCES": str(model_folder),
        "REQUEST_TIMEOUT": str(TIMEOUT),
        "MAX_BODY_BYTES": str(CAP),
        "PORT": "0",
        "GRPC_PORT": "off",
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-W", "error", "-m", "ml_inference", "serve"]
    folder = tmp_path_factory.mktemp("server")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=log)
        try:
            line = process.stdout.readline().decode()
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            assert found, line + (folder / "log").read_text()
            number = int(found[1])
            assert httpx.get(f"http://127.0.0.1:{number}/models/slow").status_code == 200
            yield number
        finally:
            process.terminate()
            process.communicate(timeout=20)
    text = (folder / "log").read_text()
    assert "Traceback" not in text
    assert "Exception in ASGI" not in text


@pytest.fixture
def wire(port):
    with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
        yield connection


def head(*lines: str, path="/slow", method="POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def receive(connection) -> tuple[int, dict[str, str], bytes]:
    """One response by its Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        assert more, data
        data += more
    top, _, body = data.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return int(first.split()[1]), headers, body


def problem(connection, status):
    got, headers, body = receive(connection)
    assert (got, headers["content-type"]) == (status, "application/problem+json"), body
    assert json.loads(body)["status"] == status
    return headers


def metric(port, *words):
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith(words[0]) and all(word in line for word in words)
    )


def eventually(condition):
    """Wait for what happens soon after, but not before, a socket closes."""
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def _still_serving(port):
    """Whatever a test did to it, the next client is answered at once and rightly."""
    yield
    answer = httpx.post(f"http://127.0.0.1:{port}/slow", content=image(3.0))
    assert answer.json()["prediction"]["values"] == [{"name": "mean", "value": 6.0}]


def test_a_client_that_hangs_up_while_its_model_runs_frees_the_lane(port, wire):
    """Its run is told to stop and counted as cancelled; the next request does not wait for it."""
    before = metric(port, "model_inference_rejected_total", "cancelled")
    body = image(FOREVER)
    wire.sendall(head(f"Content-Length: {len(body)}", "X-Request-Timeout-Ms: 999999") + body)
    time.sleep(0.3)
    wire.close()
    eventually(lambda: metric(port, "model_inference_rejected_total", "cancelled") == before + 1)
    started = time.monotonic()
    assert httpx.post(f"http://127.0.0.1:{port}/slow", content=image()).status_code == 200
    assert time.monotonic() - started < TIMEOUT


def test_a_client_that_hangs_up_mid_body_starts_no_inference(port):
    before = metric(port, "model_inference_duration_seconds_count")
    for _ in range(100):
        with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
            connection.sendall(head("Content-Length: 50000") + bytes(20_000))
    eventually(lambda: metric(port, "http_requests_total", "/{model}", "4xx") >= 100)
    assert metric(port, "model_inference_duration_seconds_count") == before


def test_a_body_cut_off_half_way_with_the_connection_half_open_is_not_taken_for_whole(wire):
    wire.sendall(head("Content-Length: 50000") + image())
    wire.shutdown(socket.SHUT_WR)
    assert wire.recv(1000) == b""


def test_a_body_that_trickles_ends_with_408_and_the_connection(wire):
    wire.sendall(head("Content-Length: 1000"))
    started = time.monotonic()
    with contextlib.suppress(OSError):
        for _ in range(30):
            wire.sendall(b"x")
            time.sleep(0.1)
            if time.monotonic() - started > TIMEOUT + 0.5:
                break
    headers = problem(wire, 408)
    assert headers["connection"] == "close"
    assert wire.recv(1000) == b""


def test_a_content_length_longer_than_the_body_ends_with_408(wire):
    body = image()
    wire.sendall(head(f"Content-Length: {len(body) + 10}") + body)
    problem(wire, 408)


def test_a_content_length_shorter_than_the_body_reads_no_further(wire):
    body = image()
    wire.sendall(head(f"Content-Length: {len(body) - 10}") + body)
    assert receive(wire)[0] == 400  # what follows the declared body is no request
    assert wire.recv(1000) == b""


def test_a_body_over_the_cap_is_refused_at_its_length(wire):
    started = time.monotonic()
    wire.sendall(head(f"Content-Length: {CAP + 1}"))
    problem(wire, 413)
    assert time.monotonic() - started < TIMEOUT


def test_a_client_that_asks_first_is_refused_before_it_sends(wire):
    wire.sendall(head(f"Content-Length: {CAP + 1}", "Expect: 100-continue"))
    problem(wire, 413)


def test_a_client_that_asks_first_and_may_is_told_to_go_on(wire):
    body = image()
    wire.sendall(head(f"Content-Length: {len(body)}", "Expect: 100-continue"))
    assert wire.recv(1000).startswith(b"HTTP/1.1 100")
    wire.sendall(body)
    assert receive(wire)[0] == 200


def test_a_client_that_sends_far_too_much_still_reads_its_413(port):
    assert httpx.post(f"http://127.0.0.1:{port}/slow", content=bytes(20 * CAP)).status_code == 413


def test_a_chunked_body_is_read_and_capped(wire):
    body = image()
    wire.sendall(head("Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    assert receive(wire)[0] == 200
    wire.sendall(head("Transfer-Encoding: chunked"))
    with contextlib.suppress(OSError):
        for _ in range(CAP // 10_000 + 2):
            wire.sendall(b"2710\r\n" + bytes(10_000) + b"\r\n")
    problem(wire, 413)


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: -5",),
        ("Content-Length: 5x",),
        ("Transfer-Encoding: chunked, identity",),
        ("X-Broken",),
    ],
)
def test_framing_that_two_servers_could_read_differently_is_refused(wire, lines):
    wire.sendall(head(*lines) + b"0\r\n\r\n")
    assert receive(wire)[0] == 400


def test_a_form_cut_off_at_the_last_image_is_400(port):
    """Content-Length is right, the form is not: the last image must not go missing in silence."""
    request = httpx.Request("POST", "http://x", files=[("image", image()), ("image", image())])
    body = request.read()
    for length in (len(body) - 4, len(body) - 60, len(body) // 2 + 90):
        answer = httpx.post(
            f"http://127.0.0.1:{port}/slow",
            content=body[:length],
            headers={"Content-Type": request.headers["content-type"]},
        )
        assert answer.status_code == 400, length


def test_an_address_of_many_bytes_is_404_or_refused_by_the_server(wire):
    wire.sendall(head(method="GET", path="/" + "x" * 10_000))
    problem(wire, 404)


def test_traversal_stays_in_the_url(wire):
    for path in (
        "/../../etc/passwd",
        "/..%2F..%2Fetc%2Fpasswd",
        "//etc/passwd",
        "/%00",
        "/models/..%2f..%2fetc",
    ):
        wire.sendall(head(method="GET", path=path))
        problem(wire, 404)


def test_a_request_id_that_could_split_a_header_is_replaced(wire):
    wire.sendall(head("X-Request-ID: a\tb", method="GET", path="/health/live"))
    assert "\t" not in receive(wire)[1]["x-request-id"]
    wire.sendall(head("X-Request-ID: run-7", method="GET", path="/health/live"))
    assert receive(wire)[1]["x-request-id"] == "run-7"


def test_head_sends_headers_alone_and_the_connection_goes_on(wire):
    wire.sendall(head(method="HEAD", path="/models") + head(method="GET", path="/health/live"))
    top = b""
    while top.count(b"HTTP/1.1 200") < 2 or not top.endswith(b"}"):
        top += wire.recv(65536)
    assert top.count(b"{") == 1


def test_requests_in_one_packet_are_answered_in_their_order(wire):
    bodies = [image(value) for value in (1.0, 2.0, 3.0)]
    wire.sendall(b"".join(head(f"Content-Length: {len(body)}") + body for body in bodies))
    for value in (2.0, 4.0, 6.0):
        _, _, body = receive(wire)
        assert json.loads(body)["prediction"]["values"][0]["value"] == value

"""The one way out to the network."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from ml_inference.errors import SourceFailed
from ml_inference.sources.addresses import HostPolicy
from ml_inference.sources.base import Unreachable
from ml_inference.sources.http import Leash, Outbound

if TYPE_CHECKING:
    from collections.abc import Iterator

HUB = "https://api.example.org/"


def test_a_name_that_changes_its_address_between_look_and_call_gains_nothing():
    """The first look is the only one, and what it found is what is called."""
    looks = []

    def rebinding(host: str, *_: object) -> list[str]:
        looks.append(host)
        return ["203.0.113.1"] if len(looks) == 1 else ["127.0.0.1"]

    with socket.create_server(("127.0.0.1", 0)) as canary:
        called = threading.Event()
        canary.settimeout(1.0)
        web = Outbound(HostPolicy(HUB, resolve=rebinding), connect_seconds=0.2, read_seconds=0.2)
        address = f"https://rebind.example.org:{canary.getsockname()[1]}/"
        with pytest.raises(SourceFailed), web.get(address, Leash(1.0)):
            called.set()
        with pytest.raises(TimeoutError):
            canary.accept()
    assert looks == ["rebind.example.org"]
    assert not called.is_set()


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"hello {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def certificate(tmp_path) -> str:
    """Give a certificate, with its key, for the host `hub.test`."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    file = tmp_path / "hub.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    host = ["-subj", "/CN=hub.test", "-addext", "subjectAltName=DNS:hub.test"]
    command = [
        "openssl",
        "req",
        "-x509",
        *kind,
        *host,
        "-keyout",
        str(file),
        "-out",
        str(tmp_path / "crt.pem"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + (tmp_path / "crt.pem").read_bytes())
    return str(file)


@pytest.fixture
def server(certificate) -> Iterator[HTTPServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with HTTPServer(("127.0.0.1", 0), _Hello) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_certificate_is_held_against_the_name_although_an_address_is_called(server, certificate):
    """The name `hub.test` is never looked up by the system; its certificate does not do for another name."""
    port = server.server_address[1]
    policy = HostPolicy(f"https://hub.test:{port}/", ("other.test",), resolve=lambda *_: ["127.0.0.1"])
    trust = ssl.create_default_context(cafile=certificate)
    web = Outbound(policy, connect_seconds=2.0, read_seconds=2.0, tls=trust)
    with web.get(f"https://hub.test:{port}/x", Leash(5.0)) as reply:
        assert (reply.status, reply.read(100)) == (200, f"hello hub.test:{port}".encode())
    with pytest.raises(Unreachable), web.get(f"https://other.test:{port}/x", Leash(5.0)):
        pytest.fail("a certificate for another name was taken")


def test_an_unknown_authority_is_not_trusted(server):
    port = server.server_address[1]
    policy = HostPolicy(f"https://hub.test:{port}/", resolve=lambda *_: ["127.0.0.1"])
    web = Outbound(policy, connect_seconds=2.0, read_seconds=2.0)
    with pytest.raises(Unreachable, match="not trusted"), web.get(f"https://hub.test:{port}/x", Leash(5.0)):
        pytest.fail("a certificate that nobody vouches for was taken")


def test_a_body_beyond_its_limit_is_refused(hub):
    web = Outbound(HostPolicy(hub.url), connect_seconds=2.0, read_seconds=2.0)
    with (
        web.get(hub.url + "models?match=", Leash(5.0)) as reply,
        pytest.raises(SourceFailed, match="more than 1 bytes"),
    ):
        reply.read(1)


def test_a_circle_of_redirects_ends(hub):
    hub.fault("api", times=99, redirect="/again")
    web = Outbound(HostPolicy(hub.url), connect_seconds=2.0, read_seconds=2.0)
    with pytest.raises(SourceFailed, match="in a circle"), web.get(hub.url, Leash(5.0)):
        pytest.fail("it came to an end")
    assert len(hub.calls("api", "again")) == 3


def test_a_second_address_is_called_where_the_first_does_not_answer(hub):
    port = int(hub.url.rstrip("/").rpartition(":")[2])
    policy = HostPolicy(f"http://two.test:{port}/", resolve=lambda *_: ["127.0.0.2", "127.0.0.1"])
    web = Outbound(policy, connect_seconds=1.0, read_seconds=2.0)
    with web.get(f"http://two.test:{port}/models?match=", Leash(5.0)) as reply:
        assert reply.read(100) == b"[]"

"""The one way out to the network: GET, judged addresses, a limit on every wait, redirects only where they are allowed."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

from ml_inference.errors import SourceFailed
from ml_inference.sources.addresses import HostPolicy, name
from ml_inference.sources.base import Unreachable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator, Mapping

_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 3
_BROKEN = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


class Leash:
    """The time until which something must have come; `renew` when it has.

    Against a far side that sends a byte now and then, for ever: each wait is short, their sum is not.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Start the time again."""
        self._end = time.monotonic() + self._seconds

    def clip(self, timeout: float | None) -> float:
        """Give the shorter of a timeout and what is left, or raise when nothing is."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise httpcore.TimeoutException("the whole answer took too long")
        return left if timeout is None else min(timeout, left)


class Reply:
    """An answer whose body has yet to come; header names in lower case."""

    def __init__(self, response: httpcore.Response, origin: str) -> None:
        self.status: int = response.status
        self.headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers}
        self.origin = origin
        self._response = response

    def chunks(self) -> Iterator[bytes]:
        """Give the body as it comes, undecoded; each wait ends in `Unreachable`."""
        with _mapped(self.origin):
            for chunk in self._response.iter_stream():
                yield bytes(chunk)

    def read(self, limit: int) -> bytes:
        """Give the whole body, or raise `SourceFailed` when it has more bytes than `limit`."""
        body = bytearray()
        for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                raise SourceFailed(f"{self.origin} answered with more than {limit} bytes")
        return bytes(body)


class Outbound:
    """Sends GET requests under a `HostPolicy`.

    A connection serves one request: they are few, and so each carries its own time limits.

    Args:
        policy: judges every address.
        connect_seconds: for a name to resolve, for an address to take the call, for TLS to agree.
        read_seconds: of silence.
        tls: whom to trust; else the usual authorities, or those of `SSL_CERT_FILE`.
    """

    def __init__(
        self,
        policy: HostPolicy,
        *,
        connect_seconds: float,
        read_seconds: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.policy = policy
        self._trust = tls
        self._timeouts = {
            "connect": connect_seconds,
            "read": read_seconds,
            "write": read_seconds,
            "pool": connect_seconds,
        }

    @contextmanager
    def get(
        self,
        address: str,
        leash: Leash,
        headers: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> Iterator[Reply]:
        """Ask for `address`; `secrets` are headers that the API's own origin gets and nobody else.

        Raises:
            Unreachable: nothing came in time, or the connection broke.
            SourceFailed: the address, or the one a redirect leads to, is refused.
        """
        url = self.policy.check(address)
        for _ in range(_MAX_REDIRECTS + 1):
            sent = dict(headers or {}) | (dict(secrets or {}) if self.policy.is_origin(url) else {})
            with self._once(url, sent, leash) as reply:
                if reply.status not in _REDIRECTS:
                    yield reply
                    return
                url = self.policy.redirected(url, reply.headers.get("location", ""))
        raise SourceFailed(f"{name(url)} redirects in a circle")

    @contextmanager
    def _once(self, url: httpcore.URL, headers: Mapping[str, str], leash: Leash) -> Iterator[Reply]:
        sent = {
            "Host": name(url),
            "Accept-Encoding": "identity",
            "User-Agent": "ml-inference-processor",
        } | dict(headers)
        backend = _Backend(self.policy, leash)
        tls = (self._trust or _tls()) if url.scheme == b"https" else None
        with (
            _mapped(name(url)),
            httpcore.ConnectionPool(ssl_context=tls, max_connections=1, network_backend=backend) as pool,
            pool.stream(
                "GET", url, headers=list(sent.items()), extensions={"timeout": self._timeouts}
            ) as response,
        ):
            yield Reply(response, name(url))


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


@contextmanager
def _mapped(host: str) -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        raise Unreachable(f"{host} did not answer in time") from error
    except _BROKEN as error:
        untrusted = "CERTIFICATE_VERIFY" in str(error)
        how = "its certificate is not trusted" if untrusted else type(error).__name__
        raise Unreachable(f"{host} could not be reached, or broke off ({how})") from error


class _Backend(httpcore.NetworkBackend):
    """Calls the addresses that were judged, and holds every wait by the leash."""

    def __init__(self, policy: HostPolicy, leash: Leash) -> None:
        self._policy = policy
        self._leash = leash
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception | None = None
        for address in self._policy.addresses(host, port, self._leash.clip(timeout)):
            try:
                stream = self._inner.connect_tcp(
                    address, port, self._leash.clip(timeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream, self._leash)
        raise failure or httpcore.ConnectError("no address")


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, leash: Leash) -> None:
        self._inner = inner
        self._leash = leash

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._leash.clip(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._leash.clip(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(
            self._inner.start_tls(ssl_context, server_hostname, self._leash.clip(timeout)), self._leash
        )

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

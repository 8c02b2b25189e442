"""Which hosts the service may talk to on behalf of a hub, and under which addresses.

A hub's answers carry addresses, and whoever publishes a model may write them. So a host is looked up once, its addresses
are judged, and the connection goes to a judged address: nothing can change between the look and the call.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import httpcore

from ml_inference.errors import SourceFailed
from ml_inference.sources.base import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address
type Resolve = Callable[[str, int, float], list[str]]
"""Host, port, seconds to wait → addresses."""

_LEGAL = re.compile(r"[!-\[\]-~]{1,8192}")
"""Printable ASCII without space and backslash: what any two parsers of addresses read alike."""
_HOST = re.compile(r"[A-Za-z0-9._:%-]{1,255}")
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def resolve(host: str, port: int, seconds: float) -> list[str]:
    """Look a host up by the system's resolver, which knows no time limit of its own: hence the thread."""
    found: list[str] = []

    def look() -> None:
        try:
            found.extend(str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            return

    thread = threading.Thread(target=look, name="resolve", daemon=True)
    thread.start()
    thread.join(seconds)
    return list(dict.fromkeys(found))


def is_public(text: str) -> bool:
    """Tell whether an address belongs to the public internet; IPv4 carried within IPv6 is judged as what it carries."""
    address = ipaddress.ip_address(text.split("%", maxsplit=1)[0])
    carried = _carried(address)
    if carried is not None:
        return is_public(str(carried))
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not (address.is_multicast or address.is_reserved or site_local)


def _carried(address: Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo


class HostPolicy:
    """Judges addresses before they are called.

    Args:
        origin: where the hub's API answers; it may be private, and redirects may lead to it.
        allowed: `host` or `host:port` that the operator vouches for.
        resolve: looks hosts up; for tests.
    """

    def __init__(self, origin: str, allowed: tuple[str, ...] = (), *, resolve: Resolve = resolve) -> None:
        self._origin = parse(origin).origin
        self._allowed = {entry.lower() for entry in allowed}
        self._resolve = resolve

    def check(self, text: str) -> httpcore.URL:
        """Parse an address and judge all of it but the host's numbers.

        Raises:
            SourceFailed: not http(s), malformed, with a user name, or plain http where https is due.
        """
        url = parse(text)
        if url.scheme == b"http" and self._origin.scheme == b"https" and not self.trusts(url):
            raise SourceFailed(
                f"the hub's link to {name(url)} is refused: it is not https, and the host is not allowed"
            )
        return url

    def is_origin(self, url: httpcore.URL) -> bool:
        """Tell whether scheme, host and port are those of the API: the one place that gets the key."""
        return bool(url.origin == self._origin)

    def trusts(self, url: httpcore.URL) -> bool:
        """Tell whether this is the API itself, or a host the operator allows."""
        return self._trusted(url.origin.host.decode(), url.origin.port)

    def redirected(self, url: httpcore.URL, location: str) -> httpcore.URL:
        """Judge where a redirect leads: the API, or a host the operator allows; nowhere else."""
        base = f"{url.scheme.decode()}://{name(url)}{url.target.decode()}"
        target = self.check(urljoin(base, location))
        if not self.trusts(target):
            raise SourceFailed(f"a redirect to {name(target)} is refused: the host is not allowed")
        return target

    def addresses(self, host: str, port: int, seconds: float) -> list[str]:
        """Look a host up and give the addresses that may be called.

        Raises:
            SourceFailed: all of them are private, loopback, link-local, reserved or multicast.
            Unreachable: it has none.
        """
        found = self._resolve(host, port, seconds)
        if not found:
            raise Unreachable(f"{host} has no address")
        public = [a for a in found if self._trusted(host, port) or is_public(a)]
        if not public:
            raise SourceFailed(
                f"the hub's link to {host} is refused: its address is not public, and the host is not allowed"
            )
        return public

    def _trusted(self, host: str, port: int) -> bool:
        host = host.lower()
        shown = f"[{host}]" if ":" in host else host
        is_api = (host, port) == (self._origin.host.decode(), self._origin.port)
        return is_api or not self._allowed.isdisjoint({host, shown, f"{shown}:{port}"})


def parse(text: str) -> httpcore.URL:
    """Parse an address into the very object the client calls, so that no two readings can differ."""
    try:
        parts = urlsplit(text) if _LEGAL.fullmatch(text) else None
        host, port = (parts.hostname or "", parts.port) if parts else ("", None)
    except ValueError:
        parts, host, port = None, "", None
    if parts is None or parts.scheme not in _PORTS or not _HOST.fullmatch(host) or "@" in parts.netloc:
        raise SourceFailed("the hub gave an address that is not a plain http or https one")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return httpcore.URL(scheme=parts.scheme, host=host, port=port, target=target)


def name(url: httpcore.URL) -> str:
    """Give `host[:port]` as a `Host` header and a message write it; never the query, which may be a secret."""
    host = url.host.decode()
    host = f"[{host}]" if ":" in host else host
    return host if url.port in {None, _PORTS[url.scheme.decode()]} else f"{host}:{url.port}"

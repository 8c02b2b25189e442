"""Which hosts may be called: what a hub's answer can and cannot make this service do."""

from __future__ import annotations

import pytest

from ml_inference.errors import SourceFailed
from ml_inference.sources.addresses import HostPolicy, is_public, resolve
from ml_inference.sources.base import Unreachable

HUB = "https://api.example.org/"

PRIVATE = [
    "127.0.0.1",
    "127.255.0.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "233.252.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:0:0:0:0:f5ff:fffe",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_of_the_public_internet_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public(address):
    assert is_public(address)


MALFORMED = [
    "",
    "model.onnx",
    "/models/1/stage/x",
    "file:///etc/passwd",
    "ftp://example.org/x",
    "gopher://example.org/x",
    "https:example.org",
    "https://",
    "https:///x",
    "https://user@example.org/x",
    "https://user:secret@example.org/x",
    "https://example.org@127.0.0.1/x",
    "https://127.0.0.1\\@example.org/x",
    "https://example.org\\.evil.org/x",
    "https://exa mple.org/x",
    "https://example.org/a b",
    "https://example.org/\r\nX-Header: 1",
    "https://example.org:99999/x",
    "https://example.org:port/x",
    "https://[::1/x",
    "https://exämple.org/x",
    "https://example.org/" + "x" * 9000,
]


@pytest.mark.parametrize("address", MALFORMED)
def test_what_two_parsers_could_read_differently_is_refused(address):
    with pytest.raises(SourceFailed, match="not a plain http or https one") as refused:
        HostPolicy(HUB).check(address)
    assert "secret" not in str(refused.value)


def test_http_is_refused_unless_the_hub_itself_is_http_or_the_host_is_allowed():
    with pytest.raises(SourceFailed, match="not https"):
        HostPolicy(HUB).check("http://store.example.org/x")
    HostPolicy(HUB, ("store.example.org",)).check("http://store.example.org/x")
    HostPolicy("http://hub.internal/").check("http://store.example.org/x")


def test_every_spelling_of_a_private_host_is_refused():
    """Decimal, octal and short spellings too: the system's resolver reads them, and its answer is judged."""
    policy = HostPolicy(HUB)
    for host in ("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "::1"):
        found = policy._resolve(host, 443, 5.0)
        if found:
            with pytest.raises(SourceFailed, match="not public"):
                policy.addresses(host, 443, 5.0)


def test_only_the_public_ones_of_mixed_addresses_are_called():
    policy = HostPolicy(HUB, resolve=lambda *_: ["127.0.0.1", "8.8.8.8", "::ffff:10.0.0.1"])
    assert policy.addresses("mixed.example.org", 443, 1.0) == ["8.8.8.8"]


def test_a_host_without_addresses_is_unreachable():
    with pytest.raises(Unreachable, match=r"nobody.example.org has no address"):
        HostPolicy(HUB, resolve=lambda *_: []).addresses("nobody.example.org", 443, 1.0)


@pytest.mark.parametrize(
    ("allowed", "host", "port", "passes"),
    [
        ("store.internal", "store.internal", 9000, True),
        ("store.internal", "STORE.internal", 443, True),
        ("Store.internal:9000", "store.internal", 9000, True),
        ("store.internal:9000", "store.internal", 9001, False),
        ("store.internal", "other.internal", 443, False),
        ("store.internal", "store.internal.evil.org", 443, False),
        ("[::1]:9000", "::1", 9000, True),
        ("api.example.org", "api.example.org", 8443, True),
    ],
)
def test_an_allowed_host_may_be_private(allowed, host, port, passes):
    policy = HostPolicy(HUB, (allowed,), resolve=lambda *_: ["10.0.0.1"])
    if passes:
        assert policy.addresses(host, port, 1.0) == ["10.0.0.1"]
    else:
        with pytest.raises(SourceFailed, match="not public"):
            policy.addresses(host, port, 1.0)


def test_the_hub_itself_may_be_private_at_its_own_port_alone():
    policy = HostPolicy(HUB, resolve=lambda *_: ["10.0.0.1"])
    assert policy.addresses("api.example.org", 443, 1.0) == ["10.0.0.1"]
    with pytest.raises(SourceFailed):
        policy.addresses("api.example.org", 8443, 1.0)


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("https://api.example.org/models", True),
        ("https://API.example.org:443/x", True),
        ("http://api.example.org/x", False),
        ("https://api.example.org:8443/x", False),
        ("https://api.example.org.evil.org/x", False),
        ("https://evil.org/api.example.org", False),
    ],
)
def test_the_keys_place_is_scheme_host_and_port(address, same):
    policy = HostPolicy(HUB, ("api.example.org",))
    assert policy.is_origin(policy.check(address)) is same


def test_redirects_lead_to_the_hub_or_an_allowed_host_alone():
    policy = HostPolicy(HUB, ("store.example.org",))
    start = policy.check("https://api.example.org/models?name=a")
    assert policy.redirected(start, "/models/?name=a").target == b"/models/?name=a"
    assert policy.redirected(start, "//store.example.org/x").host == b"store.example.org"
    for location in ("https://evil.org/", "//evil.org", "http://127.0.0.1/", "file:///etc/passwd", ""):
        if location:
            with pytest.raises(SourceFailed):
                policy.redirected(start, location)


def test_an_address_goes_out_as_it_came_signature_and_all():
    url = HostPolicy(HUB).check("https://s.example.org/a%2Fb;v=1/x%20y?X-Sig=a%2Bb/c+d&e=%7E#part")
    assert url.target == b"/a%2Fb;v=1/x%20y?X-Sig=a%2Bb/c+d&e=%7E"


def test_a_lookup_has_an_end():
    assert resolve("127.0.0.1", 80, 5.0) == ["127.0.0.1"]
    assert resolve("no-such-host.invalid", 80, 5.0) == []

"""Bytes from a store to a file, whatever the store and the way do in between."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from sources.hub import KEY

from ml_inference.errors import NotReady, SourceFailed
from ml_inference.sources.addresses import HostPolicy
from ml_inference.sources.download import Downloader, Order, discard
from ml_inference.sources.http import Leash, Outbound

if TYPE_CHECKING:
    from sources.hub import Hub

    from ml_inference.sources.base import SourceOptions

DATA = bytes(range(256)) * 12_000
MIB = 1 << 20


class Desk:
    """Orders the one file of a hub, and counts the links it was given."""

    def __init__(self, hub: Hub, options: SourceOptions, into, **injected: object) -> None:
        self.into = into
        self.links = 0
        self.model_id = hub.publish("Model", {}, {"file": DATA})
        self.hub = hub
        policy = HostPolicy(options.eotdl_url, options.allowed_hosts)
        self.web = Outbound(policy, connect_seconds=2.0, read_seconds=options.read_seconds)
        self.stop = threading.Event()
        self.downloader = Downloader(self.web, options, self.stop, **injected)

    def sign(self) -> str:
        self.links += 1
        address = f"{self.hub.url}models/{self.model_id}/stage/file"
        with self.web.get(address, Leash(5.0), {}, {"X-API-Key": KEY}) as reply:
            return json.loads(reply.read(MIB))["presigned_url"]

    def fetch(self, *, size: int | None = len(DATA), max_bytes: int = 1 << 30, progress=None) -> bytes:
        self.downloader.fetch(Order(self.sign, self.into, "the file", size, max_bytes, progress))
        return self.into.read_bytes()

    def ranges(self) -> list[str | None]:
        return [call["range"] for call in self.hub.calls("store")]


@pytest.fixture
def desk(hub, options, tmp_path):
    return Desk(hub, options(), tmp_path / "file")


def test_a_whole_file_comes_in_one_go(desk):
    told = []
    assert desk.fetch(progress=lambda have, total: told.append((have, total))) == DATA
    assert desk.ranges() == [None]
    assert told[-1] == (len(DATA), len(DATA))
    assert [have for have, _ in told] == sorted(have for have, _ in told)


def test_a_cut_connection_is_taken_up_where_it_broke(desk):
    desk.hub.fault("store", cut=1_000_000)
    desk.hub.fault("store", cut=500_000)
    assert desk.fetch() == DATA
    assert desk.ranges() == [None, "bytes=1000000-", "bytes=1500000-"]
    assert desk.hub.calls("store")[1]["if_range"].startswith('"')


def test_another_process_takes_up_what_one_left(desk, hub, options, tmp_path):
    desk.hub.fault("store", times=100, cut=300_000)
    impatient = Desk(hub, options(retries=0), tmp_path / "file")
    with pytest.raises(SourceFailed, match=r"could not be downloaded in 1 tries"):
        impatient.fetch()
    hub.behave()
    later = Desk(hub, options(), tmp_path / "file")
    assert later.fetch() == DATA
    assert later.ranges()[1] == "bytes=300000-"


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(desk):
    desk.hub.fault("store", cut=1_000_000)

    changed = bytes(reversed(DATA))

    def change(*_: object) -> None:
        (desk.hub.root / desk.model_id / "file").write_bytes(changed)

    assert desk.fetch(progress=change) == changed
    assert desk.ranges() == [None, "bytes=1000000-"]


def test_a_store_without_validators_is_never_resumed(desk):
    desk.hub.fault("store", cut=1_000_000, validator=False)
    assert desk.fetch() == DATA
    assert desk.ranges() == [None, None]


def test_an_expired_link_is_signed_again_once(desk):
    desk.hub.fault("api", expired=True)
    assert desk.fetch() == DATA
    assert desk.links == 2
    discard(desk.into)
    desk.hub.fault("api", times=9, expired=True)
    with pytest.raises(SourceFailed, match="answered 403"):
        desk.fetch()
    assert desk.links == 4


def test_a_link_that_expires_half_way_is_signed_again_and_the_rest_comes(desk):
    desk.hub.fault("store", cut=2_000_000)
    desk.hub.fault("store", status=403, body="<Error/>", type="application/xml")
    assert desk.fetch() == DATA
    assert desk.ranges() == [None, "bytes=2000000-", "bytes=2000000-"]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_store_in_trouble_is_asked_again_a_bounded_number_of_times(status, desk):
    desk.hub.fault("store", times=2, status=status, body="<html>no</html>", type="text/html")
    assert desk.fetch() == DATA
    discard(desk.into)
    desk.hub.fault("store", times=99, status=status)
    with pytest.raises(SourceFailed, match=f"in 5 tries.*answered {status}"):
        desk.fetch()
    assert len(desk.hub.calls("store")) == 3 + 5


def test_what_is_not_there_is_not_asked_for_again(desk):
    desk.hub.fault("store", status=404)
    with pytest.raises(SourceFailed, match="answered 404"):
        desk.fetch()
    assert len(desk.hub.calls("store")) == 1


def test_a_silent_store_is_left_after_the_read_timeout(desk, hub, options, tmp_path):
    quick = Desk(hub, options(read_seconds=0.2, retries=1), tmp_path / "file")
    hub.fault("store", times=9, hang=2.0)
    begin = time.monotonic()
    with pytest.raises(SourceFailed, match="did not answer in time"):
        quick.fetch()
    assert time.monotonic() - begin < 1.5


def test_a_store_that_sends_a_byte_now_and_then_is_left_after_the_stall_limit(hub, options, tmp_path):
    """Each byte comes within the read timeout: without a limit on their sum this would take days."""
    slow = Desk(hub, options(stall_seconds=0.5, retries=0), tmp_path / "file")
    hub.fault("store", drip=70_000, pace=0.05)
    begin = time.monotonic()
    with pytest.raises(SourceFailed):
        slow.fetch()
    assert time.monotonic() - begin < 1.5


def test_headers_that_drip_have_the_same_limit(hub, options, tmp_path):
    slow = Desk(hub, options(stall_seconds=0.5, retries=0), tmp_path / "file")
    hub.fault("store", drip_head=0.05)
    begin = time.monotonic()
    with pytest.raises(SourceFailed):
        slow.fetch()
    assert time.monotonic() - begin < 1.5


def test_more_bytes_than_promised_or_allowed_are_refused(desk):
    with pytest.raises(SourceFailed, match=f"should have 10 bytes, the store has {len(DATA)}"):
        desk.fetch(size=10)
    with pytest.raises(SourceFailed, match="at most 1000000 are fetched"):
        desk.fetch(size=None, max_bytes=1_000_000)
    assert not desk.into.exists()


def test_an_encoded_body_is_refused(desk):
    desk.hub.fault("store", encoding="gzip")
    with pytest.raises(SourceFailed, match="encoded"):
        desk.fetch()


def test_too_little_room_on_the_disk_is_known_before_the_bytes_come(hub, options, tmp_path):
    full = Desk(hub, options(), tmp_path / "file", free_bytes=lambda _: len(DATA))
    with pytest.raises(SourceFailed, match=f"the disk for models has {len(DATA)} left"):
        full.fetch()
    assert not (tmp_path / "file").exists()


WRITES_AT_MOST_A_MIB = """
import resource, sys, threading
from pathlib import Path
from ml_inference.errors import SourceFailed
from ml_inference.sources.addresses import HostPolicy
from ml_inference.sources.base import SourceOptions
from ml_inference.sources.download import Downloader, Order
from ml_inference.sources.http import Outbound

link, into = sys.argv[1], Path(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
web = Outbound(HostPolicy(link), connect_seconds=2, read_seconds=2)
try:
    Downloader(web, SourceOptions(into.parent), threading.Event()).fetch(Order(lambda: link, into, "the file", None, 1 << 30))
except SourceFailed as error:
    print(error, list(into.parent.iterdir()))
"""


def test_a_disk_that_takes_no_more_is_said_so_and_what_came_goes(desk, tmp_path):
    """The kernel refuses the write in a process of its own, by a limit, as it does where the disk is full."""
    into = tmp_path / "small" / "file"
    into.parent.mkdir()
    command = [sys.executable, "-c", WRITES_AT_MOST_A_MIB, desk.sign(), str(into)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert said == "the disk for models is full []\n"


def test_stopping_breaks_a_download_off_and_keeps_what_came(desk):
    desk.hub.fault("store", drip=1_000_000, pace=0.1)
    failed = []

    def run() -> None:
        try:
            desk.fetch()
        except NotReady as error:
            failed.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    while not (desk.into.exists() and desk.into.stat().st_size >= 900_000) and thread.is_alive():
        time.sleep(0.01)
    desk.stop.set()
    thread.join(5.0)
    assert failed == ["the service is shutting down"]
    assert desk.into.stat().st_size >= 900_000


def test_a_redirect_of_the_store_goes_to_allowed_hosts_alone(desk):
    desk.hub.fault("store", redirect=desk.hub.canary_url + "elsewhere")
    with pytest.raises(SourceFailed, match=r"a redirect to 127\.0\.0\.1:\d+ is refused"):
        desk.fetch()
    assert desk.hub.calls("canary") == []

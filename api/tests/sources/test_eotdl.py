"""Models of a hub: fetched once, checked, cached."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import resources

import pytest
from sources.hub import KEY, eotdl_item
from sources.onnx_models import bias_model

from ml_inference.errors import (
    CardInvalid,
    ModelNotFound,
    NotReady,
    SourceFailed,
)
from ml_inference.sources import ModelReference, open_source
from ml_inference.sources.eotdl import EotdlSource

MODEL = ModelReference("Model-Q2")
PADDED = bias_model(1.0, padding=2_000_000)


def cached_files(options) -> list[str]:
    root = options().cache_dir
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


FETCH = """
import sys
from pathlib import Path
from ml_inference.sources import ModelReference, SourceOptions, open_source

url, key, cache, store = sys.argv[1:]
options = SourceOptions(Path(cache), eotdl_url=url, eotdl_key=key, allowed_hosts=(store,))
print(open_source("eotdl:", options).fetch(ModelReference("Model-Q2")).sha256)
"""


def fetching(hub, options) -> list[str]:
    """Give the command of a process of its own that fetches the model and prints its sum."""
    return [sys.executable, "-c", FETCH, hub.url, KEY, str(options().cache_dir), hub.store_host]


class TestFetching:
    def test_the_newest_version_comes_with_its_item_and_is_checked(self, hub, source):
        hub.publish_onnx("Model-Q2", bias_model(1), bias_model(2))
        bundle = source.fetch(MODEL)
        assert bundle.model_path.read_bytes() == bias_model(2)
        assert (bundle.version, bundle.source, bundle.verified) == ("2", "eotdl:", "size, sha1")
        assert bundle.sha256 == hashlib.sha256(bias_model(2)).hexdigest()
        assert (bundle.notice, bundle.profile) == (None, None)

    def test_the_item_is_what_was_published_but_for_its_geometry(self, hub, source):
        """Nulls that the table fills in are gone again; whole numbers and times are as they were."""
        model_id = hub.publish_onnx("Model-Q2", bias_model(1))
        published = eotdl_item({"href": f"{hub.url}models/{model_id}/stage/model.onnx"})
        published["assets"]["asset"] |= {
            "checksum": hashlib.sha1(bias_model(1)).hexdigest(),
            "size": len(bias_model(1)),
        }
        item = source.fetch(MODEL).item
        assert item == published | {"geometry": None}
        assert json.loads(json.dumps(item)) == item

    def test_an_asked_version_comes_and_a_second_time_without_any_call(self, hub, source):
        hub.publish_onnx("Model-Q2", bias_model(1), bias_model(2))
        asked = ModelReference("Model-Q2", "1")
        assert source.fetch(asked).model_path.read_bytes() == bias_model(1)
        calls = len(hub.calls("api")) + len(hub.calls("store"))
        assert source.fetch(asked).notice is None
        assert len(hub.calls("api")) + len(hub.calls("store")) == calls

    def test_names_and_versions_are_those_of_the_cache(self, hub, source):
        hub.publish_onnx("Model-Q2", bias_model(1), bias_model(2))
        assert (source.names(), source.versions("Model-Q2")) == ([], [])
        source.fetch(MODEL)
        assert (source.names(), source.versions("Model-Q2")) == (["Model-Q2"], ["2"])
        with pytest.raises(ModelNotFound):
            source.versions("../x")

    def test_a_new_version_is_taken_up_and_the_old_one_stays(self, hub, source):
        hub.publish_onnx("Model-Q2", bias_model(1))
        source.fetch(MODEL)
        hub.publish_onnx("Model-Q2", bias_model(1), bias_model(2))
        assert source.fetch(MODEL).version == "2"
        assert source.versions("Model-Q2") == ["1", "2"]

    def test_nothing_but_the_model_and_its_record_stays_in_the_cache(self, hub, source, options):
        hub.publish_onnx("Model-Q2", bias_model(1))
        sha256 = source.fetch(MODEL).sha256
        kept = {"Model-Q2/.lock", "Model-Q2/v1/bundle.json", f"Model-Q2/v1/{sha256}.onnx"}
        assert set(cached_files(options)) == kept
        assert (options().cache_dir / "Model-Q2").stat().st_mode & 0o077 == 0

    def test_progress_is_told_of_the_model(self, hub, source):
        hub.publish_onnx("Model-Q2", PADDED)
        told = []
        source.fetch(MODEL, lambda have, total: told.append((have, total)))
        assert told[-1] == (len(PADDED), len(PADDED))

    def test_a_download_that_broke_off_is_resumed(self, hub, source):
        hub.publish_onnx("Model-Q2", PADDED)
        hub.fault("store", "model.onnx", cut=1_500_000)
        assert source.fetch(MODEL).model_path.read_bytes() == PADDED
        ranges = [call["range"] for call in hub.calls("store", "model.onnx")]
        assert ranges == [None, "bytes=1500000-"]

    def test_an_expired_link_is_signed_again(self, hub, source):
        hub.publish_onnx("Model-Q2", bias_model(1))
        hub.fault("api", "stage/model.onnx", expired=True)
        assert source.fetch(MODEL).version == "1"
        assert [call["status"] for call in hub.calls("store", "model.onnx")] == [403, 200]

    def test_the_old_download_address_and_the_published_one_mean_the_hub_that_is_configured(
        self, hub, source
    ):
        for n, origin in enumerate((hub.url.rstrip("/"), "https://api.eotdl.com")):
            href = f"{origin}/models/{n}a/download/model.onnx"
            hub.publish(f"Old-{n}", {1: [eotdl_item({"href": href})]}, {"model.onnx": bias_model(n)}, f"{n}a")
            bundle = source.fetch(ModelReference(f"Old-{n}"))
            assert (bundle.model_path.read_bytes(), bundle.verified) == (bias_model(n), "unverified")

    def test_a_profile_that_ships_with_the_package_comes_along_unless_another_lies_in_the_cache(
        self, hub, source, options
    ):
        shipped = resources.files("ml_inference") / "profiles" / "EuroSAT-RGB-Q2.toml"
        hub.publish_onnx("EuroSAT-RGB-Q2", bias_model(1))
        reference = ModelReference("EuroSAT-RGB-Q2")
        assert source.fetch(reference).profile == shipped.read_text("utf-8")
        (options().cache_dir / "EuroSAT-RGB-Q2" / "v1" / "profile.toml").write_text("# none\n")
        assert source.fetch(reference).profile == "# none\n"

    def test_a_profile_beside_the_cached_model_comes_along_and_chooses_the_asset(self, hub, source, options):
        assets = {k: {"href": f"{hub.url}models/two/stage/{k}.onnx"} for k in ("a", "b")}
        item = eotdl_item({}) | {"assets": assets}
        hub.publish("Model-Q2", {1: [item]}, {"a.onnx": bias_model(1), "b.onnx": bias_model(2)}, "two")
        with pytest.raises(CardInvalid, match="name one in the profile"):
            source.fetch(MODEL)
        (options().cache_dir / "Model-Q2" / "profile.toml").write_text('asset = "b"\n')
        bundle = source.fetch(MODEL)
        assert (bundle.profile, bundle.model_path.read_bytes()) == ('asset = "b"\n', bias_model(2))


class TestOneDownload:
    def test_twenty_threads_share_one(self, hub, options):
        hub.publish_onnx("Model-Q2", PADDED)
        hub.fault("store", "model.onnx", hang=0.3)
        sources = [EotdlSource(options()) for _ in range(4)]
        with ThreadPoolExecutor(20) as pool:
            bundles = list(pool.map(lambda n: sources[n % 4].fetch(MODEL), range(20)))
        assert {bundle.model_path.read_bytes() for bundle in bundles} == {PADDED}
        assert len(hub.calls("store", "model.onnx")) == 1

    def test_four_processes_share_one(self, hub, options):
        hub.publish_onnx("Model-Q2", PADDED)
        hub.fault("store", "model.onnx", hang=0.5)
        command = fetching(hub, options)
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        printed = {process.communicate(timeout=60)[0].strip() for process in running}
        assert printed == {hashlib.sha256(PADDED).hexdigest()}
        assert len(hub.calls("store", "model.onnx")) == 1

    def test_a_killed_process_leaves_no_lock_and_no_half_model(self, hub, options):
        hub.publish_onnx("Model-Q2", PADDED)
        hub.fault("store", "model.onnx", drip=1_000_000, pace=1)
        part = options().cache_dir / "Model-Q2" / "v1" / "model.part"
        with subprocess.Popen(fetching(hub, options)) as process:
            while not (part.exists() and part.stat().st_size >= 900_000) and process.poll() is None:
                time.sleep(0.02)
            process.kill()
        source = EotdlSource(options())
        assert source.names() == []
        assert source.fetch(MODEL).model_path.read_bytes() == PADDED
        assert int(hub.calls("store", "model.onnx")[-1]["range"][len("bytes=") : -1]) >= 900_000

    def test_closing_ends_the_wait_for_another_process(self, hub, options):
        hub.publish_onnx("Model-Q2", bias_model(1))
        hub.fault("store", "model.onnx", hang=1.0)
        waiting = EotdlSource(options())
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(EotdlSource(options()).fetch, MODEL)
            while not (options().cache_dir / "Model-Q2" / "v1").exists():
                time.sleep(0.01)
            second = pool.submit(waiting.fetch, MODEL)
            time.sleep(0.2)
            waiting.close()
            with pytest.raises(NotReady, match="shutting down"):
                second.result(0.7)
            assert first.result(30).version == "1"

    def test_whoever_waits_too_long_for_another_process_is_told_to_come_back(self, hub, options):
        hub.publish_onnx("Model-Q2", bias_model(1))
        hub.fault("store", "model.onnx", hang=1.5)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(EotdlSource(options()).fetch, MODEL)
            while not (options().cache_dir / "Model-Q2" / "v1").exists():
                time.sleep(0.01)
            with pytest.raises(NotReady, match="still fetching"):
                EotdlSource(options(lock_seconds=0.1)).fetch(MODEL)
            assert first.result(30).version == "1"


class TestSharedCache:
    def put(self, folder, model_id: str, data: bytes):
        (folder / model_id).mkdir(parents=True)
        (folder / model_id / "model.onnx").write_bytes(data)
        return folder

    def test_a_file_that_fits_is_copied_and_the_folder_never_written(self, hub, options, tmp_path):
        shared = self.put(tmp_path / "shared", hub.publish_onnx("Model-Q2", bias_model(1)), bias_model(1))
        before = [(path, path.stat().st_mtime_ns) for path in shared.rglob("*")]
        bundle = EotdlSource(options(eotdl_shared_cache=shared)).fetch(MODEL)
        assert bundle.model_path.read_bytes() == bias_model(1)
        assert not bundle.model_path.is_relative_to(shared)
        assert hub.calls("store", "model.onnx") == []
        assert [(path, path.stat().st_mtime_ns) for path in shared.rglob("*")] == before

    def test_a_file_that_does_not_fit_or_cannot_be_told_is_not_used(self, hub, options, tmp_path):
        shared = self.put(tmp_path / "shared", hub.publish_onnx("Model-Q2", bias_model(1)), bias_model(2))
        item = eotdl_item({"href": f"{hub.url}models/{'0' * 24}/stage/model.onnx"})
        hub.publish("Silent", {1: [item]}, {"model.onnx": bias_model(1)}, "0" * 24)
        self.put(shared, "0" * 24, bias_model(2))
        source = EotdlSource(options(eotdl_shared_cache=shared))
        assert source.fetch(MODEL).model_path.read_bytes() == bias_model(1)
        assert source.fetch(ModelReference("Silent")).model_path.read_bytes() == bias_model(1)

    def test_a_link_out_of_the_folder_is_not_followed(self, hub, options, tmp_path):
        model_id = hub.publish_onnx("Model-Q2", bias_model(1))
        (tmp_path / "outside.onnx").write_bytes(bias_model(1))
        (tmp_path / "shared" / model_id).mkdir(parents=True)
        (tmp_path / "shared" / model_id / "model.onnx").symlink_to(tmp_path / "outside.onnx")
        EotdlSource(options(eotdl_shared_cache=tmp_path / "shared")).fetch(MODEL)
        assert len(hub.calls("store", "model.onnx")) == 1


class TestOddPlaces:
    def test_a_cache_that_cannot_be_made_is_a_failure_in_words(self, hub, options, tmp_path):
        hub.publish_onnx("Model-Q2", bias_model(1))
        (tmp_path / "file").write_text("")
        with pytest.raises(SourceFailed, match="EOTDL_DOWNLOAD_PATH") as failed:
            EotdlSource(options(cache_dir=tmp_path / "file" / "cache")).fetch(MODEL)
        assert str(tmp_path) not in str(failed.value)

    def test_files_of_the_published_client_in_the_same_folder_are_left_alone(self, hub, options):
        folder = options().cache_dir / "Model-Q2"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"its own")
        (folder / "catalog.v1.parquet").write_bytes(b"its own")
        hub.publish_onnx("Model-Q2", bias_model(1))
        source = EotdlSource(options())
        assert source.names() == []
        assert source.fetch(MODEL).model_path.read_bytes() == bias_model(1)
        assert (folder / "model.onnx").read_bytes() == b"its own"

    def test_a_cache_that_may_only_be_read_still_serves(self, hub, options):
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        hub.publish_onnx("Model-Q2", bias_model(1))
        source = EotdlSource(options())
        source.fetch(MODEL)
        folder = options().cache_dir / "Model-Q2"
        for place in (folder / "v1", folder):
            place.chmod(0o500)
        assert source.fetch(MODEL).notice is None

    def test_open_source_opens_it(self, hub, options):
        hub.publish_onnx("Model-Q2", bias_model(1))
        source = open_source("eotdl:", options())
        bundle = source.fetch(MODEL)
        assert source.scheme == asdict(bundle)["source"] == "eotdl:"
        source.close()

    def test_without_its_packages_it_says_what_to_install(self, tmp_path):
        script = (
            "import sys, pathlib\n"
            "sys.modules['eotdl'] = None\n"
            "from ml_inference.errors import ConfigurationInvalid\n"
            "from ml_inference.sources import SourceOptions, open_source\n"
            "try:\n"
            "    open_source('eotdl:', SourceOptions(pathlib.Path('/nonexistent')))\n"
            "except ConfigurationInvalid as error:\n"
            "    print(error)\n"
        )
        said = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
        )
        assert said.stdout == "`eotdl:` needs more packages: pip install 'ml-inference-processor[eotdl]'\n"

    def test_threads_are_not_left_behind(self, hub, source):
        hub.publish_onnx("Model-Q2", bias_model(1))
        before = threading.active_count()
        for _ in range(5):
            source.fetch(MODEL)
        assert threading.active_count() <= before

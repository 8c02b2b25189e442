"""What can go wrong with a hub: away, refusing, damaged, or leading astray."""

from __future__ import annotations

import builtins
import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sources.hub import KEY, eotdl_item
from sources.onnx_models import bias_model, external_model

from ml_inference.errors import (
    CardInvalid,
    Forbidden,
    ModelNotFound,
    NotReady,
    SourceFailed,
    Unauthorised,
)
from ml_inference.sources import ModelReference
from ml_inference.sources.eotdl import EotdlSource

MODEL = ModelReference("Model-Q2")
PADDED = bias_model(1.0, padding=2_000_000)


def cached_files(options) -> list[str]:
    root = options().cache_dir
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


class TestBadBytes:
    def test_a_flipped_bit_is_found_and_the_model_fetched_again(self, hub, source):
        hub.publish_onnx("Model-Q2", PADDED)
        hub.fault("store", "model.onnx", flip=1_000_000)
        assert source.fetch(MODEL).model_path.read_bytes() == PADDED
        assert len(hub.calls("store", "model.onnx")) == 2

    def test_bytes_that_stay_wrong_are_refused_and_nothing_stays(self, hub, source, options):
        hub.publish_onnx("Model-Q2", bias_model(1), asset={"checksum": "0" * 40})
        with pytest.raises(SourceFailed, match=f"not the one its item promises.*sha1 {'0' * 40}"):
            source.fetch(MODEL)
        assert cached_files(options) == ["Model-Q2/.lock"]

    def test_a_new_version_with_wrong_bytes_is_refused_and_the_old_one_serves(self, hub, source):
        hub.publish_onnx("Model-Q2", bias_model(1))
        source.fetch(MODEL)
        hub.publish_onnx("Model-Q2", bias_model(1), bias_model(2))
        model_id = hashlib.md5(b"Model-Q2").hexdigest()[:24]
        (hub.root / model_id / "model.onnx-2").write_bytes(bias_model(3))
        bundle = source.fetch(MODEL)
        assert (bundle.version, bundle.model_path.read_bytes()) == ("1", bias_model(1))
        assert "v2" in bundle.notice
        assert "serving version 1 as cached on 20" in bundle.notice
        with pytest.raises(SourceFailed, match="not the one its item promises"):
            source.fetch(ModelReference("Model-Q2", "2"))

    @pytest.mark.parametrize("damage", ["flip", "cut", "remove", "record", "record cut"])
    def test_a_damaged_cache_is_found_and_healed(self, damage, hub, source, options):
        hub.publish_onnx("Model-Q2", PADDED)
        path = source.fetch(MODEL).model_path
        record = path.with_name("bundle.json")
        if damage == "flip":
            path.write_bytes(PADDED[:999] + bytes([PADDED[999] ^ 1]) + PADDED[1000:])
        elif damage == "cut":
            path.write_bytes(PADDED[:1000])
        elif damage == "remove":
            path.unlink()
        elif damage == "record":
            record.write_text(record.read_text().replace('"size": ', '"size": 1'))
        else:
            record.write_text(record.read_text()[:100])
        healed = EotdlSource(options()).fetch(MODEL)
        assert (healed.model_path.read_bytes(), healed.notice) == (PADDED, None)
        assert len(hub.calls("store", "model.onnx")) == 2

    def test_a_damaged_cache_is_never_served_when_the_hub_is_away(self, hub, source):
        hub.publish_onnx("Model-Q2", bias_model(1))
        source.fetch(MODEL).model_path.write_bytes(bias_model(2))
        hub.stop()
        with pytest.raises(SourceFailed):
            source.fetch(MODEL)

    def test_what_is_no_onnx_or_asks_for_other_files_is_refused(self, hub, source, options):
        hub.publish_onnx("Pickle", b"\x80\x04rest")
        hub.publish_onnx("External", external_model(location="bundle.json").SerializeToString())
        with pytest.raises(CardInvalid, match="a Python pickle"):
            source.fetch(ModelReference("Pickle"))
        with pytest.raises(CardInvalid, match="external data of tensor `bias`"):
            source.fetch(ModelReference("External"))
        assert cached_files(options) == ["External/.lock", "Pickle/.lock"]

    def test_a_model_larger_than_allowed_or_than_the_disk_has_room_for_is_refused(self, hub, options):
        hub.publish_onnx("Model-Q2", PADDED)
        with pytest.raises(SourceFailed, match="at most 1000000 are fetched"):
            EotdlSource(options(max_model_bytes=1_000_000)).fetch(MODEL)
        with pytest.raises(SourceFailed, match="the disk for models has 1000000 left"):
            EotdlSource(options(), free_bytes=lambda _: 1_000_000).fetch(MODEL)
        assert cached_files(options) == ["Model-Q2/.lock"]


class TestHubAway:
    def test_the_cached_version_serves_and_says_so(self, hub, source):
        hub.publish_onnx("Model-Q2", bias_model(1))
        source.fetch(MODEL)
        hub.stop()
        bundle = source.fetch(MODEL)
        today = time.strftime("%Y-%m-%d", time.gmtime())
        assert bundle.model_path.read_bytes() == bias_model(1)
        assert bundle.notice.startswith("EOTDL could not be reached")
        assert bundle.notice.endswith(f"serving version 1 as cached on {today}")
        assert source.fetch(ModelReference("Model-Q2", "1")).notice is None

    def test_nothing_cached_is_a_failure_of_the_source(self, hub, source):
        hub.stop()
        with pytest.raises(SourceFailed, match="could not be reached"):
            source.fetch(MODEL)

    @pytest.mark.parametrize("where", ["api", "store"])
    def test_a_hanging_hub_costs_a_bounded_time(self, where, hub, options):
        hub.publish_onnx("Model-Q2", bias_model(1))
        hub.fault(where, times=99, hang=30)
        source = EotdlSource(options(api_seconds=0.3, read_seconds=0.3, retries=1))
        begin = time.monotonic()
        with pytest.raises(SourceFailed, match="did not answer in time"):
            source.fetch(MODEL)
        assert time.monotonic() - begin < 3.0

    def test_a_frozen_hub_costs_one_short_wait_when_the_model_is_cached_and_then_none(self, hub, options):
        hub.publish_onnx("Model-Q2", bias_model(1))
        source = EotdlSource(options(api_seconds=0.5, away_seconds=60.0))
        source.fetch(MODEL)
        hub.freeze()
        try:
            begin = time.monotonic()
            assert "did not answer in time" in source.fetch(MODEL).notice
            assert 0.4 < time.monotonic() - begin < 1.5
            begin = time.monotonic()
            assert "did not answer a moment ago" in source.fetch(MODEL).notice
            assert time.monotonic() - begin < 0.3
        finally:
            hub.thaw()

    def test_an_answer_that_drips_is_cut_off_in_time(self, hub, options):
        hub.fault("api", times=99, drip_head=0.05)
        begin = time.monotonic()
        with pytest.raises(SourceFailed):
            EotdlSource(options(api_seconds=0.3)).fetch(MODEL)
        assert time.monotonic() - begin < 3.0

    def test_an_outage_that_passes_is_not_noticed(self, hub, source):
        hub.publish_onnx("Model-Q2", bias_model(1))
        hub.fault("api", "models\\?name", times=2, status=503, body="<html>later</html>", type="text/html")
        assert source.fetch(MODEL).notice is None

    def test_a_model_the_hub_no_longer_lists_is_served_from_the_cache_with_a_notice(self, hub, source):
        model_id = hub.publish_onnx("Model-Q2", bias_model(1))
        source.fetch(MODEL)
        hub.list_model("Model-Q2", model_id, [1], active=False)
        assert "not active" in source.fetch(MODEL).notice

    def test_closing_breaks_off_what_is_under_way(self, hub, source):
        hub.publish_onnx("Model-Q2", PADDED)
        hub.fault("store", "model.onnx", drip=1_000_000, pace=0.05)
        with ThreadPoolExecutor(1) as pool:
            fetching = pool.submit(source.fetch, MODEL)
            while not hub.calls("store", "model.onnx"):
                time.sleep(0.02)
            source.close()
            with pytest.raises(NotReady):
                fetching.result(10)


SAID = {
    "model": (409, {"detail": "Model doesn't exist"}, ModelNotFound),
    "inactive": (409, {"detail": "Requested model(s) not active"}, ModelNotFound),
    "not authenticated": (401, {"detail": "Not authenticated"}, Unauthorised),
    "key by 409": (409, {"detail": "Invalid API key"}, Unauthorised),
    "token": (409, {"detail": "Invalid token"}, Unauthorised),
    "forbidden": (403, {"detail": "no"}, Forbidden),
    "forbidden by 409": (409, {"detail": "User is not allowed to see it"}, Forbidden),
    "any other 409": (409, {"detail": "Database is locked"}, SourceFailed),
    "list": (422, {"detail": [{"loc": ["query", "name"], "msg": "too long"}]}, SourceFailed),
    "no route": (404, {"detail": "Not Found"}, SourceFailed),
    "500": (500, {"detail": "KeyError: 'x'"}, SourceFailed),
    "no detail": (418, {}, SourceFailed),
    "a list for a body": (409, [], SourceFailed),
    "wrong form": (200, {"name": "Model-Q2"}, SourceFailed),
    "no versions": (200, {"name": "Model-Q2", "id": "1", "versions": []}, SourceFailed),
    "id is a path": (200, {"name": "Model-Q2", "id": "../1", "versions": [{"version_id": 1}]}, SourceFailed),
    "a list of models": (200, [], SourceFailed),
    "another model": (200, {"name": "model-q2", "id": "1", "versions": [{"version_id": 1}]}, ModelNotFound),
}


class TestRefusals:
    @pytest.mark.parametrize(("status", "body", "error"), SAID.values(), ids=SAID)
    def test_what_the_hub_says_of_a_model_becomes_the_error_it_means(self, status, body, error, hub, source):
        hub.fault("api", times=9, status=status, body=json.dumps(body))
        with pytest.raises(error) as refused:
            source.fetch(MODEL)
        assert type(refused.value) is error or error is SourceFailed
        detail = body.get("detail", "") if isinstance(body, dict) else ""
        assert (detail if isinstance(detail, str) else "query.name: too long") in str(refused.value)

    def test_a_page_instead_of_json_is_named(self, hub, source):
        for status in (200, 409, 500):
            hub.fault("api", times=3 if status == 500 else 1, status=status, body="<html>", type="text/html")
            with pytest.raises(SourceFailed, match=f"answered {status} without JSON"):
                source.fetch(MODEL)

    def test_an_absent_version_is_not_found(self, hub, source):
        hub.publish_onnx("Model-Q2", bias_model(1))
        with pytest.raises(ModelNotFound, match="has no version '7'; it has 1"):
            source.fetch(ModelReference("Model-Q2", "7"))

    def test_a_listed_file_that_does_not_exist_is_an_outage_not_an_absent_model(self, hub, source):
        model_id = hub.publish_onnx("Model-Q2", bias_model(1))
        (hub.root / model_id / "model.onnx").unlink()
        with pytest.raises(SourceFailed, match=r"File `model\.onnx` does not exist"):
            source.fetch(MODEL)

    def test_an_absent_key_and_a_wrong_one_are_told(self, hub, options):
        hub.publish_onnx("Model-Q2", bias_model(1))
        with pytest.raises(Unauthorised, match="set EOTDL_API_KEY"):
            EotdlSource(options(eotdl_key=None)).fetch(MODEL)
        with pytest.raises(Unauthorised, match="Invalid API key"):
            EotdlSource(options(eotdl_key="wrong")).fetch(MODEL)

    def test_a_name_goes_out_as_one_part_of_the_address(self, hub, source):
        with pytest.raises(ModelNotFound):
            source.fetch(ModelReference("a.b_c-d"))
        assert hub.calls("api")[0]["path"] == "/models?name=a.b_c-d"
        for name in ("..%2F", "a&limit=1", "a" * 10_000):
            with pytest.raises(ModelNotFound):
                source.fetch(ModelReference(name))
        assert len(hub.calls("api")) == 1

    def test_catalogues_that_do_not_name_one_model_are_refused(self, hub, source):
        plain = {
            "type": "Feature",
            "id": "scene",
            "assets": {"a": {"href": "x"}},
            "properties": {"datetime": "2024"},
        }
        models = [eotdl_item({"href": f"{hub.url}models/m/stage/model.onnx"}) for _ in range(2)]
        hub.publish("No-Item", {1: [plain]}, {})
        hub.publish("Two-Items", {1: models}, {})
        hub.publish("Not-Parquet", {1: [plain]}, {})
        (hub.root / hashlib.md5(b"Not-Parquet").hexdigest()[:24] / "catalog.v1.parquet").write_bytes(
            b"PAR1nonsense"
        )
        for name, words in (
            ("No-Item", "no item with MLM"),
            ("Two-Items", "2 MLM items"),
            ("Not-Parquet", "Parquet"),
        ):
            with pytest.raises(CardInvalid, match=words):
                source.fetch(ModelReference(name))

    def test_the_model_is_found_among_other_items(self, hub, source):
        """In a table of several, a row's assets hold nulls under the others' keys."""
        scene = {
            "type": "Feature",
            "id": "s",
            "assets": {"b04": {"href": "x", "nodata": 0}},
            "properties": {"gsd": 10},
        }
        torch = eotdl_item({"href": "weights.pt"}, "weights")
        model = eotdl_item({"href": f"{hub.url}models/m/stage/model.onnx", "size": len(bias_model(1))})
        hub.publish("Model-Q2", {1: [scene, torch, model]}, {"model.onnx": bias_model(1)}, "m")
        bundle = source.fetch(MODEL)
        assert list(bundle.item["assets"]) == ["asset"]
        assert bundle.item["assets"]["asset"]["size"] == len(bias_model(1))
        assert "gsd" not in bundle.item["properties"]

    HREFS = (
        ("models/m/stage/../../other/file", "leads out of the model"),
        ("models/m/stage/..%2F..%2Fother", "leads out of the model"),
        ("models/m/stage/a%00b", "leads out of the model"),
        ("models/m/stage//etc/passwd", "leads out of the model"),
        ("models/m/stage/a%5C..%5Cb", "leads out of the model"),
    )

    @pytest.mark.parametrize(("path", "words"), HREFS)
    def test_an_href_that_leads_out_of_the_model_is_refused(self, path, words, hub, source):
        hub.publish("Model-Q2", {1: [eotdl_item({"href": hub.url + path})]}, {}, "m")
        with pytest.raises(CardInvalid, match=words):
            source.fetch(MODEL)

    @pytest.mark.parametrize(
        "href", ["/home/someone/model.onnx", "file:///etc/passwd", "model.onnx", "s3://b/model.onnx"]
    )
    def test_an_href_that_is_no_address_is_refused(self, href, hub, source):
        hub.publish("Model-Q2", {1: [eotdl_item({"href": href})]}, {})
        with pytest.raises(CardInvalid, match="no address") as refused:
            source.fetch(MODEL)
        assert refused.value.problems[0][0] == "/assets/asset/href"


class TestKeyAndAddresses:
    def test_the_key_goes_to_the_hub_alone(self, hub, options):
        """A link, a redirect and an href lead to the store and to a stranger; all are called, none sees the key."""
        settings = options(allowed_hosts=(hub.store_host, hub.canary_host))
        elsewhere = eotdl_item({"href": hub.canary_url + "models/1/stage/model.onnx"})
        hub.publish("Foreign", {1: [elsewhere]}, {})
        model_id = hub.publish_onnx("Model-Q2", bias_model(1))
        hub.fault("api", "stage/model.onnx", redirect=f"{hub.canary_url}models/{model_id}/stage/model.onnx")
        for reference in (MODEL, ModelReference("Foreign")):
            with pytest.raises((SourceFailed, CardInvalid)):
                EotdlSource(settings).fetch(reference)
        assert EotdlSource(settings).fetch(MODEL).version == "1"
        assert {call["key"] for call in hub.calls("api", "stage")} == {KEY}
        strangers = hub.calls("canary") + hub.calls("store")
        assert {call["where"] for call in strangers} == {"canary", "store"}
        assert {(call["key"], call["authorization"]) for call in strangers} == {(None, None)}

    def test_a_hub_that_redirects_elsewhere_is_not_followed(self, hub, source):
        for path in ("models\\?name", "stage/catalog"):
            hub.publish_onnx("Model-Q2", bias_model(1))
            hub.fault("api", path, redirect=hub.canary_url + "models?name=Model-Q2")
            with pytest.raises(SourceFailed, match=r"redirect to .* is refused"):
                source.fetch(MODEL)
        assert hub.calls("canary") == []

    def test_a_redirect_within_the_hub_is_followed(self, hub, source):
        hub.publish_onnx("Model-Q2", bias_model(1))
        hub.fault("api", "models\\?name", redirect="/models?name=Model-Q2&again")
        assert source.fetch(MODEL).version == "1"

    @pytest.mark.parametrize(
        "link", ["canary", "http://169.254.169.254/latest/meta-data/", "http://[::ffff:7f00:1]:{port}/x"]
    )
    def test_a_link_to_a_private_address_is_not_called(self, link, hub, source):
        hub.publish_onnx("Model-Q2", bias_model(1))
        port = hub.canary_host.rpartition(":")[2]
        hub.fault("api", "stage/model", link=hub.canary_url if link == "canary" else link.format(port=port))
        with pytest.raises(SourceFailed, match="not public"):
            source.fetch(MODEL)
        assert hub.calls("canary") == []

    def test_the_store_itself_must_be_allowed_where_it_is_private(self, hub, options):
        hub.publish_onnx("Model-Q2", bias_model(1))
        with pytest.raises(SourceFailed, match="not public"):
            EotdlSource(options(allowed_hosts=())).fetch(MODEL)
        assert hub.calls("store") == []

    def test_nothing_secret_is_logged_or_told(self, hub, options, caplog):
        caplog.set_level("DEBUG")
        hub.publish_onnx("Model-Q2", bias_model(1))
        hub.fault("store", times=99, status=500)
        with pytest.raises(SourceFailed) as failed:
            EotdlSource(options(retries=1)).fetch(MODEL)
        said = f"{caplog.text} {failed.value}"
        assert "500" in said
        assert KEY not in said
        assert "X-Amz" not in said
        assert str(options().cache_dir) not in str(failed.value)

    def test_its_own_client_neither_prints_nor_asks_nor_reads_the_environment(
        self, hub, options, capsys, monkeypatch
    ):
        monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("somebody was asked"))
        monkeypatch.setenv("EOTDL_API_URL", hub.canary_url)
        monkeypatch.setenv("EOTDL_API_KEY", "another")
        monkeypatch.setenv("HOME", "/nonexistent")
        hub.publish_onnx("Model-Q2", bias_model(1))
        assert EotdlSource(options()).fetch(MODEL).version == "1"
        assert capsys.readouterr() == ("", "")
        assert hub.calls("canary") == []

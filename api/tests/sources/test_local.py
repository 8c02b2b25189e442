"""A folder of models."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
from sources.onnx_models import bias_model, external_model

from ml_inference.errors import CardInvalid, ModelNotFound
from ml_inference.sources.base import ModelReference
from ml_inference.sources.local import LocalSource

ROOMY = 1 << 30


@pytest.fixture
def folder(tmp_path):
    inner = tmp_path / "models"
    inner.mkdir()
    return inner


@pytest.fixture
def source(folder):
    return LocalSource(folder, max_model_bytes=ROOMY)


def put(place, data: bytes, **asset: object) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.onnx").write_bytes(data)
    item = {"type": "Feature", "id": place.name, "assets": {"model": {"href": "model.onnx"} | asset}}
    (place / "item.json").write_text(json.dumps(item))


def test_models_are_found_with_versions_without_and_bare(folder, source):
    put(folder / "plain", bias_model(1))
    put(folder / "numbered" / "2", bias_model(2))
    put(folder / "numbered" / "10", bias_model(10))
    (folder / "bare.onnx").write_bytes(bias_model(3))
    (folder / "README.md").write_text("no model")
    (folder / "empty").mkdir()
    put(folder / ".hidden", bias_model())
    assert source.names() == ["bare", "numbered", "plain"]
    assert source.versions("numbered") == ["2", "10"]
    assert source.versions("plain") == source.versions("bare") == ["1"]
    assert source.versions("absent") == []


def test_the_newest_version_comes_or_the_one_asked_for(folder, source):
    for version in (2, 10):
        put(folder / "m" / str(version), bias_model(version))
    newest, asked = source.fetch(ModelReference("m")), source.fetch(ModelReference("m", "2"))
    assert (newest.version, newest.model_path.read_bytes()) == ("10", bias_model(10))
    assert (asked.version, asked.sha256) == ("2", hashlib.sha256(bias_model(2)).hexdigest())
    assert asked.item["id"] == "2"
    assert (asked.source, asked.profile, asked.notice) == ("file:", None, None)


def test_a_bare_file_has_no_item(folder, source):
    (folder / "bare.onnx").write_bytes(bias_model(3))
    bundle = source.fetch(ModelReference("bare"))
    assert (bundle.item, bundle.version, bundle.verified) == (None, "1", "unverified")


def test_a_folder_comes_before_a_bare_file_of_the_same_version(folder, source):
    (folder / "m.onnx").write_bytes(bias_model(1))
    put(folder / "m", bias_model(2))
    assert source.fetch(ModelReference("m")).model_path.read_bytes() == bias_model(2)


def test_absent_models_and_versions_are_not_found(folder, source):
    put(folder / "m", bias_model())
    with pytest.raises(ModelNotFound, match="no model is called 'n'"):
        source.fetch(ModelReference("n"))
    with pytest.raises(ModelNotFound, match="it has 1"):
        source.fetch(ModelReference("m", "2"))


def test_a_profile_beside_the_item_comes_along_and_may_choose_the_asset(folder, source):
    put(folder / "m", bias_model(1))
    (folder / "m" / "small.onnx").write_bytes(bias_model(2))
    item = {"assets": {"a": {"href": "model.onnx"}, "b": {"href": "small.onnx"}}}
    (folder / "m" / "item.json").write_text(json.dumps(item))
    (folder / "m" / "profile.toml").write_text('asset = "b"\n')
    bundle = source.fetch(ModelReference("m"))
    assert (bundle.profile, bundle.model_path.name) == ('asset = "b"\n', "small.onnx")


def test_size_and_checksums_are_compared(folder, source):
    data = bias_model(1)
    promise = {"file:size": len(data), "file:checksum": "1220" + hashlib.sha256(data).hexdigest()}
    put(folder / "m", data, **promise, checksum=hashlib.sha1(data).hexdigest())
    assert source.fetch(ModelReference("m")).verified == "size, sha256, sha1"
    (folder / "m" / "model.onnx").write_bytes(data[:-1] + b"\0")
    with pytest.raises(CardInvalid, match="not the one its item promises") as refused:
        source.fetch(ModelReference("m"))
    assert refused.value.problems[0][0] == "/assets/model/file:checksum"


HREFS = {
    "absolute": "/etc/passwd",
    "address": "https://example.com/model.onnx",
    "file address": "file:///etc/passwd",
    "parent": "../outside.onnx",
    "encoded parent": "..%2Foutside.onnx",
    "parent within": "sub/../../outside.onnx",
    "backslash": "..\\outside.onnx",
    "nul": "model.onnx%00",
    "link out": "link.onnx",
    "folder": "sub",
    "absent": "absent.onnx",
    "fifo": "fifo",
}


@pytest.mark.parametrize("href", HREFS.values(), ids=HREFS)
def test_an_href_stays_in_the_folder_of_its_item(href, folder, source, tmp_path):
    put(folder / "m", bias_model(), href=href)
    (folder / "outside.onnx").write_bytes(bias_model())
    (folder / "m" / "sub").mkdir()
    (folder / "m" / "link.onnx").symlink_to(folder / "outside.onnx")
    os.mkfifo(folder / "m" / "fifo")
    with pytest.raises(CardInvalid) as refused:
        source.fetch(ModelReference("m"))
    assert refused.value.problems[0][0] == "/assets/model/href"
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("href", ["./my%20model.onnx", "sub/my%20model.onnx", "inner.onnx"])
def test_hrefs_are_read_as_addresses_relative_to_the_item(href, folder, source):
    put(folder / "m", b"", href=href)
    (folder / "m" / "sub").mkdir()
    for path in ("my model.onnx", "sub/my model.onnx"):
        (folder / "m" / path).write_bytes(bias_model(5))
    (folder / "m" / "inner.onnx").symlink_to("my model.onnx")
    assert source.fetch(ModelReference("m")).model_path.read_bytes() == bias_model(5)


def test_a_broken_item_is_refused_with_line_and_column(folder, source):
    put(folder / "m", bias_model())
    (folder / "m" / "item.json").write_text('{"assets": {\n  "model": }')
    with pytest.raises(CardInvalid, match="line 2, column 12"):
        source.fetch(ModelReference("m"))
    (folder / "m" / "item.json").write_text(" " * (2 << 20))
    with pytest.raises(CardInvalid, match="more than 1048576 bytes"):
        source.fetch(ModelReference("m"))


def test_external_data_of_the_same_folder_is_served_and_of_another_is_not(folder, source):
    model = external_model(location="weights.bin", length="12")
    put(folder / "m", model.SerializeToString())
    (folder / "weights.bin").write_bytes(bytes(12))
    with pytest.raises(CardInvalid, match="external data"):
        source.fetch(ModelReference("m"))
    (folder / "m" / "weights.bin").write_bytes(bytes(12))
    assert source.fetch(ModelReference("m")).model_path.parent == folder / "m"


def test_a_model_beyond_the_limit_is_refused(folder):
    put(folder / "m", bias_model(padding=2000))
    with pytest.raises(CardInvalid, match="more than 1000 bytes"):
        LocalSource(folder, max_model_bytes=1000).fetch(ModelReference("m"))


def test_progress_is_told_once_at_the_end(folder, source):
    put(folder / "m", bias_model())
    told = []
    source.fetch(ModelReference("m"), lambda have, total: told.append((have, total)))
    assert told == [(len(bias_model()), len(bias_model()))]

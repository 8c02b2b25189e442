"""The stand-in hub answers as EOTDL does: the published `eotdl` client, as it is, can tell no difference."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from sources.hub import KEY, Hub
from sources.onnx_models import bias_model

eotdl = pytest.importorskip("eotdl.repos", reason="the `eotdl` extra is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="the `eotdl` extra is not installed")
USER = {"api_key": KEY}


@pytest.fixture(autouse=True)
def _without_shared_cache(monkeypatch):
    monkeypatch.delenv("EOTDL_CACHE_PATH", raising=False)


def test_client_finds_a_model_by_name_and_lists_those_that_match(hub: Hub):
    model_id = hub.publish_onnx("EuroSAT-RGB-Q2", bias_model(1), bias_model(2))
    repo = eotdl.ModelsAPIRepo(hub.url)
    model, error = repo.retrieve_model("EuroSAT-RGB-Q2")
    assert error is None
    assert (model["id"], [v["version_id"] for v in model["versions"]]) == (model_id, [1, 2])
    assert [m["name"] for m in repo.retrieve_models("eurosat", 5)[0]] == ["EuroSAT-RGB-Q2"]


def test_client_is_refused_in_the_hubs_words(hub: Hub):
    hub.list_model("Hidden", "1", [1], active=False)
    repo = eotdl.ModelsAPIRepo(hub.url)
    assert repo.retrieve_model("Nobody") == (None, "Model doesn't exist")
    assert repo.retrieve_model("Hidden") == (None, "Requested model(s) not active")


def test_client_stages_the_catalogue_and_the_model(hub: Hub, tmp_path):
    """Through its own download, byte for byte; its default endpoint is that of data sets."""
    data = bias_model(1)
    model_id = hub.publish_onnx("Model-Q2", data)
    repo, into = eotdl.FilesAPIRepo(hub.url), str(tmp_path / "staged")
    catalog = Path(repo.stage_file(model_id, "catalog.v1.parquet", USER, into))
    assert catalog.read_bytes() == (hub.root / model_id / "catalog.v1.parquet").read_bytes()
    href = parquet.read_table(catalog).to_pylist()[0]["assets"]["asset"]["href"]
    assert Path(repo.stage_file_url(href, into, USER)).read_bytes() == data


def test_client_gets_a_signed_link_to_the_store_or_none(hub: Hub):
    model_id = hub.publish_onnx("Model-Q2", bias_model())
    repo = eotdl.FilesAPIRepo(hub.url)
    link = repo.generate_presigned_url("model.onnx", model_id, USER, endpoint="models")
    assert link.startswith(hub.store_url)
    assert repo.generate_presigned_url("absent.onnx", model_id, USER, endpoint="models") is None
    with pytest.raises(Exception, match="Invalid API key"):
        repo.stage_file(model_id, "model.onnx", {"api_key": "wrong"}, "/nowhere")


def test_links_are_for_get_alone_and_end(hub: Hub):
    """As an S3 store has it: another method or a changed signature is refused, and so is a link after its time."""
    model_id = hub.publish_onnx("Model-Q2", bias_model())
    repo = eotdl.FilesAPIRepo(hub.url)
    link = repo.generate_presigned_url("model.onnx", model_id, USER, endpoint="models")
    hub.settings(link_seconds=-1)
    over = repo.generate_presigned_url("model.onnx", model_id, USER, endpoint="models")
    for url, method in ((link, "HEAD"), (link[:-1] + "0x", "GET"), (over, "GET")):
        assert _status(url, method) == 403
    assert _status(link, "GET") == 200
    assert _status(link, "GET", {"Range": "bytes=10-"}) == 206


def test_what_the_hub_no_longer_has_is_404(hub: Hub):
    """The old `/download/` route is not mounted any more."""
    assert _status(hub.url + "models/1/download/model.onnx", "GET") == 404


def _status(url: str, method: str, headers: dict | None = None) -> int:
    request = urllib.request.Request(url, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code

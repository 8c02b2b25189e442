"""`METRICS_COMPAT=triton`: Triton's names tell what was asked, in its units; without it they are absent."""

from __future__ import annotations

import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from system.conftest import start, stop
from system.files import geotiff, scene

NAMES = ("B02", "B03", "B04", "B08")
TIMES = {"request", "queue", "compute_input", "compute_infer", "compute_output"}


@pytest.fixture(scope="module")
def compatible(tmp_path_factory):
    """A service of its own, whose counts only this module moves."""
    server = start(tmp_path_factory.mktemp("triton"), METRICS_COMPAT="triton", BATCH_SIZE="1")
    yield server
    assert stop(server) == 0


def samples(server, model):
    """Every nv_ sample of a model by name and, where it has one, reason."""
    text = httpx.get(f"{server.url}/metrics", timeout=30).text
    return {
        (sample.name, sample.labels.get("reason")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("nv_") and sample.labels["model"] == model
    }


def test_counts_are_what_was_asked_and_times_fit_into_the_time_it_took(compatible):
    started = time.perf_counter()
    for seed in range(5):
        body = geotiff(scene(seed, 64, 64), NAMES)
        assert httpx.post(f"{compatible.url}/landcover-share", content=body, timeout=30).status_code == 200
    for _ in range(2):
        assert httpx.post(f"{compatible.url}/landcover-share", content=b"text", timeout=30).status_code == 415
    took = (time.perf_counter() - started) * 1e6
    found = samples(compatible, "landcover-share")
    value = {name: number for (name, reason), number in found.items() if reason is None}
    assert value["nv_inference_request_success"] == 5
    assert value["nv_inference_count"] == value["nv_inference_exec_count"] == 5
    assert value["nv_inference_pending_request_count"] == 0
    failed = {
        reason: found["nv_inference_request_failure", reason]
        for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")
    }
    assert failed == {"REJECTED": 0, "CANCELED": 0, "BACKEND": 0, "OTHER": 2}
    micro = {name: value[f"nv_inference_{name}_duration_us"] for name in TIMES}
    assert 0 < micro["compute_infer"] <= micro["request"] <= took
    assert sum(micro[name] for name in TIMES - {"request"}) <= micro["request"]


def test_a_model_is_named_only_when_it_has_loaded(compatible):
    httpx.post(f"{compatible.url}/Nowhere", content=b"x", timeout=30)
    assert samples(compatible, "Nowhere") == {}


def test_they_are_off_by_default(server):
    httpx.post(f"{server.url}/landcover-share", content=geotiff(scene(1, 8, 8), NAMES), timeout=30)
    assert samples(server, "landcover-share") == {}

"""Triton's names for our metrics: failures by its reasons, series that end with their model, all of them documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_inference import errors
from ml_inference.engine.statistics import StatisticsRecorder
from ml_inference.telemetry import TRITON_REASONS, Metrics

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()
LABELS = {"model": "m", "version": "1"}


@pytest.fixture
def metrics():
    """Metrics with a model that has answered three requests in two seconds, and waits for two more."""
    metrics = Metrics(compat="triton")
    recorder = StatisticsRecorder()
    for _ in range(3):
        recorder.ended(2 / 3, good=True)
    model = metrics.model("m", "1")
    model.watch(requests=lambda: 2.0, size=float, wait=float, busy=float)
    model.watch_statistics(recorder.snapshot)
    return metrics


def value(metrics, name, **more):
    return metrics.registry.get_sample_value(f"nv_inference_{name}", LABELS | more)


def test_a_request_s_time_is_given_in_microseconds(metrics):
    assert value(metrics, "request_success") == 3
    assert value(metrics, "request_duration_us") == pytest.approx(2_000_000, abs=1)
    assert value(metrics, "pending_request_count") == 2


def test_failures_are_told_by_triton_s_reasons(metrics):
    model = metrics.model("m", "1")
    for each in ("Overloaded", "DeadlineExceeded", "InferenceFailed", "CorruptImage", "ContractMismatch"):
        model.failed(each)
    model.rejected("queue_full")  # the reason of a failure that is counted already
    model.rejected("cancelled")
    reasons = ("REJECTED", "BACKEND", "OTHER", "CANCELED")
    assert [value(metrics, "request_failure", reason=each) for each in reasons] == [2, 1, 2, 1]


def test_classes_that_have_a_reason_exist():
    for name in set(TRITON_REASONS) - {"InternalError"}:
        assert issubclass(getattr(errors, name), errors.ProcessorError)


def test_series_end_when_their_model_does(metrics):
    metrics.model("m", "1").unloaded()
    assert value(metrics, "request_success") is None
    assert b"nv_inference_count{" not in metrics.render()[0]


def test_every_name_is_in_the_metrics_page_and_none_is_there_by_default(metrics):
    names = {family.name for family in metrics.registry.collect() if family.name.startswith("nv_")}
    assert len(names) == 10
    assert [name for name in names if f"| `{name}` |" not in PAGE] == []
    assert b"nv_" not in Metrics().render()[0]

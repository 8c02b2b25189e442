"""Documentation that cannot fall behind: every setting, metric, error and route is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ml_inference import errors
from ml_inference.settings import Settings, load_settings
from ml_inference.telemetry import Metrics
from ml_inference.web.app import create_app
from ml_inference.web.errors import STATUS_OF

ROOT = Path(__file__).resolve().parents[2]
DOCS = {path.stem: path.read_text() for path in (ROOT / "docs").glob("*.md")}


def classes(base=errors.ProcessorError):
    return [each for child in base.__subclasses__() for each in (child, *classes(child))]


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_a_setting_is_in_the_configuration_page_and_the_example(name):
    assert f"`{name.upper()}`" in DOCS["configuration"]
    assert re.search(rf"^#? ?{name.upper()}=", (ROOT / ".env.example").read_text(), re.MULTILINE)


def metric_names():
    for metric in Metrics().registry.collect():
        yield f"{metric.name}_total" if metric.type == "counter" else metric.name


@pytest.mark.parametrize("name", sorted(metric_names()))
def test_a_metric_is_in_the_metrics_page(name):
    assert f"`{name}`" in DOCS["metrics"]


def test_the_metrics_page_names_nothing_that_does_not_exist():
    told = set(re.findall(r"`(model_[a-z_]+)[`{]", DOCS["metrics"]))
    assert told <= set(metric_names())


@pytest.mark.parametrize("error", sorted(STATUS_OF, key=lambda each: each.__name__))
def test_an_error_and_its_status_are_in_the_http_page(error):
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", error.__name__).lower()
    if error not in {errors.ProcessorError, errors.Unavailable}:
        assert f"`{words}`" in DOCS["http"]
    assert re.search(rf"\b{STATUS_OF[error]}\b", DOCS["http"])


def test_every_error_of_the_tree_is_drawn_in_it():
    for each in classes():
        if each.__module__ == errors.__name__:
            assert re.search(rf"── {each.__name__}\b", errors.__doc__), each


def routes():
    app = create_app(load_settings({}, env_file=None))
    return sorted({path for path in (getattr(route, "path", None) for route in flat(app.routes)) if path})


def flat(found):
    for route in found:
        if hasattr(route, "original_router"):  # an included router of recent FastAPI
            yield from flat(route.original_router.routes)
        else:
            yield route


@pytest.mark.parametrize("path", routes())
def test_a_route_is_in_the_page_of_its_surface(path):
    page = DOCS["open-inference" if path.startswith(("/v1/", "/v2")) else "http"]
    assert path.rstrip("/") in page

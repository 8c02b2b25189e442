"""The page, the interface's description, and the two lines of JSON."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from ml_inference import __version__
from ml_inference.web.errors import STATUS_OF

pytestmark = pytest.mark.anyio

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class Elements(HTMLParser):
    """Start tags with their attributes, and the text of inline scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found, self.inline, self._open = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._open = tag

    def handle_data(self, data):
        if self._open in {"script", "style"}:
            self.inline.append(data)

    def handle_endtag(self, _tag):
        self._open = None


async def test_the_root_is_json_for_programs_and_a_page_for_people(client):
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        answer = await client.get("/", headers=headers)
        assert answer.json() == {
            "message": "ML Inference Processor",
            "version": __version__,
            "auth_required": False,
        }
    page = await client.get("/", headers={"Accept": BROWSER})
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Vary"] == "Accept"


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_needs_nothing_from_elsewhere_and_may_run_nothing_but_its_own_script(client, path):
    answer = await client.get(path, headers={"Accept": BROWSER})
    page, policy = Elements(answer.text), answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for text in page.inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert len(page.inline) == policy.count("sha256-") == 2
    for tag, attributes in page.found:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        for name in ("src", "href", "action"):
            assert not re.match(r"[a-z]+:|/", attributes.get(name, ""), re.IGNORECASE), (tag, attributes)


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_never_turns_text_into_markup(client, path):
    text = (await client.get(path, headers={"Accept": BROWSER})).text
    for means in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert means not in text


async def test_every_control_of_the_page_has_a_label_or_text(client):
    text = (await client.get("/", headers={"Accept": BROWSER})).text
    for control in re.findall(r"<(?:input|select)[^>]*>", text):
        label = text.rfind("<label", 0, text.index(control))
        assert "</label>" not in text[label : text.index(control)], control


async def test_the_description_of_the_interface_covers_every_route_and_nothing_dangles(client):
    document = (await client.get("/openapi.json")).json()
    protocol = {
        path for path in document["paths"] if path.startswith(("/v1/", "/v2"))
    }  # told on a page of its own
    assert {"/v2", "/v2/models/{model}/infer", "/v1/models/{model}:predict"} <= protocol
    assert set(document["paths"]) - protocol == {
        "/", "/health/live", "/health/ready", "/metrics", "/models", "/models/{model}", "/{model}",
        "/models/{model}/versions/{version}", "/models/{model}/predict", "/models/{model}/versions/{version}/predict",
    }  # fmt: skip
    names = re.findall(r'"#/components/schemas/(\w+)"', (await client.get("/openapi.json")).text)
    assert set(names) <= set(document["components"]["schemas"])
    ids = [told["operationId"] for path in document["paths"].values() for told in path.values()]
    assert len(ids) == len(set(ids))


async def test_every_operation_declares_its_path_parameters_once(client):
    document = (await client.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        for told in methods.values():
            given = [(each["name"], each["in"]) for each in told.get("parameters", [])]
            assert len(given) == len(set(given)), path
            assert {name for name, place in given if place == "path"} == set(re.findall(r"{(\w+)}", path))


async def test_inference_is_described_with_its_bodies_parameters_and_problems(client):
    document = (await client.get("/openapi.json")).json()
    told = document["paths"]["/models/{model}/predict"]["post"]
    assert {"multipart/form-data", "image/tiff", "application/octet-stream"} <= set(
        told["requestBody"]["content"]
    )
    named = {each["name"] for each in told["parameters"]}
    assert named == {"model", "version", "output", "threshold", "bands", "scaling", "X-Request-Timeout-Ms"}
    statuses = {str(each) for each in STATUS_OF.values()} - {"499", "501"}
    assert set(told["responses"]) == {"200"} | statuses
    assert set(told["responses"]["404"]["content"]) == {"application/problem+json"}


async def test_a_key_is_described_where_one_is_needed(service):
    async with service(api_key="k") as client:
        document = (await client.get("/openapi.json")).json()
        assert document["security"] == [{"header": []}, {"bearer": []}]
    async with service() as client:
        assert "security" not in (await client.get("/openapi.json")).json()


async def test_a_root_path_stands_in_the_description(service):
    async with service(root_path="/inference") as client:
        assert (await client.get("/openapi.json")).json()["servers"] == [{"url": "/inference"}]

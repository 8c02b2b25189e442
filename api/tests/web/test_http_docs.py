"""docs/http.md is true: it names every route, header, status and state, and its examples run as written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ml_inference.engine.status import ModelState
from ml_inference.settings import Settings
from ml_inference.web.app import EXPOSED, create_app
from ml_inference.web.errors import STATUS_OF
from ml_inference.web.handling import RESERVED
from ml_inference.web.openapi import PREDICT, describe_api

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
PROTOCOL = (ROOT / "docs" / "open-inference.md").read_text(encoding="utf-8")


def examples():
    """Commands, each with the JSON that the page shows below it."""
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown.strip()


def rounded(value):
    """The same with floats to five digits: processors differ in the last ones."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value


def test_every_route_is_told():
    paths = describe_api(create_app(Settings()), "", auth_required=False)["paths"]
    for path, methods in paths.items():
        page = PROTOCOL if path.startswith(("/v1/", "/v2")) else TEXT
        for method in methods:
            assert f"`{method.upper()} {path}`" in page


def test_every_status_is_told_by_its_class():
    for error, status in STATUS_OF.items():
        if error.__name__ not in {"ProcessorError", "Unavailable", "ClientGone"}:
            kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", error.__name__).lower()
            assert re.search(rf"^\| {status} \|.*`{kind}`", TEXT, re.MULTILINE), error


def test_every_header_parameter_state_and_reserved_word_is_told():
    told = {*EXPOSED, *RESERVED, *ModelState, *(each["name"] for each in PREDICT["parameters"])}
    assert [each for each in told if f"`{each}`" not in TEXT] == []


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as `make run` leaves it, and the port of a server in it."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "README.md").write_text("text")
    environment = {
        **{name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}},
        "MODEL_SOURCES": "samples:",
        "PORT": "0",
        "GRPC_PORT": "off",
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "ml_inference"]
    subprocess.run(
        [*command, "samples", "samples"], cwd=folder, env=environment, check=True, capture_output=True
    )
    with subprocess.Popen(
        [*command, "serve"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield folder, re.search(r":(\d+)", process.stdout.readline().decode())[1]
        finally:
            process.terminate()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here")
@pytest.mark.parametrize(("command", "shown"), list(examples()))
def test_an_example_runs_and_answers_as_the_page_says(place, command, shown):
    folder, port = place
    line = command.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    done = subprocess.run(
        ["bash", "-c", f"{line} -sS"],
        cwd=folder,
        capture_output=True,
        check=True,
        timeout=60,
        env={**os.environ, "API_KEY": "unused"},
    )
    target = re.search(r"-o (\S+)", command)
    answer = (folder / target[1]).read_bytes() if target else done.stdout
    if shown:
        assert rounded(json.loads(answer)) == rounded(json.loads(shown))
    else:
        assert answer
        assert b"urn:ml-inference" not in answer or "README.md" in command

"""docs/open-inference.md is true: its examples run as they stand, but for the address."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from ml_inference.protocol.datatypes import DATATYPES
from ml_inference.protocol.tensors import MAX_RANK
from ml_inference.web.open_inference.wire import MAX_JSON_BYTES, MAX_JSON_NESTS

PAGE = (Path(__file__).parents[3] / "docs" / "open-inference.md").read_text(encoding="utf-8")
SCRIPTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [block[2:].rsplit("\n{", 1) for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)]


def here(text, server):
    return text.replace("127.0.0.1:8001", server.grpc).replace("127.0.0.1:8000", urlsplit(server.url).netloc)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as `make run` leaves it."""
    folder = tmp_path_factory.mktemp("docs")
    subprocess.run([sys.executable, "-m", "ml_inference", "samples", "samples"], cwd=folder, check=True)
    return folder


def test_the_page_has_an_example_for_each_way_and_none_is_longer_than_five_lines():
    assert ["tritonclient.http" in each for each in SCRIPTS] == [True, False, True]
    assert all(each.count("\n") <= 5 for each in SCRIPTS)
    assert len(COMMANDS) == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_in_python_prints_shares_that_add_up(server, folder, script):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", here(script, server)],
        cwd=folder,
        capture_output=True,
        check=True,
        timeout=60,
        text=True,
    )
    shares = np.array(re.findall(r"\d+\.\d*(?:e[+-]\d+)?", done.stdout), float)
    assert shares.shape == (5,)
    assert shares.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here")
@pytest.mark.parametrize(("command", "shown"), COMMANDS)
def test_an_example_for_the_shell_answers_what_the_page_shows(server, folder, command, shown):
    done = subprocess.run(
        ["bash", "-c", f"{here(command, server)} -sS"],
        cwd=folder,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == json.loads("{" + shown)


def test_types_and_limits_are_those_of_the_code():
    for datatype in DATATYPES:
        if not re.fullmatch(r"U?INT(16|32)", datatype):
            assert f"`{datatype}`" in PAGE
    assert f"{MAX_JSON_BYTES >> 20} MiB, and {MAX_JSON_NESTS} lists" in PAGE
    assert f"| dimensions | {MAX_RANK}," in PAGE

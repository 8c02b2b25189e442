"""README's commands, run as they stand against a real server; only the address is another."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from system.files import opened

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
ADDRESS = "http://127.0.0.1:8000"


def commands(prefix):
    """Commands of README's console blocks that begin so, each with what is printed below it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            if command.startswith(prefix):
                found.append((command, output.strip()))
    return found


CURLS = commands("curl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as `make run` leaves it."""
    folder = tmp_path_factory.mktemp("readme")
    subprocess.run([sys.executable, "-m", "ml_inference", "samples", "samples"], cwd=folder, check=True)
    return folder


def run(command, server, folder):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    words = ["curl", "-sS", "--fail-with-body", *shlex.split(command.replace(ADDRESS, server.url))[1:]]
    return subprocess.run(words, check=False, cwd=folder, capture_output=True, timeout=60)


def test_readme_has_its_commands():
    assert len(CURLS) >= 6
    assert [command for command, _ in commands("make")][:2] == [
        "make run                 # Python >= 3.12, git and make are enough; PORT=9000 moves it",
        "make test                # lint, types, import contracts and every test",
    ]


@pytest.mark.parametrize(("command", "printed"), CURLS, ids=[command for command, _ in CURLS])
def test_a_command_of_readme_gives_what_readme_prints(server, folder, command, printed):
    done = run(command, server, folder)
    assert done.returncode == 0, done.stderr + done.stdout
    if printed:
        assert json.loads(done.stdout) == json.loads(printed)


def test_the_map_of_the_tile_lies_on_the_tiles_own_grid(server, folder):
    command = next(command for command, _ in CURLS if "landcover.tif" in command)
    run(command, server, folder)
    tile, _ = opened((folder / "samples" / "sample.tif").read_bytes())
    answer, _ = opened((folder / "landcover.tif").read_bytes())
    for key in ("crs", "transform", "width", "height"):
        assert answer[key] == tile[key]


def test_links_of_readme_and_docs_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_makefile_runs_what_readme_says():
    makefile = (ROOT / "Makefile").read_text()
    for word in ("run", "test", "install", "check", "format", "bench", "lock", "clean"):
        assert re.search(rf"^{word}:.*##", makefile, re.MULTILINE), word
        assert f"`make {word}" in (ROOT / "CONTRIBUTING.md").read_text(), word

"""The command line: through click's runner for words and exit codes, as real processes for signals, pipes and HTTP."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from ml_inference import __version__
from ml_inference.cli import main
from ml_inference.settings import Settings, render_env_example

COMMAND = [sys.executable, "-m", "ml_inference"]
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working folder, and an environment in which nothing is configured but samples alone."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("MODEL_SOURCES", "samples:")
    monkeypatch.setenv("EOTDL_DOWNLOAD_PATH", str(tmp_path / "cache"))
    monkeypatch.setenv("GRPC_PORT", "off")
    return tmp_path


@pytest.fixture
def run(place):
    """Invoke the command in this process; what it does to logging is undone."""
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def invoke(*args, **kwargs):
        return CliRunner().invoke(main, [str(arg) for arg in args], prog_name="ml-inference", **kwargs)

    yield invoke
    root.handlers[:], root.level = before


@pytest.fixture
def tile(run):
    result = run("samples", "samples")
    assert result.exit_code == 0, result.output
    return Path(result.output.strip())


def chip():
    """The sample tile read past all of our code: uint16 `(4, 300, 300)`, B02 B03 B04 B08."""
    folder = Path(find_spec("spyndex").origin).parent
    return np.array(json.loads((folder / "data" / "S2_10m.json").read_text()), np.uint16)


def expected_ndvi():
    red, near = chip()[2].astype(np.float64), chip()[3].astype(np.float64)
    return (near - red) / (near + red)


def one_line(result):
    """The one line on stderr of a command that failed, without `Error: `."""
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


# ---- words and exit codes


def test_version_and_help_name_every_command(run):
    assert run("--version").output == f"ml-inference {__version__}\n"
    page = run("--help").output
    for command in ("serve", "predict", "models", "lint", "samples", "settings"):
        assert re.search(rf"(?m)^  {command} +\S", page)
        assert run(command, "--help").exit_code == 0


@pytest.mark.parametrize(
    "args", [["nonsense"], ["predict"], ["predict", "ndvi"], ["predict", "ndvi", "absent.tif"], ["lint", "absent.json"], ["models", "--no"]]
)  # fmt: skip
def test_wrong_usage_is_two(run, args):
    assert run(*args).exit_code == 2


def test_a_bad_setting_is_one_line_and_one(run):
    for command in (["settings"], ["models"], ["serve"]):
        result = run(*command, env={"BATCH_SIZE": "many"})
        assert result.exit_code == 1
        assert one_line(result).startswith("BATCH_SIZE='many' is not legal: expected `auto`")


def test_an_unknown_source_is_one_line_that_names_the_variable(run):
    result = run("models", env={"MODEL_SOURCES": "samples:,nowhere"})
    assert result.exit_code == 1
    assert "MODEL_SOURCES" in one_line(result)
    assert "nowhere" in one_line(result)


def test_cuda_that_is_not_there_is_refused_in_one_line(run):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    for command in (["models"], ["serve", "--port", "0"]):
        result = run(*command, env={"DEVICE": "cuda"})
        assert result.exit_code == 1
        assert one_line(result).startswith("DEVICE=cuda")


# ---- settings


def test_settings_prints_every_setting_and_no_secret(run):
    secrets = {"API_KEY": "hush-1", "EOTDL_API_KEY": "hush-2"}
    for form in ([], ["--json"], ["--env-example"]):
        result = run("settings", *form, env=secrets)
        assert result.exit_code == 0
        assert "hush" not in result.output
        for name in Settings.model_fields:
            assert name.upper() in result.output


def test_settings_as_json_carries_values_and_defaults(run):
    rows = {row["name"]: row for row in json.loads(run("settings", "--json", env={"PORT": "9000"}).output)}
    assert (rows["PORT"]["value"], rows["PORT"]["default"]) == ("9000", "8000")
    assert rows["MODEL_SOURCES"]["value"] == "samples:"


def test_settings_reads_the_env_file_of_the_working_folder(run, place):
    (place / ".env").write_text("PORT=9001\n")
    assert "PORT=9001   (default: 8000)" in run("settings").output


def test_the_printed_example_is_the_generated_one(run):
    assert run("settings", "--env-example").output == render_env_example()


# ---- samples


def test_samples_writes_the_chip_as_it_is_and_twice_is_once(run, tile):
    with rasterio.open(tile) as dataset:
        assert dataset.driver == "GTiff"
        assert dataset.descriptions == ("B02", "B03", "B04", "B08")
        np.testing.assert_array_equal(dataset.read(), chip())
    first = tile.read_bytes()
    assert run("samples", "samples").output == f"{tile}\n"
    assert tile.read_bytes() == first
    assert [path.name for path in tile.parent.iterdir()] == [tile.name]


def test_samples_into_a_folder_that_cannot_be_made_is_one_line(run, place):
    (place / "file").write_text("")
    result = run("samples", "file/below")
    assert result.exit_code == 1
    assert "file/below" in one_line(result)


# ---- models


def test_models_lists_the_samples_without_loading_any(run, place):
    result = run("models", "--json")
    names = {row["name"] for row in json.loads(result.output)}
    assert names == {"bright-targets", "landcover-share", "ndvi", "spectral-landcover"}
    assert {row["state"] for row in json.loads(result.output)} == {"known"}
    assert not (place / "cache").exists()
    table = run("models").output.splitlines()
    assert table[0].split() == ["MODEL", "VERSION", "SOURCE", "STATE"]
    assert {line.split()[0] for line in table[1:]} == names


def test_models_shows_a_card_as_served(run):
    card = json.loads(run("models", "ndvi", "--json").output)
    assert (card["name"], card["version"], card["state"]) == ("ndvi", "1", "ready")
    text = run("models", "ndvi").output
    assert "name: ndvi" in text
    assert "B04" in text


def test_an_unknown_model_or_version_is_one_line(run):
    for args in (["models", "ndvy"], ["models", "ndvi", "--version", "7"], ["models", "../etc"]):
        result = run(*args)
        assert result.exit_code == 1
        assert args[1].split("/")[-1] in one_line(result)


# ---- lint


def _item(run):
    run("models", "ndvi")
    (path,) = Path("cache").rglob("ndvi/item.json")
    return path, json.loads(path.read_text())


def test_lint_passes_an_item_of_ours(run):
    path, _ = _item(run)
    result = run("lint", path)
    assert result.exit_code == 0, result.output
    assert "error" not in result.output


def test_lint_names_every_problem_with_its_json_pointer(run):
    _, item = _item(run)
    item["properties"]["mlm:input"][0]["input"]["data_type"] = "float31"
    item["properties"]["mlm:input"][0]["value_scaling"] = [{"type": "wavelet"}]
    Path("broken.json").write_text(json.dumps(item))
    result = run("lint", "broken.json", "--json")
    assert result.exit_code == 1
    errors = {
        each["pointer"]: each["message"] for each in json.loads(result.stdout) if each["severity"] == "error"
    }
    assert any(pointer.startswith("/properties/mlm:input/0/input/data_type") for pointer in errors)
    assert any(pointer.startswith("/properties/mlm:input/0/value_scaling") for pointer in errors)
    assert f"{len(errors)} problems" in one_line(result)
    plain = run("lint", "broken.json")
    assert all(pointer in plain.stdout for pointer in errors)


def test_lint_of_what_is_no_item_says_where_it_breaks(run):
    Path("cut.json").write_text('{"type": "Feature",\n "id": ')
    result = run("lint", "cut.json")
    assert result.exit_code == 1
    assert "line 2" in result.stdout
    assert run("lint", "-", input="[]").exit_code == 1


def test_what_an_item_says_cannot_steer_the_terminal_or_begin_a_line(run, place):
    folder = place / "models" / "evil"
    folder.mkdir(parents=True)
    forged = "model\n\x1b[2Jerror    /  forged"
    asset = {"href": "../m.onnx", "roles": ["mlm:model"]}
    assets = {"": asset, forged: asset}
    (folder / "item.json").write_text(json.dumps({"type": "Feature", "properties": {}, "assets": assets}))
    linted = run("lint", folder / "item.json")
    (told,) = [line for line in linted.stdout.splitlines() if "forged" in line]
    assert told.startswith("error    /assets  several assets")
    refused = run("models", "evil", env={"MODEL_SOURCES": str(place / "models")})
    assert "forged" in one_line(refused)
    assert "\x1b" not in linted.output + refused.output


def test_lint_reads_the_profile_with_the_item(run):
    path, _ = _item(run)
    Path("typo.toml").write_text("sauce = 'x'\n")
    result = run("lint", path, "--profile", "typo.toml")
    assert result.exit_code == 1
    assert "profile:/sauce" in result.stdout
    assert "did you mean 'source'" in result.stdout


# ---- predict


def test_predict_ndvi_equals_numpy_on_every_pixel(run, tile):
    result = run("predict", "ndvi", tile, "-o", "ndvi.tif")
    assert result.exit_code == 0, result.output
    with rasterio.open("ndvi.tif") as dataset:
        values = dataset.read(1)
    assert values.shape == (300, 300)
    np.testing.assert_allclose(values, expected_ndvi(), rtol=0, atol=1e-6)


def test_predict_takes_bands_in_another_order_by_name_and_by_option(run, tile):
    shuffled = chip()[[3, 0, 2, 1]]
    np.save("shuffled.npy", shuffled)
    result = run("predict", "ndvi", "shuffled.npy", "--bands", "B08,B02,B04,B03", "-o", "ndvi.npy")
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(np.load("ndvi.npy").reshape(300, 300), expected_ndvi(), rtol=0, atol=1e-6)


def test_predict_prints_json_and_nothing_else(run, tile):
    result = run("predict", "landcover-share", tile)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    answer = json.loads(result.stdout)
    assert answer["model"] == "landcover-share"


def test_the_suffix_chooses_the_format(run, tile):
    begins = {
        "a.tif": b"II*\0",
        "a.png": b"\x89PNG",
        "a.npy": b"\x93NUMPY",
        "a.json": b"{",
        "a.geojson": b"{",
    }
    for name, magic in begins.items():
        result = run("predict", "spectral-landcover", tile, "-o", f"out/{name}")
        assert result.exit_code == 0, result.output
        assert Path("out", name).read_bytes().startswith(magic)
    assert {path.name for path in Path("out").iterdir()} == set(begins)


def test_a_format_that_a_model_cannot_answer_in_names_those_it_can(run, tile):
    result = run("predict", "landcover-share", tile, "-o", "share.tif")
    assert result.exit_code == 1
    assert "json" in one_line(result)
    assert not Path("share.tif").exists()


def test_a_suffix_that_means_nothing_is_wrong_usage(run, tile):
    assert run("predict", "ndvi", tile, "-o", "ndvi.bmp").exit_code == 2
    assert run("predict", "ndvi", tile, "-o", "ndvi.bmp", "--format", "tiff").exit_code == 0


@pytest.mark.parametrize(
    ("option", "value"), [("--output", "colours"), ("--threshold", "nan"), ("--bands", "B04,B04"), ("--scaling", "cube:3")]
)  # fmt: skip
def test_an_illegal_option_is_refused_in_the_words_of_the_http_service(run, tile, option, value):
    result = run("predict", "ndvi", tile, option, value)
    assert result.exit_code == 1
    assert option[2:] in one_line(result)
    assert value in one_line(result) or "B04" in one_line(result)


def test_several_files_go_to_a_folder_and_a_bad_one_does_not_stop_the_others(run, tile):
    for name in ("one", "two", "three"):
        Path(f"{name}.tif").write_bytes(tile.read_bytes())
    Path("bad.tif").write_text("no image")
    result = run("predict", "ndvi", "one.tif", "bad.tif", "two.tif", "three.tif", "-o", "out/")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0].startswith("bad.tif: ")
    assert lines[1:] == ["Error: 1 of 4 files failed"]
    assert sorted(path.name for path in Path("out").iterdir()) == ["one.tif", "three.tif", "two.tif"]
    for path in Path("out").iterdir():
        with rasterio.open(path) as dataset:
            np.testing.assert_allclose(dataset.read(1), expected_ndvi(), rtol=0, atol=1e-6)


def test_several_answers_on_stdout_are_lines_of_json_in_the_order_of_the_files(run, tile):
    dark = np.zeros((4, 300, 300), np.uint16) + 100
    np.save("dark.npy", dark)
    np.save("chip.npy", chip())
    result = run("predict", "landcover-share", "dark.npy", "chip.npy", "--bands", "B02,B03,B04,B08")
    assert result.exit_code == 0, result.output
    dark_answer, chip_answer = [json.loads(line)["prediction"] for line in result.stdout.splitlines()]
    alone = json.loads(run("predict", "landcover-share", tile).stdout)["prediction"]
    assert chip_answer == alone
    assert dark_answer != alone


def test_files_of_one_name_are_not_written_over_each_other(run, tile):
    Path("a").mkdir()
    Path("a/sample.tif").write_bytes(tile.read_bytes())
    result = run("predict", "ndvi", tile, "a/sample.tif", "-o", "out/")
    assert result.exit_code == 2
    assert "sample" in result.stderr


def test_an_answer_never_replaces_an_image(run, tile):
    before = tile.read_bytes()
    for out in ("samples/", "samples", tile, "samples/../samples/sample.tif"):
        result = run("predict", "ndvi", tile, "-o", out)
        assert result.exit_code == 1
        assert "would replace the image" in one_line(result)
    assert tile.read_bytes() == before


def test_several_files_and_the_name_of_one_are_wrong_usage(run, tile):
    Path("two.tif").write_bytes(tile.read_bytes())
    assert run("predict", "ndvi", tile, "two.tif", "-o", "ndvi.tif").exit_code == 2
    assert run("predict", "ndvi", tile, "two.tif", "--format", "tiff").exit_code == 2


def test_a_device_is_written_to_and_not_replaced(run, tile):
    assert run("predict", "ndvi", tile, "-o", "/dev/null", "--format", "tiff").exit_code == 0
    assert not Path("/dev/null").is_file()


# ---- real processes


@contextmanager
def served(*args, **environment):
    """A service in its own process: its URL, the rest of its greeting and the process."""
    with subprocess.Popen(
        [*COMMAND, "serve", *args],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            first = process.stdout.readline()
            url = re.search(r"http://\S+", first)
            assert url, (
                f"no address in {first!r}; {process.stderr.read() if process.poll() is not None else ''}"
            )
            yield url[0], process
        finally:
            process.kill()


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        return answer.status, answer.read()


def test_serve_answers_and_sigterm_ends_it_with_zero(place):
    with served("--port", "0") as (url, process):
        assert get(f"{url}/health/live")[0] == 200
        assert get(f"{url}/health/ready")[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert "Traceback" not in process.stderr.read()


def test_ctrl_c_ends_serve_with_130_and_no_stack_trace(place):
    with served("--port", "0") as (url, process):
        assert get(f"{url}/health/live")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert "Traceback" not in process.stderr.read()


@needs_curl
def test_the_greeting_holds_a_curl_line_that_works_as_pasted(place, run, tile):
    with served("--port", "0") as (_, process):
        assert process.stdout.readline() == "Try it:\n"
        line = process.stdout.readline().strip()
        assert line.startswith("curl ")
        answer = subprocess.run(
            line.replace("curl", "curl -sf", 1), shell=True, capture_output=True, check=True
        )
        assert json.loads(answer.stdout)["model"] == "landcover-share"


@needs_curl
def test_the_pasted_line_sends_the_key_where_one_is_needed(place, run, tile):
    """And goes to the service itself, not to the path under which a proxy publishes it."""
    with served("--port", "0", API_KEY="s3cret", ROOT_PATH="/behind/a/proxy") as (_, process):
        process.stdout.readline()
        line = process.stdout.readline().strip()
        assert "s3cret" not in line
        shell = subprocess.run(
            line.replace("curl", "curl -sf", 1),
            shell=True,
            capture_output=True,
            check=True,
            env={**os.environ, "API_KEY": "s3cret"},
        )
        assert json.loads(shell.stdout)["model"] == "landcover-share"


def comparable(value):
    """A JSON value with numbers to five places, and without what names one request."""
    if isinstance(value, dict):
        return {name: comparable(inner) for name, inner in value.items() if name != "instance"}
    if isinstance(value, list):
        return [comparable(each) for each in value]
    return round(value, 5) if isinstance(value, float) else value


@needs_curl
def test_the_quickstart_runs_as_written_and_answers_what_it_shows(place, tile):
    """Every `curl` and `ml-inference` line of the page; each JSON block is the answer to the line before it."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "quickstart.md").read_text()
    shell = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    answer, compared = b"", 0
    with served("--port", "0") as (url, _):
        for kind, block in re.findall(r"(?ms)^```(json)?\n(.*?)^```$", page):
            if kind == "json":
                assert comparable(json.loads(answer)) == comparable(json.loads(block))
                compared += 1
                continue
            for line in block.splitlines():
                if line.startswith(("curl ", "ml-inference ")):
                    command = line.replace("http://127.0.0.1:8000", url)
                    answer = subprocess.run(
                        command, shell=True, capture_output=True, env=shell, check=True
                    ).stdout
    assert compared == 2
    assert all(Path(name).is_file() for name in re.findall(r"-o (\S+\.\w+)", page))


def test_a_port_in_use_is_one_line(place, run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--port", port)
    assert result.exit_code == 1
    assert one_line(result).startswith(f"port {port} of 127.0.0.1 is in use")


def test_a_host_that_is_not_here_is_one_line(run):
    result = run("serve", "--host", "192.0.2.1", "--port", "0")  # TEST-NET-1, RFC 5737: nobody's address
    assert result.exit_code == 1
    assert "HOST='192.0.2.1'" in one_line(result)


def test_sigterm_waits_for_the_request_under_way(place):
    """A body that comes in two halves, with SIGTERM between them, is still answered."""
    content = np.lib.format.magic(1, 0)
    rows = chip()[:, :64, :64]
    path = place / "rows.npy"
    np.save(path, rows)
    content = path.read_bytes()
    with served("--port", "0") as (url, process):
        port = int(url.rsplit(":", 1)[1])
        get(f"{url}/models/landcover-share")
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            head = (
                "POST /landcover-share?bands=B02,B03,B04,B08 HTTP/1.1\r\nHost: x\r\n"
                f"Content-Type: application/x-npy\r\nContent-Length: {len(content)}\r\n\r\n"
            )
            client.sendall(head.encode() + content[:1000])
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            client.sendall(content[1000:])
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200"), answer[:300]
        assert process.wait(30) == 0


def test_the_package_runs_as_a_module_and_pipes_bytes(place, run, tile):
    done = subprocess.run(
        [*COMMAND, "predict", "ndvi", str(tile), "-o", "-", "--format", "npy"],
        capture_output=True,
        check=True,
    )
    assert done.stdout.startswith(b"\x93NUMPY")
    assert done.stderr == b""


def test_with_json_logs_every_line_is_json(place):
    """Also the warning about a name that is nearly a setting, which comes before the settings are known."""
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", "0"],
        env={**os.environ, "LOG_FORMAT": "json", "BATCHSIZE": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert "did you mean BATCH_SIZE?" in json.loads(process.stderr.readline())["event"]
            line = json.loads(process.stderr.readline())
            assert line["event"] == "listening"
            assert get(f"{line['url']}/ndvi")[0] == 200
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert out == ""
    assert {json.loads(each)["level"] for each in err.splitlines()} <= {"info", "debug"}


def test_ctrl_c_while_a_hub_keeps_silent_is_130_and_no_stack_trace(place):
    """The hub takes the call and never answers: the command ends when that call is given up, at the latest."""
    with socket.create_server(("127.0.0.1", 0)) as hub:
        address = f"http://127.0.0.1:{hub.getsockname()[1]}/"
        environment = {**os.environ, "MODEL_SOURCES": "eotdl:", "EOTDL_API_URL": address}
        with subprocess.Popen(
            [*COMMAND, "models", "Anything"], env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            hub.settimeout(30)
            with hub.accept()[0]:
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=40)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_reader_that_leaves_early_sees_no_stack_trace(place):
    with subprocess.Popen([*COMMAND, "settings"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1

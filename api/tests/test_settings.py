"""Settings: what is read, what is refused and in which words, and that secrets and documents are kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from ml_inference.errors import ConfigurationInvalid
from ml_inference.settings import MASK, SECRETS, Settings, about, describe, load_settings, render_env_example

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name.upper() for name in Settings.model_fields]

LEGAL = [
    ("MODEL_SOURCES", " samples: , /srv/models ,", ("samples:", "/srv/models")),
    ("MODEL_SOURCES", "file:///mnt/models#roads", ("file:///mnt/models#roads",)),
    ("MODELS", "ndvi,spectral-landcover", ("ndvi", "spectral-landcover")),
    ("EOTDL_API_URL", "http://127.0.0.1:9000", "http://127.0.0.1:9000/"),
    ("EOTDL_DOWNLOAD_PATH", "~/models", Path.home() / "models"),
    ("EOTDL_CACHE_PATH", "/mnt/shared", Path("/mnt/shared")),
    ("EOTDL_ALLOWED_HOSTS", "minio.internal, 10.0.0.7:9000,[fd00::1]:9000", ("minio.internal", "10.0.0.7:9000", "[fd00::1]:9000")),
    ("DEVICE", "CUDA:1", "cuda:1"),
    ("BATCH_SIZE", "auto", "auto"),
    ("BATCH_SIZE", "1", 1),
    ("BATCH_TIMEOUT", "0", 0.0),
    ("BATCH_TIMEOUT", "10", 10.0),
    ("BATCH_POLICY", "Fixed", "fixed"),
    ("QUEUE_SIZE", "1", 1),
    ("QUEUE_BYTES", "256MiB", 268_435_456),
    ("QUEUE_BYTES", "1.5GiB".replace("1.5", "3"), 3_221_225_472),
    ("MAX_BODY_BYTES", "50 MB", 50_000_000),
    ("MAX_BODY_BYTES", "2048", 2048),
    ("REQUEST_TIMEOUT", "2.5", 2.5),
    ("MAX_PIXELS", "120560400", 120_560_400),
    ("CORS_ORIGINS", "*", ("*",)),
    ("CORS_ORIGINS", "https://a.example,http://localhost:3000", ("https://a.example", "http://localhost:3000")),
    ("HOST", "::1", "::1"),
    ("PORT", "0", 0),
    ("GRPC_PORT", "0", 0),
    ("GRPC_PORT", "OFF", "off"),
    ("ROOT_PATH", "/a/b", "/a/b"),
    ("SHUTDOWN_GRACE", "1", 1),
    ("METRICS", "off", False),
    ("METRICS_COMPAT", "Triton", "triton"),
    ("LOG_FORMAT", "JSON", "json"),
    ("LOG_LEVEL", "WARNING", "warning"),
]  # fmt: skip

ILLEGAL = [
    ("MODEL_SOURCES", ","),
    ("METRICS_COMPAT", "torchserve"),
    ("MODELS", "../etc"),
    ("MODELS", "9lives"),
    ("MODELS", "a" * 129),
    ("EOTDL_API_KEY", "two words"),
    ("EOTDL_API_URL", "api.eotdl.com"),
    ("EOTDL_API_URL", "ftp://api.eotdl.com/"),
    ("EOTDL_API_URL", "https:///models"),
    ("EOTDL_API_URL", "https://host:port/"),
    ("EOTDL_API_URL", "https://host/?a=b"),
    ("EOTDL_ALLOWED_HOSTS", "https://minio.internal"),
    ("EOTDL_ALLOWED_HOSTS", "10.0.0.0/8"),
    ("DEVICE", "gpu"),
    ("DEVICE", "cuda:"),
    ("BATCH_SIZE", "0"),
    ("BATCH_SIZE", "4097"),
    ("BATCH_SIZE", "8.5"),
    ("BATCH_SIZE", "large"),
    ("BATCH_TIMEOUT", "-0.001"),
    ("BATCH_TIMEOUT", "10.1"),
    ("BATCH_TIMEOUT", "nan"),
    ("BATCH_TIMEOUT", "5ms"),
    ("BATCH_POLICY", "greedy"),
    ("QUEUE_SIZE", "0"),
    ("QUEUE_SIZE", "unlimited"),
    ("QUEUE_BYTES", "1.5GiB"),
    ("QUEUE_BYTES", "1023"),
    ("QUEUE_BYTES", "-1"),
    ("MAX_BODY_BYTES", "0"),
    ("MAX_BODY_BYTES", "5GiB"),
    ("REQUEST_TIMEOUT", "0"),
    ("REQUEST_TIMEOUT", "inf"),
    ("MAX_PIXELS", "0"),
    ("MAX_PIXELS", "2147483648"),
    ("API_KEY", "schlüssel"),
    ("API_KEY", "line\nbreak"),
    ("CORS_ORIGINS", "maps.example.org"),
    ("CORS_ORIGINS", "https://maps.example.org/page"),
    ("HOST", "http://127.0.0.1"),
    ("PORT", "65536"),
    ("PORT", "http"),
    ("GRPC_PORT", "65536"),
    ("GRPC_PORT", "-1"),
    ("GRPC_PORT", "on"),
    ("ROOT_PATH", "inference"),
    ("ROOT_PATH", "/a b"),
    ("SHUTDOWN_GRACE", "0"),
    ("SHUTDOWN_GRACE", "0.5"),
    ("METRICS", "maybe"),
    ("LOG_FORMAT", "xml"),
    ("LOG_LEVEL", "loud"),
]


@pytest.mark.parametrize(("name", "text", "value"), LEGAL)
def test_a_legal_value_is_read(name, text, value):
    settings = load_settings({name: text}, env_file=None)
    assert getattr(settings, name.lower()) == value
    changed = {
        field for field in Settings.model_fields if getattr(settings, field) != getattr(Settings(), field)
    }
    assert changed <= {name.lower()}


@pytest.mark.parametrize(("name", "text"), ILLEGAL)
def test_an_illegal_value_gives_one_line_with_variable_value_and_what_is_legal(name, text):
    with pytest.raises(ConfigurationInvalid) as caught:
        load_settings({name: text}, env_file=None)
    line = str(caught.value)
    assert line.startswith(f"{name}=")
    assert line.endswith(f"expected {about(name.lower()).legal}")
    assert "\n" not in line
    shown = text if len(text) <= 80 else text[:70]
    assert (MASK if name.lower() in SECRETS else shown) in line
    assert name.lower() not in SECRETS or text not in line
    assert caught.value.__cause__ is None


def test_every_setting_is_in_the_matrix_of_illegal_values():
    free = {"EOTDL_DOWNLOAD_PATH", "EOTDL_CACHE_PATH"}  # any text is a path
    assert {name for name, _ in ILLEGAL} == set(NAMES) - free


def test_all_wrong_variables_are_named_at_once():
    with pytest.raises(ConfigurationInvalid, match=r"^BATCH_SIZE='0' is .*; PORT='-1' is .*65535$"):
        load_settings({"PORT": "-1", "BATCH_SIZE": "0"}, env_file=None)


def test_a_password_in_a_wrong_address_is_masked():
    with pytest.raises(ConfigurationInvalid) as caught:
        load_settings({"EOTDL_API_URL": "https://me:hunter2@hub.example/"}, env_file=None)
    assert "hunter2" not in str(caught.value)
    assert "hub.example" in str(caught.value)


def test_overrides_win_over_the_environment_over_the_file_over_the_default(tmp_path):
    file = tmp_path / ".env"
    file.write_text("PORT=1001\nHOST=10.0.0.1\nLOG_LEVEL=error\n")
    settings = load_settings({"PORT": "1002", "HOST": "10.0.0.2"}, file, port="1003", host=None)
    assert (settings.port, settings.host, settings.log_level) == (1003, "10.0.0.2", "error")
    assert settings.log_format == "text"


def test_a_variable_set_to_nothing_is_not_set(tmp_path):
    file = tmp_path / ".env"
    file.write_text("PORT=\nAPI_KEY\nHOST=   \n")
    assert load_settings({"API_KEY": "", "BATCH_SIZE": " "}, file) == Settings()


def test_an_empty_variable_does_not_hide_the_file(tmp_path):
    # docker compose passes `PORT=` for a variable its host does not have
    file = tmp_path / ".env"
    file.write_text("PORT=1001\n")
    assert load_settings({"PORT": ""}, file).port == 1001


def test_names_are_case_insensitive_and_upper_case_wins():
    assert load_settings({"port": "1001"}, env_file=None).port == 1001
    assert load_settings({"PORT": "1002", "port": "1001"}, env_file=None).port == 1002
    assert load_settings({"port": "1001", "PORT": "1002"}, env_file=None).port == 1002


def test_an_env_file_is_taken_as_written(tmp_path):
    file = tmp_path / ".env"
    file.write_bytes("\ufeffAPI_KEY='a${HOME}#b'\n# PORT=1\nexport HOST=\"10.0.0.1\" # ours\n".encode())
    settings = load_settings({}, file)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "a${HOME}#b"
    assert (settings.host, settings.port) == ("10.0.0.1", 8000)


def test_an_env_file_that_is_no_text_is_refused_in_one_line(tmp_path):
    file = tmp_path / ".env"
    file.write_bytes(b"PORT=1\xff\xfe\x00")
    with pytest.raises(ConfigurationInvalid, match=r"^\.env cannot be read as UTF-8 text") as caught:
        load_settings({}, file)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("BATCHSIZE", "BATCH_SIZE"), ("MODEL_SOURCE", "MODEL_SOURCES"), ("loglevel", "LOG_LEVEL")],
)
def test_a_slip_is_warned_of_without_its_value(name, meant, tmp_path, caplog):
    file = tmp_path / ".env"
    file.write_text(f"{name}=s3cret\n")
    assert load_settings({}, file) == Settings()
    (line,) = caplog.messages
    assert name in line
    assert f"did you mean {meant}?" in line
    assert "s3cret" not in line


def test_foreign_variables_are_ignored_in_silence(caplog):
    common = [
        "HOSTNAME",
        "SHELL",
        "PATH",
        "HOME",
        "LANG",
        "TERM",
        "USER",
        "DISPLAY",
        "PYTHONPATH",
        "CUDA_VISIBLE_DEVICES",
    ]
    ours_elsewhere = [
        "EOTDL_STAGE_WORKERS",
        "AWS_ACCESS_KEY_ID",
        "POSTGRES_HOST",
        "REDIS_PORT",
        "API_SERVICE_PORT",
    ]
    assert load_settings(dict.fromkeys(common + ours_elsewhere, "x"), env_file=None) == Settings()
    assert not caplog.messages


def test_settings_cannot_change_and_know_no_other_name():
    with pytest.raises(ValidationError):
        Settings().port = 1
    with pytest.raises(ValidationError):
        Settings(prot=1)


def test_secrets_appear_nowhere():
    settings = load_settings({"API_KEY": "hush-1", "EOTDL_API_KEY": "hush-2"}, env_file=None)
    everywhere = (
        f"{settings} {settings!r} {describe(settings)} {settings.model_dump()} {settings.model_dump_json()}"
    )
    assert "hush" not in everywhere
    shown = {row.name: row.value for row in describe(settings)}
    assert shown["API_KEY"] == shown["EOTDL_API_KEY"] == MASK
    assert {row.name: row.value for row in describe(Settings())}["API_KEY"] == ""


def test_every_setting_says_what_it_is():
    for row in describe(Settings()):
        assert row.meaning.endswith("."), row.name
        assert row.legal, row.name


def test_what_is_shown_can_be_written_back(tmp_path):
    first = load_settings(
        {"QUEUE_BYTES": "3MiB", "MAX_BODY_BYTES": "5001", "MODELS": "a,b", "METRICS": "off"}, None
    )
    file = tmp_path / ".env"
    file.write_text("\n".join(f"{row.name}={row.value}" for row in describe(first)))
    assert load_settings({}, file) == first


def test_the_example_file_is_current():
    """Mend it with: ml-inference settings --env-example > .env.example."""
    assert (ROOT / ".env.example").read_text() == render_env_example()


def test_the_example_file_uncommented_is_the_defaults(tmp_path):
    file = tmp_path / ".env"
    file.write_text(re.sub(r"(?m)^#(?=[A-Z_]+=)", "", render_env_example()))
    assert re.findall(r"(?m)^([A-Z_]+)=", file.read_text()) == NAMES
    assert load_settings({}, file) == Settings()


def test_the_documentation_lists_every_setting_as_it_is():
    page = (ROOT / "docs" / "configuration.md").read_text()
    rows = re.findall(r"(?m)^\| `([A-Z_]+)` \| (.*?) \| (.*?) \| (.*?) \|$", page)
    none = "\N{EN DASH}"
    assert rows == [
        (row.name, f"`{row.default}`" if row.default else none, row.meaning, row.legal)
        for row in describe(Settings())
    ]


def test_importing_the_settings_reads_nothing_and_imports_no_sibling_but_the_errors():
    code = (
        "import sys, ml_inference.settings as s; s.Settings();"
        "print(sorted(m for m in sys.modules if m.startswith('ml_inference.')))"
    )
    environment = {**os.environ, "PORT": "not a port"}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert (
        out.stdout.strip()
        == "['ml_inference.errors', 'ml_inference.settings', 'ml_inference.settings.values']"
    )

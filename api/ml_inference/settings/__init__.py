"""Every setting, each with its meaning, its default and what is legal; the only reader of the environment.

`.env.example`, docs/configuration.md, `ml-inference settings` and the line that stops a bad start all come from here.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from ml_inference.errors import ConfigurationInvalid
from ml_inference.settings.values import About, ByteCount, Folder, Names, Secret, Url, lowered, sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

MASK = "********"
SECRETS = ("api_key", "eotdl_api_key")
LIKENESS = 0.88
"""From here on (`difflib` ratio) a foreign variable's name is taken for a slip: BATCHSIZE yes, HOSTNAME no."""

_HOST = r"^([A-Za-z0-9_.\-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?$"
_MODEL = r"^[A-Za-z][A-Za-z0-9._\-]{0,127}$"
_USERINFO = re.compile(r"//[^/@\s]*@")

_MODELS, _BATCHES, _BOUNDS = "Models", "Batches and devices", "Bounds"
_ACCESS, _SERVER, _WATCH = "Access", "Server", "Watching it"
_KEY = "printable ASCII without spaces"


class Settings(BaseModel):
    """The settings, checked. `Settings()` is the defaults; only `load_settings` looks at the environment."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    model_sources: Annotated[
        Names[str],
        Field(min_length=1),
        About(
            _MODELS,
            "Where models come from, in order; the first source that knows a name serves it.",
            "a comma-separated list of `samples:`, `eotdl:`, `/a/folder` or `file:///a/folder`; with `#NAME` after it, a "
            "folder is the one model NAME",
        ),
    ] = ("samples:", "eotdl:")
    models: Annotated[
        Names[Annotated[str, Field(pattern=_MODEL)]],
        About(
            _MODELS,
            "Models to load before the service says it is ready; the others load when they are first asked for.",
            "a comma-separated list of model names",
        ),
    ] = ()
    eotdl_api_key: Annotated[
        Secret | None,
        About(
            _MODELS, "Key for EOTDL (its users find it in their profile); sent to EOTDL_API_URL alone.", _KEY
        ),
    ] = None
    eotdl_api_url: Annotated[
        Url,
        About(
            _MODELS, "Where EOTDL answers.", "an http or https address, without user name, query or fragment"
        ),
    ] = "https://api.eotdl.com/"
    eotdl_download_path: Annotated[
        Folder,
        About(_MODELS, "Folder for downloaded models; a fast disk that outlives the process.", "a folder"),
    ] = Path("~/.cache/eotdl/models")
    eotdl_cache_path: Annotated[
        Folder | None,
        About(
            _MODELS, "Folder of models shared between machines, as EOTDL lays it out; only read.", "a folder"
        ),
    ] = None
    eotdl_allowed_hosts: Annotated[
        Names[Annotated[str, Field(pattern=_HOST)]],
        About(
            _MODELS,
            "Hosts that EOTDL may send downloads to although they are private, plain http or reached by a redirect.",
            "a comma-separated list of `host` or `host:port`",
        ),
    ] = ()

    device: Annotated[
        str,
        BeforeValidator(lowered),
        Field(pattern=r"^(auto|cpu|cuda(:\d{1,2})?)$"),
        About(
            _BATCHES,
            "What models run on; `auto` takes a GPU where there is one. `cuda` without one refuses to start.",
            "`auto`, `cpu`, `cuda` or `cuda:N`",
        ),
    ] = "auto"
    batch_size: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1, le=4096)],
        BeforeValidator(lowered),
        About(
            _BATCHES,
            "Most rows in a batch; `1` runs one after the other, `auto` is chosen when a model loads and never above "
            "what its card suggests.",
            "`auto` or a whole number from 1 to 4096",
        ),
    ] = "auto"
    batch_timeout: Annotated[
        float,
        Field(ge=0, le=10),
        About(_BATCHES, "Seconds that an incomplete batch may wait for company.", "seconds from 0 to 10"),
    ] = 0.005
    batch_policy: Annotated[
        Literal["adaptive", "fixed"],
        BeforeValidator(lowered),
        About(
            _BATCHES,
            "`adaptive` never waits while the model is idle for nothing; `fixed` fills the batch or times out.",
            "`adaptive` or `fixed`",
        ),
    ] = "adaptive"

    queue_size: Annotated[
        int,
        Field(ge=1, le=100_000),
        About(
            _BOUNDS,
            "Requests that may wait for a model; the next one gets 503 at once.",
            "a whole number from 1 to 100000",
        ),
    ] = 256
    queue_bytes: Annotated[
        ByteCount,
        Field(ge=2**20, le=2**40),
        About(_BOUNDS, "Bytes of prepared tensors that may wait for a model.", sizes("1MiB", "1024GiB")),
    ] = 256 * 2**20
    request_timeout: Annotated[
        float,
        Field(ge=0.01, le=3600),
        About(
            _BOUNDS, "Seconds after which a request without an answer gets 504.", "seconds from 0.01 to 3600"
        ),
    ] = 30.0
    max_body_bytes: Annotated[
        ByteCount,
        Field(ge=1024, le=2**32),
        About(_BOUNDS, "Largest body of a request; more gets 413.", sizes("1024", "4GiB")),
    ] = 64 * 2**20
    max_pixels: Annotated[
        int,
        Field(ge=1, le=2**31 - 1),
        About(
            _BOUNDS,
            "Most pixels of an image (width times height), judged before it is decoded; more gets 413.",
            "a whole number from 1 to 2147483647",
        ),
    ] = 4096 * 4096

    api_key: Annotated[
        Secret | None,
        About(
            _ACCESS, "Key that clients must send; without it everyone who can reach the port may ask.", _KEY
        ),
    ] = None
    cors_origins: Annotated[
        Names[Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]],
        About(
            _ACCESS,
            "Web pages that may call the service from a browser.",
            "`*`, or a comma-separated list of origins such as https://maps.example.org",
        ),
    ] = ()

    host: Annotated[
        str,
        Field(pattern=r"^[\w.:%\-]+$"),
        About(_SERVER, "Address to listen on; `0.0.0.0` is every one.", "a host name or an IP address"),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Field(ge=0, le=65535),
        About(_SERVER, "Port to listen on; `0` takes any free one.", "a whole number from 0 to 65535"),
    ] = 8000
    grpc_port: Annotated[
        Literal["off"] | Annotated[int, Field(ge=0, le=65535)],
        BeforeValidator(lowered),
        About(
            _SERVER,
            "Port for gRPC, at the same address; `0` takes any free one.",
            "`off` or a whole number from 0 to 65535",
        ),
    ] = 8001
    root_path: Annotated[
        str,
        Field(pattern=r"^(/[\w.~%\-]+)*$"),
        About(
            _SERVER, "Path under which a proxy publishes the service.", "empty, or a path such as /inference"
        ),
    ] = ""
    shutdown_grace: Annotated[
        int,
        Field(ge=1, le=3600),
        About(
            _SERVER,
            "Seconds that requests under way get to finish after SIGTERM; keep it below the grace of your orchestrator.",
            "whole seconds from 1 to 3600",
        ),
    ] = 25

    metrics: Annotated[bool, About(_WATCH, "Whether `GET /metrics` answers.", "`on` or `off`")] = True
    metrics_compat: Annotated[
        Literal["", "triton"],
        BeforeValidator(lowered),
        About(
            _WATCH,
            "Adds the names that another server gives to the same metrics, for dashboards that know those.",
            "empty or `triton`",
        ),
    ] = ""
    log_format: Annotated[
        Literal["text", "json"],
        BeforeValidator(lowered),
        About(_WATCH, "How log lines look: for people, or one JSON object each.", "`text` or `json`"),
    ] = "text"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(lowered),
        About(_WATCH, "From which level on lines are written.", "`debug`, `info`, `warning` or `error`"),
    ] = "info"


def load_settings(
    environ: Mapping[str, str] | None = None, env_file: str | Path | None = ".env", **overrides: str | None
) -> Settings:
    """Read the settings: overrides (by field name, None is none) over environment over `env_file` over defaults.

    A variable that is empty is not set. Names are case-insensitive. A name that is nearly one of ours is logged
    as a warning; other foreign names are ignored, since a `.env` may be shared.

    Raises:
        ConfigurationInvalid: one line with every wrong variable, its value (secrets masked) and what is legal.
    """
    given = os.environ if environ is None else environ
    written = _read_env_file(Path(env_file)) if env_file is not None else {}
    _warn_of_slips(given, "the environment")
    _warn_of_slips(written, str(env_file))
    chosen = {name: value for name, value in overrides.items() if value is not None}
    values = {**_ours(written), **_ours(given), **chosen}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        wrong = dict.fromkeys(str(each["loc"][0]) for each in error.errors())
        raise ConfigurationInvalid("; ".join(_complaint(name, values[name]) for name in wrong)) from None


def _read_env_file(path: Path) -> dict[str, str]:
    """Values exactly as written: no `${…}` is filled in, so that a key may hold any character."""
    try:
        found = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationInvalid(
            f"{path.name} cannot be read as UTF-8 text ({type(error).__name__})"
        ) from None
    return {name: value for name, value in found.items() if value is not None}


def _ours(variables: Mapping[str, str]) -> dict[str, str]:
    """Our variables by field name; where one is spelt in several cases the upper-case spelling counts."""
    ours: dict[str, str] = {}
    for name in sorted(variables, key=str.isupper):
        if name.lower() in Settings.model_fields and variables[name].strip():
            ours[name.lower()] = variables[name].strip()
    return ours


def _warn_of_slips(variables: Mapping[str, str], where: str) -> None:
    known = [name.upper() for name in Settings.model_fields]
    for name in variables:
        if name.upper() not in known:
            likely = difflib.get_close_matches(name.upper(), known, n=1, cutoff=LIKENESS)
            if likely:
                line = "%s in %s is not a setting and is ignored; did you mean %s?"
                logging.getLogger(__name__).warning(line, name, where, likely[0])


def _complaint(name: str, value: object) -> str:
    text = MASK if name in SECRETS else _USERINFO.sub(f"//{MASK}@", str(value))
    text = text if len(text) <= 80 else text[:77] + "…"  # noqa: PLR2004 - one terminal line
    return f"{name.upper()}={text!r} is not legal: expected {about(name).legal}"


def about(name: str) -> About:
    """What is written of the setting with this field name."""
    return next(each for each in Settings.model_fields[name].metadata if isinstance(each, About))


@dataclass(frozen=True)
class Row:
    """One setting as people see it; every value is text, as one would write it in `.env`."""

    name: str
    group: str
    default: str
    value: str
    meaning: str
    legal: str


def describe(settings: Settings) -> tuple[Row, ...]:
    """Every setting with its default and its value, secrets masked."""

    def row(name: str, field: FieldInfo) -> Row:
        told = about(name)
        default, value = _written(name, field.default), _written(name, getattr(settings, name))
        return Row(name.upper(), told.group, default, value, told.meaning, told.legal)

    return tuple(row(name, field) for name, field in Settings.model_fields.items())


def _written(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    if name.endswith("_bytes") and value % 2**20 == 0:
        return f"{value // 2**20}MiB"
    return f"{value:g}" if isinstance(value, float) else str(value)


def render_env_example() -> str:
    """The text of `.env.example`: every setting with its meaning, commented out at its default."""
    lines = [
        "# Every setting, at its default. Copy to .env and uncomment what you change; the environment wins."
    ]
    group = ""
    for row in describe(Settings()):
        if row.group != group:
            group = row.group
            lines += ["", f"# --- {group}"]
        lines += ["", f"# {row.meaning}", f"# Legal: {row.legal}.", f"#{row.name}={row.default}"]
    return "\n".join(lines) + "\n"

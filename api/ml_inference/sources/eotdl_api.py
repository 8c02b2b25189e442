"""EOTDL's API, through the classes of the published `eotdl` package.

The package knows the routes and how the key is sent. It sends by calling `requests.get`, which waits for ever and follows
any redirect with the key still in its headers. So its two modules are run here as instances of our own in which the
name `requests` means our way out; whoever else uses the package in this process has it untouched. Its login (which prints,
opens a browser and waits for a person) and its downloads are not used.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ml_inference.errors import (
    ConfigurationInvalid,
    Forbidden,
    ModelNotFound,
    ProcessorError,
    SourceFailed,
    Unauthorised,
)
from ml_inference.sources.base import SourceOptions, Unreachable
from ml_inference.sources.http import Leash, Outbound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from threading import Event

log = logging.getLogger(__name__)

_MAX_ANSWER = 4 << 20
_MODEL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TRIES = 3

# EOTDL answers 409 to nearly everything; what it means stands in its words.
_MEANINGS: tuple[tuple[re.Pattern[str], type[ProcessorError]], ...] = (
    (re.compile(r"not authenticated|invalid (api key|token)|unauthori[sz]ed", re.IGNORECASE), Unauthorised),
    (re.compile(r"forbidden|not allowed|permission|no access", re.IGNORECASE), Forbidden),
)
_ABSENT = re.compile(r"(doesn't|does not|do not) exist|not active|not found", re.IGNORECASE)
_STATUSES: Mapping[int, type[ProcessorError]] = {401: Unauthorised, 403: Forbidden}
_BUSY = 429
_SERVER_SIDE = 500
_OK = 200
_NO_ROUTE = "Not Found"


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model as the hub lists it; versions count from 1."""

    id: str
    versions: tuple[int, ...]


class EotdlApi:
    """Asks EOTDL where things are; each try ends within `options.api_seconds`, and once `stop` is set there is no next one.

    Raises, from each method: `SourceFailed` (`Unreachable` where it did not answer), `Unauthorised`, `Forbidden`.
    """

    def __init__(self, web: Outbound, options: SourceOptions, stop: Event) -> None:
        self._options = options
        self._stop = stop
        self._user = {"api_key": options.eotdl_key} if options.eotdl_key else None
        self._models, self._files = _repositories(_Requests(web, options.api_seconds), options.eotdl_url)
        self._away_until = 0.0

    def find(self, name: str, *, patient: bool = True) -> HubModel:
        """Look a model up by its exact name; `patient` tries again where the hub does not answer.

        Raises:
            ModelNotFound: the hub does not list it.
        """
        found = self._call(lambda: self._models.retrieve_model(quote(name, safe=""))[0], patient=patient)
        try:
            if found["name"] != name:
                raise ModelNotFound(f"EOTDL has no model that is called exactly `{name}`")
            return HubModel(_model_id(found["id"]), _versions(found["versions"]))
        except (KeyError, TypeError, ValueError) as error:
            raise SourceFailed("EOTDL described the model in a form this service does not know") from error

    def presign(self, model_id: str, file: str, endpoint: str = "models") -> str:
        """Ask for a link to one file of a model; it may be over in minutes or days."""
        if self._user is None:
            raise Unauthorised("EOTDL gives files only to those with an API key: set EOTDL_API_KEY")
        where = quote(file, safe="/")
        link = self._call(
            lambda: self._files.generate_presigned_url(where, _model_id(model_id), self._user, endpoint)
        )
        if not isinstance(link, str):
            raise SourceFailed("EOTDL answered without a link")
        return link

    def _call(self, ask: Callable[[], Any], *, patient: bool = True) -> Any:
        """Ask; again where that may help. After a long silence nobody asks for a while, so that nobody waits for nothing."""
        begin = time.monotonic()
        if begin < self._away_until:
            raise Unreachable("EOTDL did not answer a moment ago")
        for left in reversed(range(_TRIES if patient else 1)):
            try:
                return ask()
            except Unreachable as error:
                if not left or self._stop.wait(self._options.backoff_seconds):
                    self._note_silence(begin)
                    raise
                log.info("EOTDL: %s; asking again", error)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise SourceFailed("EOTDL answered in a form its own client does not know") from error
        raise AssertionError  # the loop returns or raises

    def _note_silence(self, begin: float) -> None:
        now = time.monotonic()
        if now - begin >= self._options.api_seconds / 2:
            self._away_until = now + self._options.away_seconds


class _Answer:
    """What the package sees of an answer, as `requests` would show it."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status_code = status
        self._body = body

    def json(self) -> Any:
        return json.loads(self._body)


class _Requests:
    """What the package sees as the module `requests`."""

    def __init__(self, web: Outbound, seconds: float) -> None:
        self._web = web
        self._seconds = seconds

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> _Answer:
        """Ask for `url`; headers of the package all carry credentials, so all are kept for the API's own origin."""
        with self._web.get(url, Leash(self._seconds), {"Accept": "application/json"}, headers) as reply:
            return _Answer(reply.status, reply.read(_MAX_ANSWER))


def _repositories(transport: _Requests, url: str) -> tuple[Any, Any]:
    """Give the package's models and files classes, talking through `transport` and raising our errors."""
    url = url if url.endswith("/") else url + "/"
    models = _instance("eotdl.repos.ModelsAPIRepo", transport).ModelsAPIRepo
    files = _instance("eotdl.repos.FilesAPIRepo", transport).FilesAPIRepo
    return _typed(models, ModelNotFound)(url), _typed(files, SourceFailed)(url)


def _instance(module: str, transport: _Requests) -> Any:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.loader is None:
        raise ConfigurationInvalid(
            "`eotdl:` needs more packages: pip install 'ml-inference-processor[eotdl]'"
        )
    own: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(own)
    if not hasattr(own, "requests"):
        raise ConfigurationInvalid(
            "the installed `eotdl` package is of a version that this service does not know"
        )
    own.requests = transport
    return own


def _typed(base: Any, absent: type[ProcessorError]) -> Any:
    """Give a subclass whose refusals are raised, as `absent` where the hub says that something is not there."""

    def format_response(_self: Any, response: _Answer) -> tuple[Any, None]:
        return _read(response, absent), None

    return type(base.__name__, (base,), {"format_response": format_response})


def _read(response: _Answer, absent: type[ProcessorError]) -> Any:
    status = response.status_code
    try:
        body = response.json()
    except (ValueError, RecursionError):
        error = Unreachable if status >= _SERVER_SIDE else SourceFailed
        raise error(f"EOTDL answered {status} without JSON; a proxy may stand before it") from None
    if status == _OK:
        return body
    raise _refusal(status, _detail(body), absent)


def _refusal(status: int, detail: str, absent: type[ProcessorError]) -> ProcessorError:
    """Say what a refusal of the hub means; a file it has not may be an outage of its store, a model is really absent."""
    message = f"EOTDL answered {status}: {detail}"
    if status >= _SERVER_SIDE or status == _BUSY:
        return Unreachable(message)
    meant = next((error for words, error in _MEANINGS if words.search(detail)), _STATUSES.get(status))
    if meant is not None:
        return meant(message)
    if _ABSENT.search(detail) and detail != _NO_ROUTE:
        return absent(message)
    return SourceFailed(message + " (is EOTDL_API_URL right?)" if detail == _NO_ROUTE else message)


def _detail(body: Any) -> str:
    """Give the hub's own words: a sentence, or a list of complaints about fields; cut, and without control characters."""
    detail = body.get("detail", "") if isinstance(body, dict) else body
    if isinstance(detail, list):
        parts = [d for d in detail if isinstance(d, dict)]
        detail = "; ".join(f"{'.'.join(map(str, d.get('loc') or ()))}: {d.get('msg', '')}" for d in parts)
    return re.sub(r"[^ -~]+", " ", str(detail))[:300]


def _model_id(value: Any) -> str:
    if not isinstance(value, str) or _MODEL_ID.fullmatch(value) is None:
        raise SourceFailed("EOTDL gave the model an id that is none")
    return value


def _versions(listed: Any) -> tuple[int, ...]:
    numbers = {int(version["version_id"]) for version in listed}
    if not numbers or min(numbers) < 1:
        raise ValueError("no versions")
    return tuple(sorted(numbers))

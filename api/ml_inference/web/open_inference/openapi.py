"""What `/openapi.json` says of the protocol's routes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

type Json = dict[str, Any]

_TEXT: Final[Json] = {"type": "string"}
_PROBLEM: Final[Json] = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_OCTETS: Final[Json] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def _object(properties: Json, *required: str) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _operation(content: Json, *statuses: int, body: Json | None = None) -> Json:
    failures = {
        str(each): {"description": HTTPStatus(each).phrase, "content": _PROBLEM} for each in (400, *statuses)
    }
    asked = {} if body is None else {"requestBody": {"content": body}}
    return {**asked, "responses": {"200": {"description": "OK", "content": content}, **failures}}


_PARAMETERS: Final[Json] = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
_SHAPE: Final = _list({"type": "integer"})
_TENSOR: Final = _object({"name": _TEXT, "datatype": _TEXT, "shape": _SHAPE}, "name", "datatype", "shape")
_DATA: Final = {**_list({}), "description": "flat in row-major order, or nested as the shape says"}
_VALUES: Final = _object(
    {**_TENSOR["properties"], "parameters": _PARAMETERS, "data": _DATA}, "name", "datatype", "shape"
)
_WANTED: Final = _object({"name": _TEXT, "parameters": _PARAMETERS}, "name")
_REQUEST: Final = _object(
    {"id": _TEXT, "parameters": _PARAMETERS, "inputs": _list(_VALUES), "outputs": _list(_WANTED)}, "inputs"
)
_RESPONSE: Final = _object(
    {"id": _TEXT, "model_name": _TEXT, "model_version": _TEXT, "outputs": _list(_VALUES)},
    *("model_name", "outputs"),
)
_LOADING: Final = (401, 403, 404, 500, 502, 503)
_BODY: Final = (408, 413, 415)

HEALTH: Final = _operation(_json({"type": "object"}), 503)
SERVER: Final = _operation(
    _json(
        _object(
            {"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}, "name", "version", "extensions"
        )
    )
)
NAMES: Final = _operation(_json(_object({"models": _list(_TEXT)}, "models")), 401, 403)
MODEL_READY: Final = _operation(
    _json(_object({"name": _TEXT, "ready": {"type": "boolean"}}, "name", "ready")), 401, 403, 404, 503
)
METADATA: Final = _operation(
    _json(
        _object(
            {
                "name": _TEXT,
                "versions": _list(_TEXT),
                "platform": _TEXT,
                "inputs": _list(_TENSOR),
                "outputs": _list(_TENSOR),
                "parameters": {"type": "object", "description": "task, bands, classes and item of its card"},
            },
            *("name", "platform", "inputs", "outputs"),
        )
    ),
    *_LOADING,
)
CONFIG: Final = _operation(_json({"type": "object", "description": "Triton's ModelConfig"}), *_LOADING)
STATISTICS: Final = _operation(
    _json(_object({"model_stats": _list({"type": "object"})}, "model_stats")), *_LOADING
)
INFER: Final = _operation(
    {**_json(_RESPONSE), **_OCTETS}, *_LOADING, *_BODY, 504, body={**_json(_REQUEST), **_OCTETS}
)
PREDICT: Final = _operation(
    _json(_object({"predictions": {}}, "predictions")),
    *(*_LOADING, *_BODY, 504),
    body=_json(_object({"instances": _list({})}, "instances")),
)
_ENTRY: Final = _object({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT}, "name")
INDEX: Final = _operation(
    _json(_list(_ENTRY)), 401, 403, *_BODY, body=_json(_object({"ready": {"type": "boolean"}}))
)
LOAD: Final = _operation({}, *_LOADING, *_BODY, body=_json({"type": "object"}))
UNLOAD: Final = _operation(
    {},
    401,
    403,
    404,
    *_BODY,
    body=_json(_object({"parameters": _object({"unload_dependents": {"type": "boolean"}})})),
)

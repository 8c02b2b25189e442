"""What `/openapi.json` says of bodies, parameters and errors: this service reads its requests itself, so it also describes them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi

from ml_inference.web.errors import MEDIA_TYPE
from ml_inference.web.multipart import MAX_IMAGES
from ml_inference.web.query import OUTPUTS

if TYPE_CHECKING:
    from fastapi import FastAPI

type Json = dict[str, Any]

_BYTES: Final[Json] = {"type": "string", "format": "binary"}
_TEXT: Final[Json] = {"type": "string"}
_TEXTS: Final[Json] = {"type": "array", "items": _TEXT}


def _object(properties: Json, *required: str, description: str = "") -> Json:
    told = {"description": description} if description else {}
    return {"type": "object", "properties": properties, "required": list(required), **told}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


SCHEMAS: Final[Json] = {
    "Problem": _object(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "error": {"type": "string", "description": "the same as `detail`"},
            "instance": {"type": "string", "format": "uri-reference", "description": "holds the request id"},
            "field": {"type": "string", "description": "of a contract mismatch: what was wrong"},
            "expected": {"description": "of a contract mismatch: what the model asks for"},
            "got": {"description": "of a contract mismatch: what came"},
            "problems": {
                "type": "array",
                "items": _ref("CardProblem"),
                "description": "of a model that cannot be served",
            },
            "error_id": {"type": "string", "description": "of an internal error: its id in the log"},
        },
        *("type", "title", "status", "detail", "error", "instance"),
        description="An error (RFC 9457).",
    ),
    "CardProblem": _object({"pointer": _TEXT, "message": _TEXT}, "pointer", "message"),
    "Answer": _object(
        {
            "model": _TEXT,
            "version": _TEXT,
            "task": _TEXT,
            "preprocessing": {**_TEXTS, "description": "what was done to the image, in order"},
            "warnings": _TEXTS,
            "prediction": {"type": "object", "description": "by task; `type` tells which"},
        },
        *("model", "version", "task", "preprocessing", "warnings", "prediction"),
    ),
    "EncodedAnswer": _object(
        {
            "image": _TEXT,
            "model": _TEXT,
            "version": _TEXT,
            "task": _TEXT,
            "preprocessing": _TEXTS,
            "warnings": _TEXTS,
            "media_type": _TEXT,
            "data": {"type": "string", "contentEncoding": "base64"},
        },
        *("image", "model", "version", "media_type", "data"),
    ),
    "Answers": {
        "type": "array",
        "items": {"anyOf": [_ref("Answer"), _ref("EncodedAnswer"), _ref("Problem")]},
        "description": "One entry for each image, in order; each also carries `image`, its label.",
    },
    "ModelEntry": _object(
        {
            "name": _TEXT,
            "version": {"type": ["string", "null"]},
            "source": _TEXT,
            "state": {"enum": ["known", "loading", "ready", "refused", "failed", "unloaded"]},
            "task": {"type": ["string", "null"]},
            "reason": {"type": ["string", "null"]},
        },
        *("name", "version", "source", "state"),
    ),
    "Models": _object({"models": {"type": "array", "items": _ref("ModelEntry")}}, "models"),
    "Card": _object(
        {"name": _TEXT, "version": {"type": ["string", "null"]}, "state": {"enum": ["ready", "refused"]}},
        *("name", "state"),
        description="Inputs, outputs, classes, preprocessing, device and diagnostics as served; or why it is not.",
    ),
    "Health": _object({"status": _TEXT, "reasons": _TEXTS}, "status"),
    "Service": _object(
        {"message": _TEXT, "version": _TEXT, "auth_required": {"type": "boolean"}},
        *("message", "version", "auth_required"),
    ),
}


def _parameter(name: str, place: str, schema: Json, description: str) -> Json:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "schema": schema,
        "description": description,
    }


_TIMEOUT = _parameter(
    "X-Request-Timeout-Ms",
    "header",
    {"type": "integer", "minimum": 1},
    "shortens REQUEST_TIMEOUT for this request",
)
_OPTIONS: Final = (
    _parameter(
        "output", "query", {"enum": list(OUTPUTS)}, "classes, scores per class, or the model's own tensors"
    ),
    _parameter("threshold", "query", {"type": "number"}, "for one-channel scores and for detections"),
    _parameter(
        "bands", "query", _TEXT, "which band of the file is which, in the file's order: `B04,B03,B02`"
    ),
    _parameter(
        "scaling",
        "query",
        _TEXT,
        "`none`, `divide:10000`, …; only where the model's card leaves its scaling open",
    ),
)


def _content(schema: Json, *media_types: str) -> Json:
    return {each: {"schema": schema} for each in media_types}


def _responses(success: Json, *statuses: int) -> Json:
    problem = _content(_ref("Problem"), MEDIA_TYPE)
    failures = {str(each): {"description": HTTPStatus(each).phrase, "content": problem} for each in statuses}
    return {"200": {"description": "OK", **success}, **failures}


def _answers(schema: Json, *statuses: int, parameters: tuple[Json, ...] = ()) -> Json:
    told: Json = {"parameters": list(parameters)} if parameters else {}
    return {**told, "responses": _responses({"content": _content(schema, "application/json")}, *statuses)}


_HEADERS: Final[Json] = {
    "Server-Timing": {
        "schema": _TEXT,
        "description": "milliseconds: decode, prepare, queue, infer, interpret, encode",
    },
    "X-Model-Version": {"schema": _TEXT, "description": "the version that answered"},
    "X-Model-Warnings": {"schema": _TEXT, "description": "doubts about this answer, when there are any"},
}
_FORM: Final = _object(
    {
        "image": {"type": "array", "items": _BYTES, "minItems": 1, "maxItems": MAX_IMAGES},
        "version": _TEXT,
    },
    "image",
)
_BODY: Final[Json] = {
    "required": True,
    "description": "a form with one or more files named `image`, or the bytes of one image",
    "content": {
        **_content(_FORM, "multipart/form-data"),
        **_content(_BYTES, "image/tiff", "image/jp2", "image/png", "image/jpeg", "application/x-npy"),
        **_content(_BYTES, "application/octet-stream"),
    },
}
_BINARY: Final = ("image/tiff; application=geotiff", "image/png", "application/x-npy")


def _predict() -> Json:
    either = {"anyOf": [_ref("Answer"), _ref("Answers")]}
    content = {
        **_content(either, "application/json"),
        **_content({"type": "object"}, "application/geo+json"),
        **_content(_BYTES, *_BINARY),
    }
    success = {"content": content, "headers": _HEADERS}
    statuses = (400, 401, 403, 404, 406, 408, 413, 415, 500, 502, 503, 504)
    return {
        "parameters": [*_OPTIONS, _TIMEOUT],
        "requestBody": _BODY,
        "responses": _responses(success, *statuses),
    }


_LOADING: Final = (400, 401, 403, 404, 502, 503)

PREDICT: Final = _predict()
MODELS: Final = _answers(_ref("Models"), 400, 401, 403)
CARD: Final = _answers(_ref("Card"), *_LOADING, parameters=(_TIMEOUT,))
ITEMS: Final = _answers(
    {"type": "array", "items": {"type": "object"}}, *_LOADING, 500, parameters=(_TIMEOUT,)
)
LIVE: Final = _answers(_ref("Health"))
READY: Final = {
    "responses": {
        "200": {"description": "Ready", "content": _content(_ref("Health"), "application/json")},
        "503": {"description": "Not ready", "content": _content(_ref("Health"), "application/json")},
    }
}
METRICS: Final = {"responses": _responses({"content": _content(_TEXT, "text/plain")}, 404)}
ROOT: Final = {
    "responses": _responses(
        {"content": {**_content(_ref("Service"), "application/json"), **_content(_TEXT, "text/html")}}, 406
    )
}


def describe_api(app: FastAPI, root_path: str, *, auth_required: bool) -> Json:
    """The OpenAPI 3.1 document of the application."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        routes=app.routes,
        description="ONNX models with a STAC MLM item, served: Earth observation images in, georeferenced answers out.",
        servers=[{"url": root_path or "/"}],
    )
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop(
                "422", None
            )  # the framework's own shape, which never leaves this service
    components: Json = {"schemas": SCHEMAS}
    document["components"] = components
    if auth_required:
        components["securitySchemes"] = {
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        document["security"] = [{"header": []}, {"bearer": []}]
    return document

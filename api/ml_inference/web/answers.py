"""Answers of models as HTTP: bodies, headers, lists of several."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from ml_inference.imagery import GEOJSON, GEOTIFF, JSON, NPY, PNG, encode, to_plain
from ml_inference.protocol.failures import clean
from ml_inference.web.json import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ml_inference.engine.model import Answer, ServedModel
    from ml_inference.web.errors import Problem

POSSIBLE: Final = (JSON, GEOTIFF, PNG, GEOJSON, NPY)
"""Everything an answer can be, for one prediction or another."""
LONGEST_WARNINGS: Final = 1000


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one image.

    Attributes:
        seconds: of each phase, in order.
    """

    media_type: str
    body: bytes
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def make_body(answer: Answer, media_type: str, label: str | None) -> bytes:
    """The answer in this media type, or, with a label, as an entry of a JSON list."""
    if media_type == JSON:
        return to_json({**_head(answer, label), "prediction": to_plain(answer.prediction)})
    provenance = {
        "model": answer.model,
        "version": answer.version,
        "preprocessing": "; ".join(answer.applied),
        "warnings": "; ".join(answer.warnings),
    }
    content = encode(answer.prediction, media_type, provenance)
    if label is None:
        return content
    data = base64.b64encode(content).decode("ascii")
    return to_json({**_head(answer, label), "media_type": media_type, "data": data})


def problem_entry(problem: Problem, label: str) -> Reply:
    """A problem as an entry of a list."""
    return Reply(JSON, to_json({"image": label, **problem.members}))


def response(model: ServedModel, reply: Reply) -> Response:
    """The answer to one image."""
    headers = {**_headers(model, [reply]), **_warned(reply.warnings)}
    return Response(reply.body, headers=headers, media_type=reply.media_type)


def list_response(model: ServedModel, replies: Sequence[Reply]) -> Response:
    """The answers to several images, in their order."""
    body = b"[" + b",".join(reply.body for reply in replies) + b"]"
    return Response(body, headers=_headers(model, replies), media_type=JSON)


def _head(answer: Answer, label: str | None) -> dict[str, Any]:
    named = {} if label is None else {"image": label}
    return {
        **named,
        "model": answer.model,
        "version": answer.version,
        "task": answer.task,
        "preprocessing": answer.applied,
        "warnings": answer.warnings,
    }


def _headers(model: ServedModel, replies: Sequence[Reply]) -> dict[str, str]:
    """Of several images each phase tells the slowest: they were worked on side by side."""
    slowest: dict[str, float] = {}
    for reply in replies:
        for phase, seconds in reply.seconds.items():
            slowest[phase] = max(seconds, slowest.get(phase, 0.0))
    timing = ", ".join(f"{phase};dur={seconds * 1000:.3f}" for phase, seconds in slowest.items())
    return {"X-Model-Version": model.version, **({"Server-Timing": timing} if timing else {})}


def _warned(warnings: Sequence[str]) -> dict[str, str]:
    if not warnings:
        return {}
    text = clean("; ".join(warnings), LONGEST_WARNINGS)
    return {"X-Model-Warnings": text.encode("ascii", "replace").decode()}

"""What a person sees first: the page, or two lines of JSON; and the description of the interface."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Request, Response

from ml_inference import __version__
from ml_inference.web.handling import services_of
from ml_inference.web.json import json_response
from ml_inference.web.negotiate import choose
from ml_inference.web.openapi import ROOT, describe_api

if TYPE_CHECKING:
    from fastapi import FastAPI

router = APIRouter(tags=["service"])

OFFERED: Final = ("application/json", "text/html")


@router.get("/", openapi_extra=ROOT)
async def root(request: Request) -> Response:
    """What this is, in JSON; the page for a browser."""
    kind = choose(",".join(request.headers.getlist("accept")), OFFERED)
    if kind == "text/html":
        return html("page.html")
    told = {
        "message": "ML Inference Processor",
        "version": __version__,
        "auth_required": services_of(request).settings.api_key is not None,
    }
    return json_response(told, headers={"Vary": "Accept"})


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """The interface for people; unlike the usual viewers it loads nothing from elsewhere."""
    return html("docs.html")


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    """The interface for machines."""
    settings = services_of(request).settings
    return json_response(_document(request.app, settings.root_path, settings.api_key is not None))


def html(name: str) -> Response:
    """A page of this package, which may run its own script and nothing else."""
    text, policy = _page(name)
    headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "Vary": "Accept"}
    return Response(text, headers=headers, media_type="text/html")


@functools.cache
def _page(name: str) -> tuple[str, str]:
    """A page and the policy that allows exactly its own inline script and style."""
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    allowed = {
        "default-src": "'none'",
        "script-src": _hashes(text, "script"),
        "style-src": _hashes(text, "style"),
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return text, "; ".join(f"{directive} {sources}" for directive, sources in allowed.items())


def _hashes(text: str, tag: str) -> str:
    """CSP hash sources of the inline elements (W3C CSP3 §2.3.1)."""
    inline = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in inline)
    return " ".join(f"'sha256-{each}'" for each in digests)


@functools.lru_cache(maxsize=8)
def _document(app: FastAPI, root_path: str, auth_required: bool) -> dict[str, object]:
    return describe_api(app, root_path, auth_required=auth_required)

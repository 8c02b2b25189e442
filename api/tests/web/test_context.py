"""The outer layers around small applications: ids, errors, HEAD, keys, log lines."""

from __future__ import annotations

import asyncio
import uuid

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, Router
from structlog.testing import capture_logs

from ml_inference.errors import ModelNotFound
from ml_inference.web.access import KeyRequired
from ml_inference.web.context import REQUEST_ID, Problems, RequestContext

pytestmark = pytest.mark.anyio

KEY = "s3cret-\u00e9"


async def plain(_request):
    return PlainTextResponse("hello", headers={"X-Own": "1"})


async def missing(_request):
    raise ModelNotFound("no such model")


async def defect(_request):
    raise ZeroDivisionError("/srv/private")


async def cut(_request):
    async def body():
        yield b"half"
        raise ZeroDivisionError("later")

    return StreamingResponse(body())


def layered(key=None):
    routes = [Route(f"/{each.__name__}", each) for each in (plain, missing, defect, cut)]
    return RequestContext(Problems(KeyRequired(Router(routes=[Route("/", plain), *routes]), key)))


async def ask(path="/plain", method="GET", app=None, **options):
    transport = httpx.ASGITransport(app or layered())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, **options)


async def test_a_request_without_an_id_is_given_one():
    assert uuid.UUID((await ask()).headers["X-Request-ID"])


async def test_a_good_id_is_echoed_also_on_an_error():
    for path in ("/plain", "/missing", "/defect"):
        assert (await ask(path, headers={"X-Request-ID": "run-7"})).headers["X-Request-ID"] == "run-7"


@given(st.binary(min_size=1, max_size=140))
def test_an_id_is_echoed_only_when_it_cannot_break_a_header_or_a_log_line(value):
    answer = asyncio.run(ask(headers=[(b"X-Request-ID", value)]))
    echoed = answer.headers["X-Request-ID"].encode()
    legal = 0 < len(value) <= 128 and all(0x21 <= each <= 0x7E for each in value)
    assert (echoed == value) == legal
    assert REQUEST_ID.fullmatch(echoed.decode())


async def test_an_error_of_the_domain_becomes_its_problem():
    answer = await ask("/missing")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
    assert answer.json()["detail"] == "no such model"


async def test_a_defect_becomes_a_500_that_tells_an_id_and_no_more():
    with capture_logs() as logs:
        answer = await ask("/defect")
    assert answer.status_code == 500
    assert "private" not in answer.text
    assert answer.json()["error_id"] in [line.get("error_id") for line in logs]


async def test_an_answer_that_breaks_off_is_not_made_to_look_whole():
    with pytest.raises(ZeroDivisionError):
        await ask("/cut")


async def test_head_is_get_without_a_body():
    got, head = await ask(), await ask(method="HEAD")
    assert head.content == b""
    assert head.status_code == 200
    assert head.headers["Content-Length"] == got.headers["Content-Length"] == "5"
    assert head.headers["X-Own"] == "1"


async def test_a_method_out_of_this_world_is_refused_before_any_route():
    answer = await ask(method="BREW")
    assert (answer.status_code, answer.headers["Content-Type"]) == (501, "application/problem+json")


async def test_one_line_is_written_with_the_id_and_without_anything_the_client_chose_freely():
    with capture_logs() as logs:
        await ask("/plain?secret=1", headers={"X-Request-ID": "run-7"})
        await ask("/%0a%1b[31mfake line")
    lines = [line for line in logs if line["event"] == "request"]
    assert [(line["method"], line["status"]) for line in lines] == [("GET", 200), ("GET", 404)]
    assert "secret" not in str(lines)
    assert "fake" not in str(lines)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY.encode()},
        {"Authorization": f"Bearer {KEY}".encode()},
        {"authorization": f"bearer  {KEY} ".encode()},
    ],
)
async def test_the_key_opens(headers):
    assert (await ask(app=layered(KEY), headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Basic c2VjcmV0"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"X-API-Key": ""}, 401),
        ({"X-API-Key": "s3cret"}, 403),
        ({"X-API-Key": b"\xff\xfe\x00"}, 403),
        ({"X-API-Key": "x" * 10_000}, 403),
    ],
)
async def test_no_key_is_401_and_a_wrong_key_403(headers, status):
    for path in ("/plain", "/missing", "/nowhere", "/%2F", "/docs/", "/health/live/x", "/metrics%00"):
        answer = await ask(path, app=layered(KEY), headers=headers)
        assert answer.status_code == status, path
        assert answer.json()["status"] == status


async def test_401_names_the_scheme():
    assert (await ask(app=layered(KEY))).headers["WWW-Authenticate"].startswith("Bearer ")


async def test_the_open_paths_need_no_key():
    assert (await ask("/", app=layered(KEY))).status_code == 200


async def test_a_root_path_moves_the_open_paths_with_it():
    async def under(scope, receive, send):
        await layered(KEY)({**scope, "root_path": "/api", "path": "/api" + scope["path"]}, receive, send)

    assert (await ask("/", app=under)).status_code == 200
    assert (await ask("/plain", app=under)).status_code == 401

"""The guard checks callers and the size of requests, and limits what a browser may load."""

from collections.abc import AsyncIterator, Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import Token, token_digest
from fedbbpt.web.guard import COOKIE, HEADERS, Guard

LOCAL = "http://127.0.0.1"
TOKENS = [Token("ann", Role.OBSERVER, token_digest("seen")), Token("north", Role.CLIENT, token_digest("work"))]


async def _echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await request.body(), headers={"cache-control": "max-age=60"})


async def _stream(request: Request) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        yield "one "
        yield "two"

    return StreamingResponse(parts())


APP = Starlette(
    routes=[
        Route("/", _echo, methods=["GET", "POST"]),
        Route("/stream", _stream),
        Route("/static/a", _echo),
        Route("/sign-in", _echo),
    ]
)


@pytest.fixture
def plain() -> Iterator[TestClient]:
    with TestClient(Guard(APP), base_url=LOCAL) as client:
        yield client


@pytest.fixture
def guarded() -> Iterator[TestClient]:
    guard = Guard(APP, TOKENS, {Role.OBSERVER, Role.OPERATOR}, sign_in="/sign-in", open_paths=("/static/",))
    with TestClient(guard, base_url="https://hub.example.org", follow_redirects=False) as client:
        yield client


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_every_response_says_what_a_browser_may_load(plain: TestClient) -> None:
    for path in ("/", "/stream", "/nowhere"):
        given = plain.get(path).headers
        assert given["content-security-policy"] == HEADERS["content-security-policy"]
        assert given["x-content-type-options"] == "nosniff"
    assert plain.get("/").headers["cache-control"] == "max-age=60", "the application's own header stays"
    assert plain.get("/stream").text == "one two"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"])
def test_without_tokens_this_machine_is_served(plain: TestClient, host: str) -> None:
    assert plain.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", ""])
def test_without_tokens_a_name_from_elsewhere_is_refused(plain: TestClient, host: str) -> None:
    refused = plain.get("/", headers={"host": host})
    assert refused.status_code == 421
    assert refused.json()["error"] == "InsecureAddress" and refused.json()["where"] == host


def test_a_token_of_a_role_is_needed(guarded: TestClient) -> None:
    none = guarded.get("/")
    assert none.status_code == 401 and none.headers["www-authenticate"] == "Bearer"
    assert none.json()["what"] == "no token"
    assert guarded.get("/", headers=_bearer("guess")).json()["what"] == "this token is not accepted"
    assert guarded.get("/", headers={"authorization": "Basic eA=="}).json()["what"] == "not a bearer token"
    wrong_role = guarded.get("/", headers=_bearer("work"))
    assert wrong_role.status_code == 403 and wrong_role.json()["fix"] == "a token of the role observer or operator"
    assert guarded.get("/", headers=_bearer("seen")).status_code == 200


def test_a_browser_signs_in_and_shows_its_cookie(guarded: TestClient) -> None:
    page = {"accept": "text/html,*/*"}
    sent_away = guarded.get("/", headers=page)
    assert (sent_away.status_code, sent_away.headers["location"]) == (303, "/sign-in")
    assert guarded.get("/sign-in", headers=page).status_code == 200
    assert guarded.get("/static/a").status_code == 200
    assert guarded.get("/", headers={"cookie": f"{COOKIE}=seen"}).status_code == 200
    wrong = guarded.get("/", headers={**page, "cookie": f"{COOKIE}=guess"})
    assert wrong.headers["location"] == "/sign-in?refused=1"


def test_tokens_are_replaced_while_serving() -> None:
    guard = Guard(APP, TOKENS)
    with TestClient(guard, base_url=LOCAL) as client:
        assert client.get("/", headers=_bearer("seen")).status_code == 200
        guard.accept([])
        assert client.get("/", headers=_bearer("seen")).status_code == 401


def test_a_request_may_be_so_large_and_no_larger() -> None:
    with TestClient(Guard(APP, max_body_bytes=10), base_url=LOCAL) as client:
        assert client.post("/", content=b"x" * 10).text == "x" * 10
        for content in (b"x" * 11, iter([b"x" * 6, b"x" * 6])):  # the second announces no length
            refused = client.post("/", content=content)
            assert refused.status_code == 413 and refused.json()["fix"] == "at most 10 bytes"

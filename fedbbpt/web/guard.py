"""Guards every web application: checks callers and the size of requests, and limits what a browser may load.

It is plain ASGI, so that streams pass through it without being buffered.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedbbpt.errors import FedbbptError, InsecureAddress, MessageTooLarge, NotPermitted, Unauthenticated
from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import Token, token_digest
from fedbbpt.wire.addresses import is_loopback
from fedbbpt.wire.tokens import shown_token

COOKIE = "fedbbpt-token"
"""The cookie that holds a browser's token: a page's own requests cannot carry a header."""
MAX_BODY_BYTES = 4 << 20
"""The largest request that is read, unless the application says otherwise."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
"""Headers of every response, except those that the application set itself."""


def error_response(error: FedbbptError, status: HTTPStatus) -> JSONResponse:
    """Returns an error as JSON with the keys `error`, `what`, `where` and `fix`."""
    body = {"error": type(error).__name__, "what": error.what, "where": error.where, "fix": error.fix}
    headers = {"www-authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else None
    return JSONResponse(body, status, headers)


class _Refused(Exception):
    def __init__(self, error: FedbbptError, status: HTTPStatus) -> None:
        super().__init__(error)
        self.response = error_response(error, status)


class Guard:
    """Wraps an ASGI application.

    - Without tokens it answers requests for this machine's own names only, so that a page from elsewhere cannot reach
      it under a name that it makes point here (DNS rebinding).
    - With tokens a caller shows one of them, whose role is among `roles`, as `Authorization: Bearer TOKEN` or in the
      cookie `fedbbpt-token`. A browser without one is sent to the page `sign_in`.
    - A request with a larger body than `max_body_bytes` is refused.
    - Every response gets HEADERS.
    """

    def __init__(
        self,
        app: ASGIApp,
        tokens: Sequence[Token] | None = None,
        roles: Collection[Role] = frozenset(Role),
        *,
        any_host: bool = False,
        sign_in: str = "",
        open_paths: tuple[str, ...] = (),
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        """
        Args:
            app: The application.
            tokens: The accepted tokens; None: callers need none.
            roles: The roles that may call.
            any_host: Whether requests for other names than this machine's are answered without tokens.
            sign_in: The path of the page that takes a token, "" if there is none.
            open_paths: Beginnings of the paths that need no token.
            max_body_bytes: The largest body of a request.
        """
        self._app, self._roles, self._any_host = app, frozenset(roles), any_host
        self._sign_in, self._max_body_bytes = sign_in, max_body_bytes
        self._open = (*open_paths, sign_in) if sign_in else open_paths
        self._tokens: dict[str, Token] | None = None
        self.accept(tokens)

    def accept(self, tokens: Sequence[Token] | None) -> None:
        """Accepts these tokens from now on, and no others; None: callers need none."""
        self._tokens = None if tokens is None else {token.sha256: token for token in tokens}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no application here speaks WebSocket, and uvicorn refuses what is left without an answer

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            self._check_token(headers, scope["path"])
            self._check_size(int(headers.get("content-length", "0")))  # the HTTP parser has checked that it is a number
        except _Refused as refused:
            browser = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
            if self._sign_in and browser and refused.response.status_code == HTTPStatus.UNAUTHORIZED:
                page = f"{self._sign_in}?refused=1" if COOKIE in headers.get("cookie", "") else self._sign_in
                await RedirectResponse(page, HTTPStatus.SEE_OTHER)(scope, receive, with_headers)
            else:
                await refused.response(scope, receive, with_headers)
            return
        await self._bounded(scope, receive, with_headers)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the application answer. A body without a length that turns out to be too large is refused meanwhile."""
        read, refused = 0, False

        async def bounded() -> Message:
            nonlocal read, refused
            message = await receive()
            read += len(message.get("body", b""))
            try:
                self._check_size(read)
            except _Refused as large:
                refused = True
                await large.response(scope, receive, send)
                raise
            return message

        async def unless_refused(message: Message) -> None:
            if not refused:  # frameworks answer every exception
                await send(message)

        with suppress(_Refused):
            await self._app(scope, bounded, unless_refused)

    def _check_host(self, headers: Headers) -> None:
        if self._any_host or self._tokens is not None:
            return
        named = headers.get("host", "")
        host = named.partition("]")[0] + "]" if named.startswith("[") else named.partition(":")[0]
        if not is_loopback(host):
            what = "without tokens only requests for this machine's own name are answered"
            error = InsecureAddress(what, where=named[:100], fix="127.0.0.1 or localhost as the host, or --tokens")
            raise _Refused(error, HTTPStatus.MISDIRECTED_REQUEST)

    def _check_token(self, headers: Headers, path: str) -> None:
        if self._tokens is None or (self._open and path.startswith(self._open)):
            return
        try:
            digest = shown_token(headers.items())
        except Unauthenticated as error:
            raise _Refused(error, HTTPStatus.UNAUTHORIZED) from None
        digest = digest or _cookie_digest(headers)
        if (token := self._tokens.get(digest or "")) is None:
            what = "this token is not accepted" if digest else "no token"
            fix = "Bearer TOKEN, with a token of the tokens file"
            raise _Refused(Unauthenticated(what, where="authorization", fix=fix), HTTPStatus.UNAUTHORIZED)
        if token.role not in self._roles:
            what = f"{token.name} has the role {token.role}, which may not call this"
            fix = f"a token of the role {' or '.join(sorted(self._roles))}"
            raise _Refused(NotPermitted(what, where=path[:100], fix=fix), HTTPStatus.FORBIDDEN)

    def _check_size(self, size: int) -> None:
        if size > self._max_body_bytes:
            fix = f"at most {self._max_body_bytes} bytes"
            large = MessageTooLarge(f"the request has {size} bytes or more", where="body", fix=fix)
            raise _Refused(large, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def _cookie_digest(headers: Headers) -> str | None:
    try:
        shown = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return token_digest(shown.value) if shown else None

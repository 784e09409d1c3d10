"""The dashboard's web application: the page with its files, and the records that it shows."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from fedbbpt.errors import Exhausted, FedbbptError, InvalidInput, NotFound, NotPermitted, Overloaded, Unavailable
from fedbbpt.host.json_text import json_text
from fedbbpt.web.dashboard.live_runs import LiveRuns
from fedbbpt.web.dashboard.records import Record, control_records
from fedbbpt.web.dashboard.run_folders import RunFolders, read_summary
from fedbbpt.web.dashboard.streams import stream
from fedbbpt.web.guard import COOKIE, error_response

STATIC = Path(__file__).parent / "static"
SIGN_IN = "/sign-in"
OPEN_PATHS = ("/static/",)
"""Beginnings of the paths that need no token: the page's files, which say nothing of any run."""
MAX_PAGES = 200
"""Streams that are open at the same time."""
RESULT_SECONDS = 0.5
"""The interval at which the folder of a run that has ended is searched for its measurement."""
_STATUSES = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (InvalidInput, HTTPStatus.BAD_REQUEST),
    (NotPermitted, HTTPStatus.FORBIDDEN),
    (Exhausted, HTTPStatus.SERVICE_UNAVAILABLE),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)


@dataclass(frozen=True, slots=True)
class Sources:
    """The runs that a dashboard shows: those of a coordinator, those in a folder, or both."""

    live: LiveRuns | None = None
    coordinator: str = ""
    """The coordinator's address, as the page names it."""
    past: RunFolders | None = None
    folder: str = ""
    """The folder, as the page names it."""
    result: Path | None = None
    """The folder of the live run, in which its measurement on test examples will appear."""
    signs_in: bool = False
    """Whether browsers show a token."""


class _Files(StaticFiles):
    def file_response(self, *arguments: object, **options: object) -> Response:
        response = super().file_response(*arguments, **options)  # type: ignore[arg-type]  # passed on as they come
        response.headers["cache-control"] = "no-cache"  # kept, but compared with the server's at each load
        return response


def dashboard(sources: Sources) -> Starlette:
    """Returns the application."""
    pages = _Pages(sources)
    return Starlette(
        routes=[
            Route("/", pages.page("index.html")),
            Route(SIGN_IN, pages.page("sign-in.html"), methods=["GET"]),
            Route(SIGN_IN, pages.sign_in, methods=["POST"]),
            Route("/sign-out", pages.sign_out, methods=["POST"]),
            Route("/api/site", pages.site),
            Route("/api/runs", pages.live_runs),
            Route("/api/run", pages.live_run),
            Route("/api/past", pages.past_runs),
            Route("/api/past/run", pages.past_run),
            Route("/api/past/compare", pages.compare),
            Mount("/static", _Files(directory=STATIC)),
        ],
        exception_handlers={FedbbptError: _refused},
        lifespan=pages.lifespan,
    )


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, FedbbptError), "the handler of such errors"
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    return error_response(error, status)


def _json(record: object) -> Response:
    return Response(json_text(record), media_type="application/json")


class _Pages:
    def __init__(self, sources: Sources) -> None:
        self._sources, self._open = sources, 0

    def page(self, file: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return FileResponse(STATIC / file, headers={"cache-control": "no-cache"})

        return answer

    async def sign_in(self, request: Request) -> Response:
        """Keeps the token of the form in a cookie; the guard judges it with the next request."""
        form = parse_qs((await request.body()).decode(errors="replace"))
        response = RedirectResponse("/", HTTPStatus.SEE_OTHER)
        token, secure = form.get("token", [""])[0].strip(), request.url.scheme == "https"
        if token.isascii() and token.isprintable():
            response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return response

    async def sign_out(self, request: Request) -> Response:
        response = RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER)
        response.delete_cookie(COOKIE)
        return response

    async def site(self, request: Request) -> Response:
        sources = self._sources
        return _json(
            {
                "coordinator": sources.coordinator if sources.live else None,
                "folder": sources.folder if sources.past else None,
                "signs_in": sources.signs_in,
            }
        )

    async def live_runs(self, request: Request) -> Response:
        return stream(self._counted(self._live().follow_list()))

    async def live_run(self, request: Request) -> Response:
        return stream(self._counted(self._live().run(request.query_params.get("name", "")).follow()))

    async def past_runs(self, request: Request) -> Response:
        return _json(await asyncio.to_thread(self._past().all))

    async def past_run(self, request: Request) -> Response:
        return _json(await asyncio.to_thread(self._past().run, request.query_params.get("name", "")))

    async def compare(self, request: Request) -> Response:
        first, second = (request.query_params.get(key, "") for key in ("first", "second"))
        return _json(await asyncio.to_thread(self._past().compare, first, second))

    def _live(self) -> LiveRuns:
        if self._sources.live is None:
            raise NotFound("this dashboard watches no coordinator", where="run", fix="--coordinator")
        return self._sources.live

    def _past(self) -> RunFolders:
        if self._sources.past is None:
            raise NotFound("this dashboard shows no past runs", where="past", fix="the folder of the runs")
        return self._sources.past

    def _counted(self, items: AsyncIterator[Record]) -> AsyncIterator[Record]:
        if self._open >= MAX_PAGES:
            raise Overloaded(f"{MAX_PAGES} pages are open already", where="page", fix="close some")

        async def counted() -> AsyncIterator[Record]:
            self._open += 1
            try:
                async for item in items:
                    yield item
            finally:
                self._open -= 1

        return counted()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        if self._sources.result is not None and self._sources.live is not None:
            self._sources.live.run("")  # so that a page that is opened after the run's end shows it
        searching = asyncio.create_task(self._search_result())
        try:
            yield
        finally:
            searching.cancel()

    async def _search_result(self) -> None:
        while self._sources.result is not None and self._sources.live is not None:
            if self._sources.live.await_measurement:
                conclude(self._sources)
            await asyncio.sleep(RESULT_SECONDS)


def conclude(sources: Sources) -> None:
    """Passes the measurement of the live run on to the pages, if its folder has it."""
    if sources.result is None or sources.live is None:
        return
    with contextlib.suppress(InvalidInput):
        summary = read_summary(sources.result)
        if summary.get("tested"):
            sources.live.conclude(control_records(summary))


def end(sources: Sources) -> None:
    """Lets all pages come to their end, with the live run's measurement if it is there."""
    conclude(sources)
    if sources.live is not None:
        sources.live.stop()

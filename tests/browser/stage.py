"""A dashboard over a real coordinator whose clients a test moves by hand, and a browser to look at it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Playwright

from fedbbpt.identity.tokens_file import Token
from fedbbpt.server.remote import RemoteRuns
from fedbbpt.web.dashboard.app import OPEN_PATHS, SIGN_IN, Sources, dashboard, end
from fedbbpt.web.dashboard.live_runs import LiveRuns
from fedbbpt.web.dashboard.run_folders import RunFolders
from fedbbpt.web.serving import WebAddress, WebServer

CHROMIUM = Path("/usr/bin/chromium")


def sources(channel: Any = None, folder: Path | None = None) -> Sources:
    """Returns what a dashboard shows: the runs at the end of a channel, those in a folder, or both."""
    live = None if channel is None else LiveRuns(RemoteRuns(channel), retry_seconds=(0.1,))
    past = None if folder is None else RunFolders(folder)
    return Sources(live, "127.0.0.1:7000", past, "" if folder is None else folder.name)


@contextmanager
def served(shown: Sources, tokens: list[Token] | None = None, port: int = 0) -> Iterator[str]:
    """Serves a dashboard from a thread, and gives its address."""
    server = WebServer(
        dashboard(shown),
        WebAddress(port=port),
        tokens=tokens,
        sign_in=SIGN_IN if tokens is not None else "",
        open_paths=OPEN_PATHS,
        before_end=lambda: end(shown),
    )
    thread = threading.Thread(target=server.run, name="dashboard")
    thread.start()
    try:
        yield server.url
    finally:
        server.stop()
        thread.join()


def open_browser(playwright: Playwright) -> Browser:
    """Starts Debian's Chromium."""
    # Without a sandbox, because the tests may run as root in a container; they load nothing but the dashboard.
    return playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])


def noted_problems(page: Page) -> list[str]:
    """Returns a list to which every error and warning on the page's console is added."""
    problems = list[str]()
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    return problems

"""Draws the screenshots of the dashboard, of a small federation with a model that answers in closed form.

The coordinator, its gRPC service and all rounds are real. `docs/draw_dashboard.py` calls this.
"""

import asyncio
import io
import sys
import tempfile
import threading
from pathlib import Path
from typing import Literal, TypeAlias

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from fedbbpt.cli import main as command_line
from fedbbpt.federation import assemble
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.job.config import Job
from fedbbpt.job.job_file import job_text
from tests.browser.stage import open_browser, served, sources
from tests.federation import AdvancingLoop, Client, OverGrpc
from tests.tiny_run import CLIENTS, fake_ptm, job, write_data

NAMES = ("north", "east", "south")
Theme: TypeAlias = Literal["light", "dark"]
SCALE = 1.5
"""Pixels of a screen for each of the page."""


def draw(images: Path) -> None:
    """Draws all screenshots into a folder."""
    with tempfile.TemporaryDirectory() as made, sync_playwright() as playwright:
        folder = Path(made)
        data = write_data(folder / "data", each=150)
        browser = open_browser(playwright)
        _draw_live(browser, prepare(job(data, rounds=14)), folder / "run.db", images)
        runs = folder / "runs"
        _simulate(job(data, rounds=14, method="fed-bpt"), folder, runs / "fed-bpt")
        _simulate(job(data, rounds=14), folder, runs / "fed-cma")
        with served(sources(folder=runs)) as url:
            _take(browser, f"{url}/#/past/fed-cma", images / "dashboard-past.png", "light", height=1180)
            _take(browser, f"{url}/#/compare/fed-cma/fed-bpt", images / "dashboard-compare.png", "dark", height=1250)
        browser.close()


def _draw_live(browser: Browser, splits: Splits, store: Path, images: Path) -> None:
    loop = AdvancingLoop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    federation = OverGrpc(splits, store, loop)
    with served(sources(federation.channel())) as url:
        clients = [_client(federation, splits, index) for index in range(CLIENTS)]
        for _ in range(9):
            for client in clients:
                client.answer()
        clients[0].answer()
        clients[2].link.report_trouble("the PTM service at ptm.example.org:7001 does not answer")
        themes: tuple[Theme, ...] = ("light", "dark")
        for theme in themes:
            _take(browser, url, images / f"dashboard-{theme}.png", theme, height=1480)
        _take(browser, url, images / "dashboard-phone.png", "dark", width=390, height=1000)
        for client in clients:
            client.hang_up()
    federation.close()
    asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result()


def _client(federation: OverGrpc, splits: Splits, index: int) -> Client:
    hello = assemble.hello(NAMES[index], "key", len(splits.train[index]))
    return Client(federation.link(index), hello, splits, index, fake_ptm())


def _simulate(described: Job, folder: Path, out: Path) -> None:
    """Runs `fedbbpt simulate` in this process."""
    path = folder / "job.toml"
    path.write_text(job_text(described), encoding="utf-8")
    sys.argv = ["fedbbpt", "simulate", str(path), "--out", str(out), "--json"]
    try:
        command_line()
    except SystemExit as ended:
        assert not ended.code, f"fedbbpt simulate ended with {ended.code}"


def _take(browser: Browser, url: str, path: Path, theme: Theme, *, width: int = 1280, height: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme, device_scale_factor=SCALE)
    page.goto(url)
    page.locator("#accuracy canvas").wait_for()
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(300)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    # Without the means, large areas would change their colour.
    palette = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    palette.save(path, optimize=True)
    page.close()
    print(f"wrote {path.name}, {path.stat().st_size / 1000:.0f} kB")

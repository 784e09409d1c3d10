"""Debian's Chromium, and a small federation to look at."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fedbbpt.federation.splits import Splits
from tests.browser.stage import CHROMIUM, noted_problems, open_browser
from tests.federation import AdvancingLoop, OverGrpc

expect.set_options(timeout=60_000)  # on a busy machine a page takes its time


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Skips the test if there is no Chromium; in CI, fails instead.

    It lasts no longer than its module: Playwright keeps an event loop running in this thread, beside which no other
    test could run one.
    """
    if not CHROMIUM.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {CHROMIUM}")
    with sync_playwright() as playwright:
        opened = open_browser(playwright)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose console must stay empty."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    problems = noted_problems(opened)
    yield opened
    opened.close()
    assert problems == []


@pytest.fixture
def federation(splits: Splits, tmp_path: Path, server_loop: AdvancingLoop) -> Iterator[OverGrpc]:
    running = OverGrpc(splits, tmp_path / "run.db", server_loop)
    yield running
    running.close()

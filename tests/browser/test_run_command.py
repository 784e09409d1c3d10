"""`fedbbpt run --dashboard`: the page of a whole federation of processes, up to the measurement of its result."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from fedbbpt.job.job_file import job_text
from tests.tiny_run import job, write_data


@pytest.mark.slow
def test_the_page_of_a_run_shows_its_result(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(job_text(job(write_data(tmp_path / "data"), rounds=30)))
    words = [sys.executable, "-m", "fedbbpt", "run", "job.toml", "--out", "run", "--dashboard", "--json"]
    page = browser.new_page()
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        found = next(match for line in running.stderr if (match := re.search(r"dashboard: (http\S+)", line)))
        page.goto(found[1])
        expect(page.locator("h1")).to_have_text("tiny", timeout=60_000)
        running.stderr.read()
        summary = json.loads(running.stdout.read())
    assert running.returncode == 0
    expect(page.locator("#vital-result .value")).to_have_text(f"{100 * summary['accuracy_after']:.1f} %")
    expect(page.locator("#controls")).to_contain_text("no prompt")
    page.close()

"""Past runs of a folder in a real browser: the list, one run, and two runs compared."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.stage import served, sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs of six rounds with different populations, of which one was measured on test examples."""
    for name, population, gain in (("alpha", 6, 0.04), ("beta", 10, 0.06)):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        same = {
            "clients": 3,
            "dev_examples": 100,
            "train_loss": 0.8,
            "seconds": 1.5,
            "bytes_up": 900,
            "bytes_down": 700,
        }
        reports = [
            {
                "round": n,
                "dev_loss": 0.9 - gain * n,
                "dev_accuracy": 0.5 + gain * n,
                "queries": 100 * population,
                **same,
            }
            for n in range(6)
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(report) + "\n" for report in reports))
        (run / "job.toml").write_text(f'[method]\nname = "fed-cma"\npopulation = {population}\n')
    summary = {
        "tested": True, "method": "fed-cma", "ptm": "fake", "rounds": 5, "best_round": 5, "test_examples": 200,
        "accuracy_before": 0.5, "accuracy_bias_only": 0.6, "accuracy_after": 0.8,
        "gains": {"no_prompt": {"difference": 0.3, "interval_95": [0.22, 0.38], "examples": 200}},
    }  # fmt: skip
    (tmp_path / "runs" / "alpha" / "summary.json").write_text(json.dumps(summary))
    return tmp_path / "runs"


def test_a_past_run_is_shown_with_its_controls(page: Page, folder: Path) -> None:
    with served(sources(folder=folder)) as url:
        page.goto(url)
        page.get_by_role("link", name="alpha").click()
        expect(page.locator("#vital-result .value")).to_have_text("80.0 %")
        expect(page.locator("#controls")).to_contain_text("200 test examples, the same for all.")
        without = page.locator("#controls tr", has_text="no prompt")
        expect(without).to_contain_text("+30.0 points")
        expect(without).to_contain_text("+22.0 to +38.0")
        expect(page.locator("#accuracy .readout")).to_contain_text("70.0 % of 100 dev examples are right")
        page.locator(".settings summary").click()
        expect(page.locator(".settings")).to_contain_text("method.population")


def test_two_runs_are_compared_by_the_keyboard_alone(page: Page, folder: Path) -> None:
    with served(sources(folder=folder)) as url:
        page.goto(url)
        for name in ("alpha", "beta"):
            page.get_by_label(f"Compare {name}").focus()
            page.keyboard.press("Space")
        page.get_by_role("link", name="Compare the two").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#differences tbody tr")).to_have_count(1)
        assert page.locator("#differences tbody tr > *").all_inner_texts() == ["method.population", "6", "10"]
        page.locator("#accuracy summary").click()
        last = page.locator("#accuracy tbody tr").last
        expect(last).to_be_visible()
        round, first, second = last.locator("> *").all_inner_texts()
        assert (round, float(first), float(second)) == ("5", 0.5 + 0.04 * 5, 0.5 + 0.06 * 5)
        page.go_back()
        expect(page.get_by_label("Compare alpha")).to_be_checked()


@pytest.mark.parametrize("address", ["#/", "#/past/alpha", "#/compare/alpha/beta"])
def test_a_phone_shows_past_runs_without_scrolling_sideways(page: Page, folder: Path, address: str) -> None:
    page.set_viewport_size({"width": 360, "height": 780})
    with served(sources(folder=folder)) as url:
        page.goto(f"{url}/{address}")
        expect(page.locator("main")).to_contain_text("alpha")
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_run_that_cannot_be_read_is_told(browser: Browser, folder: Path) -> None:
    page = browser.new_page()
    with served(sources(folder=folder)) as url:
        page.goto(f"{url}/#/past/alpha")
        expect(page.locator("h1")).to_have_text("alpha")
        (folder / "alpha" / "metrics.jsonl").write_text("not json\n")
        page.reload()
        expect(page.locator("#banner")).to_contain_text("metrics.jsonl:1: not the report of a round")
    page.close()

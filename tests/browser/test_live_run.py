"""A run is watched in a real browser, from its first round to its end."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from fedbbpt.federation.run_folder import METRICS
from fedbbpt.federation.run_records import MetricsFile
from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import Token, token_digest
from fedbbpt.server.remote import RemoteRun
from tests.browser.stage import noted_problems, served, sources
from tests.federation import OverGrpc, play
from tests.slow import slow_except
from tests.tiny_run import CLIENTS, ROUNDS


def _table(page: Page, chart: str) -> list[list[str]]:
    """Returns the cells of a chart's table, which it opens."""
    details = page.locator(f"#{chart} details")
    if details.get_attribute("open") is None:
        details.locator("summary").click()
        expect(details.locator("tbody tr").first).to_be_visible()
    return [row.locator("th, td").all_inner_texts() for row in details.locator("tbody tr").all()]


def _number(text: str) -> float | None:
    return None if text == "\u2013" else float(text)


def test_a_run_is_watched_from_its_first_round_to_its_end(page: Page, federation: OverGrpc, tmp_path: Path) -> None:
    with served(sources(federation.channel())) as url:
        clients = [federation.client(0)]
        page.goto(url)
        expect(page.locator(".doing")).to_have_text("Waiting for 2 more clients: 1 of 3 have joined.")
        expect(page.locator("#accuracy")).to_be_hidden()
        clients += [federation.client(index) for index in range(1, CLIENTS)]
        expect(page.locator(".doing")).to_contain_text("Round 0 of 4")
        expect(page.locator("#accuracy .empty")).to_be_visible()
        clients[0].answer()
        expect(page.locator(".doing")).to_have_text(
            "Round 0 of 4: 1 of 3 have answered, waiting for client-0001 and client-0002."
        )
        for client in clients[1:]:
            client.answer()
        expect(page.locator("#accuracy canvas")).to_be_visible()
        play(clients, ROUNDS)
        expect(page.locator(".pill")).to_have_text("finished")
        expect(page.locator("#events")).to_contain_text("The run ended")

        reports = [report for _, news in RemoteRun(federation.channel()).watch() for report in news]
        MetricsFile(tmp_path).write(lambda since: reports[since:])
        metrics = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
        assert len(metrics) == ROUNDS + 1
        charts: dict[str, dict[int, str]] = {
            "accuracy": {0: "round", 1: "dev_accuracy", 3: "dev_examples", 4: "clients"},
            "loss": {0: "round", 1: "dev_loss", 2: "train_loss"},
            "cost": {0: "round", 1: "queries", 2: "bytes_up", 3: "bytes_down", 4: "seconds", 5: "dev_accuracy"},
        }
        for chart, keys in charts.items():
            shown = _table(page, chart)
            assert [[_number(row[k]) for k in keys] for row in shown] == [
                [line[key] for key in keys.values()] for line in metrics
            ], chart
        best = min(metrics, key=lambda line: line["dev_loss"])["round"]
        expect(page.locator("#accuracy .readout")).to_contain_text(f"Best round {best}: ")
        expect(page.locator("#vital-queries .value")).to_have_text(f"{sum(line['queries'] for line in metrics):,}")


def test_what_a_peer_sends_is_text(page: Page, federation: OverGrpc) -> None:
    evil = '<img src=x onerror="document.title=1"><b>bold</b>'
    with served(sources(federation.channel())) as url:
        clients = federation.clients()
        page.goto(url)
        clients[1].link.report_trouble(evil)
        expect(page.locator("#members")).to_contain_text(evil)
        expect(page.locator("#events")).to_contain_text(evil)
        assert page.locator("#members img, #events img, #events li b:text('bold')").count() == 0


def test_a_client_that_misses_a_deadline_is_late(page: Page, federation: OverGrpc) -> None:
    with served(sources(federation.channel())) as url:
        clients = federation.clients()
        page.goto(url)
        for client in clients[:2]:
            client.answer()
        federation.advance(61.0)
        row = page.locator("#members tr", has_text="client-0002")
        expect(row).to_contain_text("late")
        expect(row.locator("td[data-column='late since']")).to_have_text(re.compile(r"\d\d:\d\d:\d\d, \d+ s"))
        expect(page.locator("#events")).to_contain_text("client-0002 missed the deadline of round 0")


def test_a_lost_coordinator_is_told_and_found_again(page: Page, federation: OverGrpc) -> None:
    shown = sources(federation.channel())
    with served(shown) as url:
        clients = federation.clients()
        play(clients, 1)
        page.goto(url)
        expect(page.locator("#accuracy canvas")).to_be_visible()
        federation.close()
        expect(page.locator("#banner")).to_contain_text("The coordinator does not answer since")
        expect(page.locator("#accuracy canvas")).to_be_visible()
        federation._start(federation.port)
        expect(page.locator("#banner")).to_be_hidden()


@pytest.mark.slow
def test_a_dashboard_that_stops_is_told_and_found_again(browser: Browser, federation: OverGrpc) -> None:
    page = browser.new_page()
    with served(sources(federation.channel())) as url:
        federation.client(0)
        page.goto(url)
        expect(page.locator(".doing")).to_contain_text("Waiting for 2 more clients")
    expect(page.locator("#banner")).to_contain_text("The dashboard does not answer.")
    with served(sources(federation.channel()), port=int(url.rpartition(":")[2])):
        federation.client(1)
        expect(page.locator(".doing")).to_contain_text("Waiting for one more client")
        expect(page.locator("#banner")).to_be_hidden()
    page.close()


def _reached_by(page: Page, key: str, most: int) -> list[str]:
    """Returns what the focus is on after each press of a key."""
    reached = []
    for _ in range(most):
        page.keyboard.press(key)
        reached.append(page.evaluate("document.activeElement.className || document.activeElement.id"))
    return reached


def test_the_keyboard_reaches_everything_and_moves_along_a_chart(page: Page, federation: OverGrpc) -> None:
    with served(sources(federation.channel())) as url:
        play(federation.clients(), 3)
        page.goto(url)
        expect(page.locator("#accuracy canvas")).to_be_visible()
        reached = _reached_by(page, "Tab", 20)
        assert reached[0] == "skip"
        assert {"canvas", "cost-of", "important", "events"} <= set(reached)
        chart, readout = page.locator("#accuracy .canvas"), page.locator("#accuracy .readout")
        chart.focus()
        outline = chart.evaluate("element => getComputedStyle(element).outlineStyle")
        assert outline == "solid", "the focus is visible"
        for key, expected in [("ArrowRight", 0), ("ArrowRight", 1), ("End", 2), ("ArrowLeft", 1), ("Home", 0)]:
            page.keyboard.press(key)
            expect(readout).to_contain_text(re.compile(rf"^Round {expected}: .* n = 30 dev examples"))


@pytest.mark.parametrize("theme", slow_except(["light", "dark"], "dark"))
def test_a_phone_shows_everything_without_scrolling_sideways(
    browser: Browser, federation: OverGrpc, theme: Any
) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 780}, color_scheme=theme, has_touch=True)
    problems = noted_problems(page)
    with served(sources(federation.channel())) as url:
        clients = federation.clients()
        clients[0].link.report_trouble("x" * 299)
        page.goto(url)
        expect(page.locator("#members")).to_contain_text("in trouble")
        play(clients, 2)
        expect(page.locator("#accuracy canvas")).to_be_visible()
        _table(page, "cost")
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.close()
    assert problems == [] or all("ERR_" in problem for problem in problems), problems


def _background(page: Page) -> list[int]:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return [int(part) for part in re.findall(r"\d+", colour)[:3]]


SUMS = """canvas => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return Array.from(data).reduce((sums, value, k) => (sums[k % 4] += value, sums), [0, 0, 0, 0]);
}"""
"""Adds up the colours that a chart has drawn, by channel."""


def test_the_colours_follow_the_system_and_the_switch(page: Page, federation: OverGrpc) -> None:
    with served(sources(federation.channel())) as url:
        play(federation.clients(), 2)
        page.goto(url)
        canvas = page.locator("#accuracy canvas")
        expect(canvas).to_be_visible()
        light, drawn = _background(page), ",".join(map(str, canvas.evaluate(SUMS)))
        assert min(light) > 200
        page.emulate_media(color_scheme="dark")
        assert max(_background(page)) < 60
        page.wait_for_function(
            f"before => String(({SUMS})(document.querySelector('#accuracy canvas'))) !== before", arg=drawn
        )
        page.get_by_label("Light").check(force=True)
        assert _background(page) == light
        page.reload()
        expect(canvas).to_be_visible()
        assert _background(page) == light, "the choice is kept"
        page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        pill = page.locator(".pill")
        assert pill.evaluate("element => getComputedStyle(element, '::before').animationName") == "none"


@pytest.mark.slow  # the unit tests sign in without a browser
def test_a_token_opens_the_page(browser: Browser, federation: OverGrpc) -> None:
    page = browser.new_page()
    tokens = [Token("ann", Role.OBSERVER, token_digest("a secret"))]
    with served(sources(federation.channel()), tokens) as url:
        page.goto(url)
        page.get_by_label("Token").fill("a guess")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("This token is not accepted.")
        page.get_by_label("Token").fill("a secret")
        page.keyboard.press("Enter")
        expect(page.locator(".doing")).to_contain_text("Waiting for 3 more clients")
        assert page.evaluate("document.cookie") == "", "no script reads the token"
    page.close()

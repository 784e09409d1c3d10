"""The dashboard's records and streams, without a browser and without sockets."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from fedbbpt.errors import CoordinatorUnavailable, FedbbptError, NotPermitted, Overloaded, UnknownRun
from fedbbpt.identity.roles import WATCHERS, Role
from fedbbpt.identity.tokens_file import Token, token_digest
from fedbbpt.server.remote import RunNews
from fedbbpt.tasks.intervals import accuracy_interval
from fedbbpt.types import EventKind, MemberStatus, Price, Report, RunEvent, RunState, RunStatus
from fedbbpt.web.dashboard.app import OPEN_PATHS, SIGN_IN, STATIC, Sources, conclude, dashboard
from fedbbpt.web.dashboard.live_runs import LiveRun, LiveRuns
from fedbbpt.web.dashboard.records import SHOWN_MEMBERS, control_records, member_records, round_records
from fedbbpt.web.dashboard.run_folders import RunFolders, differences
from fedbbpt.web.dashboard.streams import encoded
from fedbbpt.web.guard import COOKIE, Guard

LOCAL = "http://127.0.0.1"


def report(round: int, accuracy: float | None = 0.5, **changes: Any) -> Report:
    made = Report(round, 2, 1.0 - 0.1 * round, accuracy, 0.7, 100, 2.0, 10, 20, 40)
    return replace(made, **changes)


def status(state: RunState = RunState.RUNNING, members: Sequence[str] = (), **changes: Any) -> RunStatus:
    there = tuple(MemberStatus(name, True, False, 5) for name in members)
    made = RunStatus("run-1", "fed-cma", state, 1, 3, there, None, None, 100, 1, 2, "trial")
    return replace(made, **changes)


def news(*reports: Report, events: Sequence[RunEvent] = (), **changes: Any) -> RunNews:
    return RunNews(status(**changes), reports, tuple(events))


class Script:
    """A coordinator that tells what a test wrote, one list for each time that it is asked."""

    def __init__(self, *streams: Sequence[RunNews | FedbbptError]) -> None:
        self._streams, self.asked = list(streams), list[int]()

    def watch_events(self, since_round: int = 0) -> Iterator[RunNews]:
        self.asked.append(since_round)
        for item in self._streams.pop(0):
            if isinstance(item, FedbbptError):
                raise item
            yield item

    def status(self) -> RunStatus:
        return status()

    def list(self) -> Sequence[RunStatus]:
        return [status(), status(name="other")]

    def run(self, name: str) -> "Script":
        if name == "nowhere":
            raise UnknownRun("no run has this name", where="run")
        return self


def followed(script: Script) -> list[dict[str, Any]]:
    """Returns what a page that follows a run to its end is told, with all rounds in the order of their coming."""

    async def follow() -> list[dict[str, Any]]:
        run = LiveRun(script, retry_seconds=(0.0,))
        run.start()
        return [item async for item in run.follow()]

    return asyncio.run(follow())


def told(items: Sequence[dict[str, Any]], key: str) -> list[Any]:
    return [one for item in items for one in item[key]]


def test_a_page_is_told_every_round_once_and_the_end() -> None:
    items = followed(Script([news(report(0)), news(report(1), report(2)), news(state=RunState.FINISHED)]))
    assert [one["round"] for one in told(items, "rounds")] == [0, 1, 2]
    assert [item["complete"] for item in items] == [True] + [False] * (len(items) - 1)
    assert items[-1]["over"] and items[-1]["run"]["state"] == "finished"


def test_a_lost_connection_is_told_and_the_watching_goes_on_where_it_was() -> None:
    event = RunEvent(1, 5.0, EventKind.START, "", 0, "2 clients have joined")
    script = Script(
        [news(report(0), events=[event]), CoordinatorUnavailable("no answer", where="hub:7000")],
        [news(report(1), events=[event, replace(event, number=2, kind=EventKind.END)], state=RunState.FINISHED)],
    )
    items = followed(script)
    assert script.asked == [0, 1]
    assert [one["round"] for one in told(items, "rounds")] == [0, 1]
    assert [(one["number"], one["kind"]) for one in told(items, "events")] == [(1, "start"), (2, "end")]
    assert items[-1]["problem"] is None


def test_a_refusal_ends_the_watching() -> None:
    script = Script([NotPermitted("not yours", where="run", fix="a token")])
    (item,) = followed(script)
    assert item["over"] and item["problem"]["what"] == "not yours" and not item["problem"]["again"]


def test_a_page_that_comes_late_is_told_everything_first() -> None:
    async def look() -> tuple[dict[str, Any], dict[str, Any]]:
        run = LiveRun(Script())
        run.take(news(report(0), members=["anna", "berta"]))
        run.take(news(report(1), members=["anna"]))
        pages = run.follow()
        first = await anext(pages)
        run.take(news(report(2), members=["anna", "carla"]))
        run.end()
        return first, await anext(pages)

    first, second = asyncio.run(look())
    assert [one["round"] for one in first["rounds"]] == [0, 1]
    assert [one["client_id"] for one in first["members"]] == ["anna"]
    assert [one["round"] for one in second["rounds"]] == [2]
    assert ([one["client_id"] for one in second["members"]], second["left"]) == (["carla"], [])


def test_a_result_that_is_measured_later_keeps_the_stream_open() -> None:
    async def look() -> list[dict[str, Any]]:
        run = LiveRun(Script(), measured_later=True)
        run.take(news(report(0), state=RunState.FINISHED))
        run.end()
        assert run.awaits_measurement and not run.over
        run.conclude(control_records({"accuracy_after": 0.8, "test_examples": 10}))
        return [item async for item in run.follow()]

    (item,) = asyncio.run(look())
    assert item["over"] and [one["name"] for one in item["controls"]] == ["the result"]


def test_rounds_have_intervals_and_sums_and_money() -> None:
    records = round_records(
        [report(0, 0.75), report(1, None, bytes_up=None)], price=Price("EUR", micros_per_query=2000)
    )
    assert records[0]["interval_95"] == list(accuracy_interval(30, 40)) and records[1]["interval_95"] is None
    assert [one["total_queries"] for one in records] == [100, 200]
    assert [one["total_bytes_up"] for one in records] == [10, None]
    assert records[1]["total_money"] == pytest.approx(0.4)
    assert "total_money" not in round_records([report(0)], price=Price("EUR", micros_per_thousand_tokens=3))[0]
    assert round_records([report(2)], before=records[0])[0]["total_queries"] == 200


def test_of_many_members_those_in_trouble_and_late_are_listed() -> None:
    members = [MemberStatus(f"m{n:04d}", True, True, 1) for n in range(SHOWN_MEMBERS + 50)]
    members += [
        MemberStatus("z-late", True, False, 1, late_since=3.0),
        MemberStatus("z-trouble", True, False, 1, "why"),
    ]
    listed = [one["client_id"] for one in member_records(members)]
    assert listed[:3] == ["z-trouble", "z-late", "m0000"] and len(listed) == SHOWN_MEMBERS


def test_controls_have_the_intervals_of_the_summary() -> None:
    summary = {
        "test_examples": 40,
        "accuracy_before": 0.5,
        "accuracy_bias_only": None,
        "accuracy_after": 0.75,
        "intervals_95": {"no_prompt": [0.1, 0.9]},
        "gains": {"no_prompt": {"difference": 0.25, "interval_95": [0.1, 0.4], "examples": 40}},
    }
    before, result = control_records(summary)
    assert (before["name"], before["interval_95"], before["gain"]["difference"]) == ("no prompt", [0.1, 0.9], 0.25)
    assert (result["name"], result["interval_95"]) == ("the result", list(accuracy_interval(30, 40)))


def test_a_stream_has_heartbeats_and_an_end() -> None:
    async def read() -> str:
        released = asyncio.Event()

        async def items() -> AsyncIterator[dict[str, Any]]:
            await released.wait()
            yield {"loss": float("nan")}

        stream = encoded(items(), 0.0)
        assert [await anext(stream) for _ in range(3)] == ["retry: 1000\n\n", ":\n\n", ":\n\n"]
        released.set()
        return "".join([part async for part in stream if part != ":\n\n"])

    assert asyncio.run(read()) == 'id: 1\nevent: change\ndata: {"loss": null}\n\nevent: end\ndata: {}\n\n'


# Past runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, population in (("first", 6), ("second", 8)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        lines = [{"round": n, "clients": 2, "dev_loss": 1.0 - n / 10, "dev_accuracy": 0.5 + n / 10} for n in range(3)]
        rest = {"train_loss": 0.7, "queries": 100, "seconds": 2.0, "dev_examples": 40, "key of a later version": 1}
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line | rest) + "\n" for line in lines))
        (folder / "job.toml").write_text(
            f'[run]\nname = "trial"\n[method]\nname = "fed-cma"\npopulation = {population}\n'
        )
    summary = {"tested": True, "rounds": 2, "best_round": 2, "accuracy_after": 0.7, "test_examples": 40}
    (tmp_path / "runs" / "first" / "summary.json").write_text(json.dumps(summary))
    return tmp_path / "runs"


@pytest.fixture
def past(runs: Path) -> Iterator[TestClient]:
    with TestClient(Guard(dashboard(Sources(past=RunFolders(runs), folder="runs"))), base_url=LOCAL) as client:
        yield client


def test_past_runs_are_listed_and_shown(past: TestClient) -> None:
    listed = {run["name"]: run for run in past.get("/api/past").json()}
    assert {name: run["state"] for name, run in listed.items()} == {"first": "finished", "second": "unfinished"}
    assert listed["first"]["result"]["accuracy"] == 0.7 and listed["second"]["best"]["dev_accuracy"] == 0.7
    shown = past.get("/api/past/run", params={"name": "second"}).json()
    assert [one["dev_loss"] for one in shown["rounds"]] == [1.0, 0.9, 0.8]
    assert shown["run"]["best_round"] == 2 and shown["settings"]["method.population"] == 8


def test_two_runs_are_compared(past: TestClient) -> None:
    compared = past.get("/api/past/compare", params={"first": "first", "second": "second"}).json()
    assert compared["differences"] == [{"key": "method.population", "first": 6, "second": 8}]
    assert differences({"a": 1}, {"b": 2}) == [
        {"key": "a", "first": 1, "second": None},
        {"key": "b", "first": None, "second": 2},
    ]


@pytest.mark.parametrize("name", ["../runs/first", "/etc", "", "first/../second", "nowhere"])
def test_no_request_names_a_path(past: TestClient, name: str) -> None:
    refused = past.get("/api/past/run", params={"name": name})
    assert refused.status_code == 404 and refused.json()["error"] == "NotFound"


def test_a_broken_run_says_why_and_hides_no_other(past: TestClient, runs: Path) -> None:
    (runs / "second" / "metrics.jsonl").write_text('{"round": 0}\nnot json\n')
    listed = {run["name"]: run for run in past.get("/api/past").json()}
    assert "metrics.jsonl:1: not the report of a round" in listed["second"]["broken"] and "best" in listed["first"]
    assert past.get("/api/past/run", params={"name": "second"}).status_code == 400


def test_the_folder_may_be_a_run_itself(runs: Path) -> None:
    assert [run["name"] for run in RunFolders(runs / "first").all()] == ["first"]


def test_the_measurement_of_a_live_run_comes_from_its_folder(runs: Path) -> None:
    async def look() -> bool:
        live = LiveRuns(Script([news(report(0), state=RunState.FINISHED)]), measured_later=True)
        run = live.run("")
        async for item in run.follow():
            if run.awaits_measurement:
                conclude(Sources(live, result=runs / "first"))
            over: bool = item["over"]
        return over

    assert asyncio.run(look())


# The application


def test_a_live_run_is_streamed() -> None:
    script = Script([news(report(0)), news(report(1), state=RunState.FINISHED)])
    with TestClient(Guard(dashboard(Sources(LiveRuns(script), "hub:7000"))), base_url=LOCAL) as client:
        assert client.get("/api/site").json()["coordinator"] == "hub:7000"
        answer = client.get("/api/run", params={"name": "trial"})
        assert answer.headers["content-type"].startswith("text/event-stream")
        items = [json.loads(data) for data in re.findall("event: change\ndata: (.*)", answer.text)]
        assert [one["round"] for one in told(items, "rounds")] == [0, 1]
        assert answer.text.endswith("event: end\ndata: {}\n\n")
        assert client.get("/api/run", params={"name": "nowhere"}).status_code == 404
        assert client.get("/api/past").status_code == 404


def test_a_client_without_the_right_to_list_sees_its_run() -> None:
    class Hidden(Script):
        def list(self) -> Sequence[RunStatus]:
            raise NotPermitted("not an operator")

    (listed,) = asyncio.run(LiveRuns(Hidden()).all())
    assert (listed["name"], listed["key"]) == ("trial", "trial")


def test_there_is_a_limit_of_watched_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbbpt.web.dashboard.live_runs.MAX_WATCHED", 1)

    async def look() -> None:
        live = LiveRuns(Script([news()], [news()]), retry_seconds=(100.0,))
        live.run("one")
        with pytest.raises(Overloaded, match="1 runs are watched already"):
            live.run("two")
        live.stop()

    asyncio.run(look())


def test_a_browser_signs_in_with_a_token_and_out() -> None:
    tokens = [Token("ann", Role.OBSERVER, token_digest("seen"))]
    guard = Guard(dashboard(Sources(signs_in=True)), tokens, WATCHERS, sign_in=SIGN_IN, open_paths=OPEN_PATHS)
    with TestClient(guard, base_url="https://hub.example.org", follow_redirects=True) as client:
        page = {"accept": "text/html"}
        assert "Paste a token" in client.get("/", headers=page).text
        assert client.get("/static/css/page.css").status_code == 200
        assert "Paste a token" in client.post(SIGN_IN, data={"token": "guess"}, headers=page).text
        signed_in = client.post(SIGN_IN, data={"token": " seen\n"}, headers=page)
        assert 'id="view"' in signed_in.text
        (cookie,) = signed_in.history[0].headers.get_list("set-cookie")
        assert cookie.startswith(f"{COOKIE}=seen;")
        assert {"HttpOnly", "SameSite=strict", "Secure"} <= set(cookie.split("; "))
        assert client.get("/api/site").json()["signs_in"]
        assert "Paste a token" in client.post("/sign-out", headers=page).text


# The page's files


def test_the_page_loads_nothing_from_elsewhere_and_has_no_inline_code() -> None:
    ours = [path for path in STATIC.rglob("*") if path.suffix in (".html", ".css", ".js", ".svg")]
    assert len(ours) > 15
    for path in ours:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
        assert not re.search(r"(src|href|url|import|fetch)\W{1,3}(https?:)?//", text), path
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", text), path
        if path.suffix == ".js" and path.parent.name == "js":
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|\.style\b", text), (
                path
            )


def test_every_file_that_is_shipped_from_others_has_its_licence() -> None:
    assert {path.name for path in (STATIC / "vendor").iterdir()} == {
        "inter.LICENSE", "inter.woff2", "uplot.LICENSE", "uplot.css", "uplot.js",
    }  # fmt: skip

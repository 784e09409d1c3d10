"""`fedbbpt bench scale`, with real processes."""

import json

import pytest

from tests.command_line import run_command


@pytest.mark.slow
def test_bench_scale_measures_a_coordinator(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--clients", "30", "--size", "10", "--rounds", "20", "--json")
    ended = run_command(("bench", "scale", *words), monkeypatch, capsys)
    assert ended.code == 0, ended.message
    found = json.loads(ended.out)
    assert found["rounds"] == 20
    assert found["receipts"] == {"COUNTED": 200} and found["lost"] == {}
    assert found["fewest_tasks"] <= found["tasks_expected"] <= found["most_tasks"]
    assert found["tasks_expected"] == pytest.approx(20 / 3) and found["starved"] == 0
    assert 0 < found["memory_joined"] <= found["memory_peak"] and found["joins_per_second"] > 0


@pytest.mark.parametrize("option", [("--size", "6000"), ("--method", "fed-avg")])
def test_impossible_choices_are_refused(
    option: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = run_command(("bench", "scale", *option), monkeypatch, capsys)
    assert ended.code and option[0] in ended.message

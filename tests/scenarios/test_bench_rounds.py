"""`fedbbpt bench rounds`, with real processes."""

import json
from pathlib import Path

import pytest

from fedbbpt.bench.page import marks
from fedbbpt.bench.rounds.zero_compute import METHODS, arrays, job_keys
from fedbbpt.cli.bench_rounds import BENCHMARK
from fedbbpt.job.config import Job
from fedbbpt.methods import server_half
from tests.command_line import run_command


@pytest.mark.slow
def test_bench_rounds_measures_and_writes_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, (first, last) = tmp_path / "page.md", marks(BENCHMARK)
    page.write_text(f"Before.\n\n{first}\nold\n{last}\n\nAfter.\n")
    words = (
        "--counts",
        "2,17",
        "--methods",
        "fed-bpt",
        "--aggregation",
        "plain",
        "--watchers",
        "1",
        "--page",
        str(page),
        "--json",
    )
    ended = run_command(("bench", "rounds", *words), monkeypatch, capsys)
    assert ended.code == 0
    own, lean = json.loads(ended.out)["rounds"]
    assert (own["clients"], own["kind"], lean["clients"], lean["kind"]) == (2, "own", 17, "lean")
    for found in (own, lean):
        assert 0 < found["barrier"] < found["median"] <= found["p99"]
        assert found["ratio"] == found["median"] / found["barrier"]
        assert 0 < found["client_cpu"] and 0 < found["coordinator_cpu"]
        # A mean of 500 numbers and a rest, in either direction.
        assert 500 < found["bytes_up"] < 4000 and 500 < found["bytes_down"] < 4000
    text = page.read_text()
    assert text.startswith("Before.") and text.endswith("After.\n") and "old" not in text
    assert "fed-bpt, 17 lean" in text


@pytest.mark.slow
def test_a_page_has_a_table_of_secure_aggregation_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("\n".join(marks(BENCHMARK)) + "\n")
    words = ("--counts", "17", "--methods", "fed-cma", "--dim", "20", "--page", str(page), "--json")
    ended = run_command(("bench", "rounds", *words), monkeypatch, capsys)
    assert ended.code == 0
    measured = [(each["clients"], each["aggregation"]) for each in json.loads(ended.out)["rounds"]]
    assert measured == [(17, "plain"), (17, "plain"), (17, "secure")]
    rounds, secure = page.read_text().split("### With secure aggregation")
    assert "fed-cma, 17 lean" in rounds and "secure" not in rounds
    assert "fed-cma, 17 lean, secure" in secure and "secure aggregation takes" in secure


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dim", [20, 500])
def test_clients_that_compute_nothing_answer_in_the_form_of_their_method(method: str, dim: int) -> None:
    job = Job.model_validate(job_keys(method, dim, clients=2, rounds=5))
    half = server_half(job.definition(), job.method, job.space())
    shapes = {name: array.shape for name, array in arrays(job).items()}
    expected = half.expected(half.init(0))
    assert shapes == {
        name: form if isinstance(form, tuple) else (form.rows, form.places) for name, form in expected.items()
    }


@pytest.mark.parametrize(
    "option", [("--counts", "2,x"), ("--counts", "0"), ("--methods", "x"), ("--aggregation", "x"), ("--against", "x")]
)
def test_unknown_choices_are_refused(
    option: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = run_command(("bench", "rounds", *option), monkeypatch, capsys)
    assert ended.code and option[0] in ended.message

"""The kit passes clients that keep the protocol, and names the case that a broken client fails."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fedbbpt import cli
from fedbbpt.conformance.client.cases import Case, profiles, read
from fedbbpt.conformance.client.suite import run
from fedbbpt.conformance.results import Outcome, Result
from tests.slow import slow_except

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/client_from_protos.py"
CASES = {case.name: case for case in read(profiles())}
OURS = [sys.executable, "-m", "fedbbpt", "client", "join", "--coordinator", "{coordinator}", "--ptm", "{ptm}"]
OURS += ["--data", "{data}", "--name", "{client}", "--state", "{state}"]


def example(path: Path = EXAMPLE) -> list[str]:
    return [sys.executable, str(path), "{coordinator}", "{data}", "{client}", "{state}"]


def outcomes(command: Sequence[str], names: Sequence[str], seconds: float = 30.0) -> dict[str, Result]:
    """Returns the results of the named cases by their names."""
    chosen: list[Case] = [CASES[name] for name in names]
    results = asyncio.run(run(command, chosen, frozenset(), lambda result: None, seconds=seconds))
    return {result.case.name: result for result in results}


def failed(results: dict[str, Result]) -> dict[str, str]:
    return {name: result.detail for name, result in results.items() if result.outcome is not Outcome.PASSED}


BRIEF = ["core/rounds", "core/receipt-is-lost", "core/coordinator-restarts-before-a-receipt"]
BRIEF += ["core/client-restarts-before-a-receipt", "core/examples-are-forgotten", "core/id-is-taken"]


def test_a_client_from_protos_passes() -> None:
    assert failed(outcomes(example(), BRIEF)) == {}


@pytest.mark.slow
def test_a_client_from_protos_passes_all_of_core_and_what_it_implements() -> None:
    names = [name for name, case in CASES.items() if case.profile == "core"]
    names += ["fed-cma/losses", "fed-cma/large-scores", "fed-cma/without-offsets", "fed-cma/rounds-without-measurement"]
    assert failed(outcomes(example(), names)) == {}


@pytest.mark.slow
def test_our_client_passes() -> None:
    names = ["core/receipt-is-lost", "core/coordinator-restarts-while-working", "core/client-restarts-before-a-receipt"]
    names += ["core/examples-are-forgotten", "fed-cma/expansion", "fed-cma/large-update"]
    names += ["fed-bpt/limit", "fed-bpt/orders-sent", "fed-bbpt/scalars-sent", "fed-bbpt/theta"]
    names += ["fed-readout/whole", "fed-readout/with-a-prompt", "codecs/bfloat16", "codecs/rotate-int4"]
    assert failed(outcomes(OURS, names)) == {}


MUTANTS = {
    "wrong draw": ("math.cos(2 * math.pi * v)", "math.sin(2 * math.pi * v)", "core/rounds", "candidate"),
    "wrong uniforms": ("(word >> 11) + 0.5", "(word >> 12) + 0.5", "core/rounds", "candidate"),
    "wrong weight": ("weight=len(self._train)", "weight=len(self._lines)", "core/rounds", "the weight is 32"),
    "not scaled": ("loss / unit for loss", "loss / 1.0 for loss", "core/rounds", "losses[0] is"),
    "scores not rounded": ("[float32(s + 0.25 * o)", "[(s + 0.25 * o)", "fed-cma/large-scores", "losses["),
    "no retry": (
        "if (error.code() not in REPEATED and",
        "if True or (",
        "core/join-is-repeated",
        "has ended before the run",
    ),
    "no pauses": ("time.sleep(", "abs(", "core/join-is-repeated", "without pauses"),
    "no delay": ("(seconds or 0.0) +", "", "core/coordinator-is-overloaded", "RetryInfo asked for 1 s"),
    "Join in place of resubmission": (
        "                    patience.wait(error)\n",
        "                    self._run, pending = self._join(), None\n",
        "core/receipt-is-lost",
        "joined 2 times",
    ),
    "no resubmission": ("if pending is not None:", "if False:", "core/receipt-is-lost", "did not happen"),
    "another key": ("self.key = path.read_text()", "pass", "core/client-restarts-while-working", "another client_key"),
    "answer not kept": (
        'self._write("answer"',
        'print("answer"',
        "core/client-restarts-before-a-receipt",
        "pairs",
    ),
    "no heartbeats": (
        "self._requests.put(pb.TakePartRequest(heartbeat=pb.Heartbeat()))",
        "pass",
        "core/heartbeats-while-idle",
        "heartbeats did not happen",
    ),
    "never silent": ("SILENT_INTERVALS = 3", "SILENT_INTERVALS = 10**6", "core/coordinator-is-silent", "a new stream"),
    "ties count": ("scores.index(max(scores)) == label", "scores[label] == max(scores)", "core/ties", "dev_correct"),
    "corrupt arrays": ("!= bundle.crc32c", "== -1", "core/corrupt-task", "differ from their checksum"),
    "labels are sent": ("ptm.Example(text=text)", "ptm.Example(text=text, label=0)", "core/rounds", "labels were sent"),
    "no inline": ('!= "UnknownExamples"', '!= "nothing"', "core/examples-are-forgotten", "has ended before"),
    "too many prompts": ("= card.max_prompts, run", "= 1024, run", "core/few-prompts-in-a-call", "has ended before"),
    "measures training examples": ("self._on_dev.losses(prompts)", "self._on_train.losses(prompts)", "core/rounds", ""),
    "no finalists": ("header.finalists.extend(measured[1:])", "pass", "core/finalists", "measures 0 finalists"),
    "comes back after an eviction": (
        'if why == "SessionUnknown":',
        'if why in ("SessionUnknown", "SessionEvicted"):',
        "core/evicted-while-listening",
        "the client's end",
    ),
}


@pytest.mark.parametrize("name", slow_except(MUTANTS, "wrong draw", "wrong weight", "no retry", "answer not kept"))
def test_a_broken_client_fails_the_right_case(tmp_path: Path, name: str) -> None:
    right, wrong, case, detail = MUTANTS[name]
    source = EXAMPLE.read_text()
    assert source.count(right) == 1, name
    path = tmp_path / "client.py"
    path.write_text(source.replace(right, wrong))
    found = outcomes(example(path), [case], seconds=4.0)[case]
    assert found.outcome is Outcome.FAILED and detail in found.detail, found


# The command


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fedbbpt", "conformance", "client", *words])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_command_judges_a_client(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A program that ends at once fails, is a known failure if it is on the list, and its output can be kept."""
    nobody = ["--", sys.executable, "-c", "print('not today')", "{coordinator}", "{data}"]
    chosen = ["--case", "core/rounds", "--junit", str(tmp_path / "junit.xml"), "--keep", str(tmp_path / "kept")]
    assert command(monkeypatch, *chosen, "--json", *nobody) == 8
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    (case,) = told["cases"]
    assert (case["name"], case["outcome"]) == ("core/rounds", "failed")
    assert "has ended before the run did; the client's last words: not today" in case["detail"]
    assert (tmp_path / "kept/core-rounds/client.log").read_text() == "not today\n"
    (suite,) = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert suite.get("name") == "fedbbpt.conformance.client.core" and suite.get("failures") == "1"
    (tmp_path / "known").write_text("core/rounds  # some day\n")
    assert command(monkeypatch, "--case", "core/rounds", "--known-failing", str(tmp_path / "known"), *nobody) == 0
    assert "failed: known" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "no command is given"),
        (["--", "sh", "{data}"], "an argument with {coordinator}"),
        (["--", "no-such-program", "{coordinator}", "{data}"], "no-such-program"),
        (["--case", "core/nothing", "--", "sh", "{coordinator}", "{data}"], "there is no case 'core/nothing'"),
        (["--profile", "hard", "--list"], "unknown profile 'hard'"),
    ],
)
def test_a_wrong_command_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    assert command(monkeypatch, *words) == 3
    assert problem in " ".join(capsys.readouterr().err.split())


def test_cases_have_claims_and_can_be_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(case.claim.endswith(".") for case in CASES.values())
    assert command(monkeypatch, "--list", "--json") == 0
    assert {case["name"] for case in json.loads(capsys.readouterr().out)["cases"]} == CASES.keys()

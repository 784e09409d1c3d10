"""Runs `fedbbpt bench methods` as a user does."""

import json
import sys
from pathlib import Path

import pytest

from fedbbpt import cli
from fedbbpt.bench.methods.records import Record
from fedbbpt.cli.bench_grids import read_seeds

SMALL = ("--model", "fake", "--clients", "3", "--shots", "4", "--test-examples", "50", "--budget-queries", "1500")


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fedbbpt", "bench", "methods", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_one_command_makes_tables_and_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = tmp_path / "mine.toml"
    row.write_text('[method]\nname = "fed-cma"\npopulation = 6\n')
    monkeypatch.chdir(tmp_path)
    words = (*SMALL, "--alpha", "0.3,iid", "--seeds", "0..1", "--methods", "bias-only,mine.toml", "--out", "out")
    assert command(monkeypatch, *words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["page"] == "out/demo.md" and all(Path(path).exists() for path in told["plots"])
    kept = json.loads(Path(told["records"]).read_text())
    records = [Record.model_validate(cell) for cell in kept["cells"]]
    assert {(r.method, r.split, r.seed) for r in records} == {
        (method, split, seed) for method in ("bias-only", "mine") for split in ("0.3", "iid") for seed in (0, 1)
    }
    before = {path: path.stat().st_mtime_ns for path in Path("out/cells").iterdir()}
    assert len(before) == 8
    assert command(monkeypatch, *words) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("out/cells").iterdir()} == before
    shown = capsys.readouterr().out
    assert "demo, Dirichlet(0.3)" in shown and "mine" in shown
    # The page's command makes the same cells.
    line = next(line for line in Path("out/demo.md").read_text().splitlines() if line.startswith("$ "))
    again = line.split()[4:]
    assert command(monkeypatch, *again, "--out", "out") == 0
    assert {path: path.stat().st_mtime_ns for path in Path("out/cells").iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--task", "trek"), "unknown task 'trek'"),
        (("--task", "trec"), "--data: no data is given"),
        (("--data", "here"), "the task demo makes its own data"),
        (("--alpha", "0.1,-1"), "invalid '-1' in '0.1,-1'"),
        (("--alpha", "iid,iid"), "invalid 'iid' in 'iid,iid'"),
        (("--seeds", "4..0"), "'4..0' is not a list of seeds"),
        (("--methods", "fed-cna"), "unknown method 'fed-cna'"),
    ],
)
def test_bad_input_is_rejected(
    words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, *SMALL, *words) == 3
    assert message in capsys.readouterr().err


def test_seeds_are_read_from_ranges_and_lists() -> None:
    assert read_seeds("0..4") == (0, 1, 2, 3, 4)
    assert read_seeds("3") == (3,)
    assert read_seeds("2,0") == (2, 0)

"""Runs `fedbbpt bench data` as a user does."""

import json
import sys
from pathlib import Path

import pytest

from fedbbpt import cli
from fedbbpt.bench.data_sizes.records import Record

SMALL = ("--model", "fake", "--clients", "3", "--test-examples", "40", "--budget-queries", "1500")


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fedbbpt", "bench", "data", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_one_command_makes_tables_a_picture_and_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = tmp_path / "mine.toml"
    row.write_text('rounds = 2\n[method]\nname = "fed-cma"\npopulation = 4\n')
    monkeypatch.chdir(tmp_path)
    words = (*SMALL, "--sizes", "2,4", "--alpha", "iid", "--seeds", "0..1", "--methods", "mine.toml", "--out", "out")
    assert command(monkeypatch, *words, "--learns", "together,alone", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"page": "out/demo-data.md", "records": "out/demo-data.json", "picture": "out/demo-data.svg"}
    assert Path(told["picture"]).read_text().startswith("<?xml")
    kept = json.loads(Path(told["records"]).read_text())
    records = [Record.model_validate(cell) for cell in kept["cells"]]
    runs = {(r.shots, r.seed, each.learns) for r in records for each in r.results if each.method == "mine"}
    assert runs == {(shots, seed, learns) for shots in (2, 4) for seed in (0, 1) for learns in ("alone", "together")}
    before = {path: path.stat().st_mtime_ns for path in Path("out/cells").iterdir()}
    assert len(before) == 16
    # The page's command makes the same cells.
    line = next(line for line in Path("out/demo-data.md").read_text().splitlines() if line.startswith("$ "))
    assert command(monkeypatch, *line.split()[4:], "--out", "out") == 0
    assert {path: path.stat().st_mtime_ns for path in Path("out/cells").iterdir()} == before
    shown = capsys.readouterr().out
    assert "demo, IID, 4 of each class, 28 examples" in shown and "best alone" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sizes", "16,x"), "--sizes: '16,x' is not a list of sizes hint: different whole numbers"),
        (("--sizes", "16,16"), "--sizes: '16,16' is not a list of sizes"),
        (
            ("--learns", "alone,apart"),
            "--learns: 'alone,apart' does not say whose examples hint: different ones of together",
        ),
        (("--methods", "zero-shot"), "unknown method 'zero-shot'"),
        (("--task", "trec"), "--data: no data is given"),
        (("--sizes", "100000"), "training examples of class"),
    ],
)
def test_bad_input_is_rejected(
    words: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *SMALL, *words) == 3
    assert message in " ".join(capsys.readouterr().err.split())

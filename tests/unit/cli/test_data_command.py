"""`fedbbpt data` prints the numbers of the split and draws them."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias
from xml.etree import ElementTree

import numpy as np
import pytest

from fedbbpt import cli
from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import read_job

DOCUMENTED = (Path(__file__).parents[3] / "docs/data.md").read_text()

Run: TypeAlias = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `fedbbpt data job.toml` with the job of the page on data; returns its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("job.toml").write_text("[data]\nalpha = 0.1\n[cohort]\nclients = 10\n")

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedbbpt", "data", "job.toml", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    return command


def test_the_printed_report_is_that_of_the_page(run: Run) -> None:
    code, printed, _ = run()
    shown = DOCUMENTED.partition("$ fedbbpt data job.toml --picture clients.svg\n")[2].partition("```")[0]
    assert code == 0
    assert [line.rstrip() for line in printed.splitlines()] == shown.splitlines()


def test_json_has_the_counts_of_the_split(run: Run) -> None:
    Path("job.toml").write_text('[data]\npartition = "iid"\nserver_share = 0.25\nshots_per_class = 0\n')
    _, printed, _ = run("--seed", "3", "--json")
    found, splits = json.loads(printed), prepare(read_job(Path("job.toml")))
    counts = np.array(list(found["counts"].values()))
    assert (found["seed"], list(found["counts"])) == (3, ["0", "1", "2", "3"])
    np.testing.assert_array_equal(counts.sum(axis=0), 45)
    assert found["server_counts"] == [15] * 7 and found["labels"] == list(splits.job.task.labels)
    assert found["examples_per_client"]["fewest"] == counts.sum(axis=1).min()
    assert found["mean_distance"] < 0.05
    documented = set(re.findall(r"^\| `(\w+)` \|", DOCUMENTED.partition("`--json` prints")[2], re.M))
    assert {"labels", "counts", "server_counts", "warnings"} == documented <= set(found)


def test_the_server_and_other_clients_are_in_the_table(run: Run) -> None:
    Path("job.toml").write_text("[data]\nserver_share = 0.25\nalpha = 100.0\n[cohort]\nclients = 12\n")
    _, printed, _ = run()
    lines = [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines()]
    row = next(number for number, line in enumerate(lines) if line[0] == "scheduling")
    assert lines[row - 1][-2:] == ["2 others", "server"] and lines[row][-1] == "4"
    assert sum(int(cell) for cell in lines[row][1:] if cell != "·") == 16


def test_columns_are_named_after_the_values_of_the_partition_column(run: Run) -> None:
    rows = [
        f"{i} on {label} at {name},{label},{name}" for name in ("north", "east") for label in "ab" for i in range(9)
    ]
    Path("q.csv").write_text("\n".join(["text,label,hospital", *rows]) + "\n")
    table = '[data]\npartition = "column"\npartition_column = "hospital"\nshots_per_class = 0\nsource = "q.csv"\n'
    Path("job.toml").write_text(f"{table}[cohort]\nclients = 2\n")
    assert run()[1].splitlines()[0].split()[-2:] == ["east", "north"]


@pytest.mark.parametrize("clients", [4, 60])
def test_the_picture_has_a_patch_for_each_class_and_names_them(clients: int, run: Run) -> None:
    pytest.importorskip("matplotlib")
    Path("job.toml").write_text(f"[cohort]\nclients = {clients}\n[data]\npartition = 'iid'\nshots_per_class = 0\n")
    code, _, said = run("--picture", "clients.svg")
    assert code == 0, said
    text = Path("clients.svg").read_text()
    ElementTree.fromstring(text)
    for label in prepare(read_job(Path("job.toml"))).job.task.labels:
        assert f"<!-- {label} -->" in text
    assert len(set(re.findall(r"fill: (#[0-9a-f]{6})", text)) - {"#ffffff", "#000000"}) >= 7


def test_a_label_is_not_drawn_as_a_formula(run: Run) -> None:
    pytest.importorskip("matplotlib")
    Path("q.csv").write_text(
        "\n".join(["text,label", *(f"{i} is,{label}" for label in ("$a_{$", "b") for i in range(9))])
    )
    Path("job.toml").write_text('[data]\nsource = "q.csv"\nshots_per_class = 0\n[cohort]\nclients = 2\n')
    assert run("--picture", "clients.svg")[0] == 0
    assert "<!-- $a_{$ -->" in Path("clients.svg").read_text()


def test_other_picture_formats_are_refused(run: Run) -> None:
    pytest.importorskip("matplotlib")
    code, printed, said = run("--picture", "clients.txt")
    assert (code, printed) == (3, "") and "unknown kind of picture: " in said


def test_without_matplotlib_the_error_names_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, said = run("--picture", "clients.svg")
    assert code == 3 and "pip install 'fedbbpt[plots]'" in said

"""Tables and plots of made-up records, whose figures can be computed by hand."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fedbbpt.bench.methods import plots, report
from fedbbpt.bench.methods.grid import Grid
from fedbbpt.bench.methods.records import Point, Record
from fedbbpt.errors import InvalidInput
from fedbbpt.job.sections import PtmSection
from fedbbpt.types import PrecisionChoice

GRID = Grid(
    task="trec",
    source="somewhere/trec",
    splits=("0.1", "iid"),
    seeds=(0, 1),
    budget=4000,
    methods=("bias-only", "climber", "loner"),
    clients=10,
    shots=16,
    ptm=PtmSection(model="fake", precision=PrecisionChoice.FLOAT32),
    test_examples=500,
)


def record(method: str, split: str, seed: int, best: tuple[float, ...], answers: int = 0) -> Record:
    """Makes a record in which a round costs 1,000 queries, and each answer 50 bytes up and 100 down."""
    curve = tuple(
        Point(round=i, queries=100 + 1000 * i, bytes=150 * answers * i // max(len(best) - 1, 1), last=b - 0.1, best=b)
        for i, b in enumerate(best)
    )
    return Record(
        method=method,
        split=split,
        seed=seed,
        curve=curve,
        answers=answers,
        bytes_up=50 * answers,
        bytes_down=100 * answers,
        queries_evaluation=1000,
        test_examples=500,
        seconds=12.0 + seed,
    )


RECORDS = tuple(
    found
    for split in GRID.splits
    for seed in GRID.seeds
    for found in (
        record("bias-only", split, seed, (0.65,)),
        record("climber", split, seed, (0.5, 0.6 + 0.1 * seed, 0.68), answers=30),
        record("loner", split, seed, (0.5, 0.52)),
    )
)


def rows(page: str, section: str) -> dict[str, list[str]]:
    lines = page[page.index(f"## {section}") :].splitlines()[4:]
    cells = (line.strip("|").split("|") for line in lines[: lines.index("")])
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells}


def test_the_page_has_a_table_for_each_split(tmp_path: Path) -> None:
    page, data = report.write(GRID, RECORDS, 0.65, "fedbbpt bench methods", (tmp_path / "a.svg",), tmp_path)
    text = page.read_text()
    table = rows(text, "Dirichlet(0.1)")
    assert table == rows(text, "IID")
    # Seed 0 reaches 65 % in round 2, seed 1 in round 1; seed 1 ends at 68 % after 70 %.
    assert table["climber"] == [
        *("68.0 ± 0.0", "58.0 ± 0.0", "2.0", "2,100", "1,600 (2 of 2)", "50", "100", "4,500", "12")
    ]
    assert table["bias-only"] == ["65.0 ± 0.0", "", "", "100", "100 (2 of 2)", "", "", "", "12"]
    assert table["loner"] == ["52.0 ± 0.0", "42.0 ± 0.0", "0.0", "1,100", "(0 of 2)", "", "", "", "12"]
    assert "![a](a.svg)" in text and "$ fedbbpt bench methods\n" in text
    kept = json.loads(data.read_text())
    assert [Record.model_validate(cell) for cell in kept["cells"]] == list(RECORDS)
    assert "somewhere" not in text + data.read_text()


def test_spread_gives_mean_and_deviation() -> None:
    assert report.spread([60.0, 62.0, 64.0]) == "62.0 ± 2.0"
    assert report.spread([60.0]) == "60.0"


def test_a_record_derives_figures_from_its_curve() -> None:
    climber = record("climber", "iid", 0, (0.5, 0.7, 0.66), answers=10)
    assert climber.below_peak == pytest.approx(0.04)
    assert climber.queries_to(0.7) == 1100
    assert climber.queries_to(0.71) is None
    assert (climber.up_per_answer, climber.down_per_answer) == (50.0, 100.0)


def test_plots_are_small_and_reproducible(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (plots.draw(GRID, RECORDS, tmp_path / name) for name in ("one", "two"))
    assert [path.name for path in one] == ["trec-queries.svg", "trec-bytes.svg"]
    for path, again in zip(one, two, strict=True):
        assert path.read_bytes() == again.read_bytes()
        assert path.stat().st_size < 200_000
    shown = [
        {text for element in ElementTree.parse(path).iter() if (text := (element.text or "").strip())} for path in one
    ]
    assert {"climber", "loner", "bias-only", "Dirichlet(0.1)", "IID"} <= shown[0]
    assert "climber" in shown[1] and "loner" not in shown[1]


def test_controls_alone_draw_nothing(tmp_path: Path) -> None:
    assert plots.draw(GRID, [found for found in RECORDS if found.method == "bias-only"], tmp_path) == ()


def test_without_matplotlib_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InvalidInput, match=r"pip install 'fedbbpt\[plots\]'"):
        plots.draw(GRID, RECORDS, tmp_path)

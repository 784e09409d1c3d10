"""Cells use the same shots and seeds for all methods, and run once, in one process or in several."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.bench.cells import read_record, run_cells, write_record
from fedbbpt.bench.methods.controls import CONTROLS
from fedbbpt.bench.methods.grid import Cell, Grid, measure, sample_test_examples
from fedbbpt.bench.methods.records import Record
from fedbbpt.bench.methods.rows import MethodRow, built_in, choose
from fedbbpt.errors import InvalidInput, InvalidJob, StoreMismatch
from fedbbpt.federation.comparison import compare
from fedbbpt.federation.run_folder import compared_data
from fedbbpt.federation.splits import prepare
from fedbbpt.job.sections import PtmSection
from fedbbpt.job.settings import task_spec
from fedbbpt.tasks.manual_prompts import MANUAL_PROMPTS
from fedbbpt.tasks.presets import PRESETS
from fedbbpt.types import PrecisionChoice
from tests.tiny_run import fake_ptm

TINY = '[method]\nname = "fed-cma"\npopulation = 6\n[task.prompt]\ndim = 6\ntokens = 4\n'
CMA = MethodRow("tiny", TINY, "tiny.toml")
ALONE = MethodRow("alone", f'learns = "alone"\n{TINY}', "alone.toml")
POOLED = MethodRow("pooled", f'learns = "pooled"\n{TINY}', "pooled.toml")


def grid(**changes: Any) -> Grid:
    made = Grid(
        task="demo",
        source="demo",
        splits=("0.5",),
        seeds=(0,),
        budget=1500,
        methods=("bias-only", CMA),
        clients=3,
        shots=4,
        ptm=PtmSection(model="fake", precision=PrecisionChoice.FLOAT32),
        test_examples=60,
    )
    return replace(made, **changes)


def test_methods_with_the_same_seed_have_the_same_shots() -> None:
    cells = grid(methods=("zero-shot", CMA, ALONE, POOLED), splits=("0.1", "iid")).cells()
    pooled = [prepare(cell.job).pooled() for cell in cells]
    texts = {tuple(sorted(data.examples.texts)) for data in pooled}
    assert len(texts) == 1
    assert [len(prepare(cell.job).train) for cell in cells] == 8 * [3]
    dev = {tuple(sorted(t for part in prepare(cell.job).dev for t in part.examples.texts)) for cell in cells}
    assert len(dev) == 1
    assert len({cell.job.space().projection.seed for cell in cells if cell.learns}) == 1  # type: ignore[union-attr]  # latent
    other = prepare(grid(seeds=(1,)).cells()[0].job).pooled()
    assert tuple(sorted(other.examples.texts)) not in texts


@pytest.mark.parametrize("task", MANUAL_PROMPTS)
def test_built_in_rows_are_jobs_of_every_task(task: str) -> None:
    cells = grid(task=task, methods=choose([], tuple(CONTROLS)), clients=10).cells()
    assert [cell.method for cell in cells] == [*CONTROLS, *built_in()]
    assert {cell.learns for cell in cells} == {None, "together", "pooled", "alone"}
    assert {cell.job.task.preset for cell in cells} == {"" if task == "demo" else task}


def test_every_preset_has_a_manual_prompt() -> None:
    assert set(MANUAL_PROMPTS) == {"demo", *PRESETS}


def test_soft_prompts_begin_as_the_manual_prompt_unless_a_row_sets_another() -> None:
    own = MethodRow("own", TINY + 'initial_text = "Now"\n', "own.toml")
    cells = grid(methods=(CMA, own)).cells()
    texts = [cell.job.task.prompt.initial_text for cell in cells]  # type: ignore[union-attr]  # latent
    assert texts == [MANUAL_PROMPTS["demo"], "Now"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[method]\nname = "fed-cma"\npopulaton = 3\n', r"row\.toml:3: unknown key 'method\.populaton'"),
        ('[method]\nname = "fed-cma"\n[data]\nalpha = 1.0\n', r"row\.toml: a row cannot set 'data'"),
        ('[method]\nname = "fed-cma"\n[task]\npreset = "trec"\n', r"row\.toml: a row cannot set 'task\.preset'"),
        ("[codec]\n", r"row\.toml: the row names no method"),
        ('method = "fed-cma"\n', r"row\.toml: method = 'fed-cma'; a table"),
        ('task = 3\n[method]\nname = "fed-cma"\n', r"row\.toml: task = 3; a table"),
        ("learns = together", r"row\.toml:1: not TOML"),
        ('learns = "alome"\n[method]\nname = "fed-cma"\n', r"row\.toml: learns = 'alome'; one of together, pooled"),
        (
            '[method]\nname = "fed-cma"\n[cohort]\nsize = 4\n',
            r"row\.toml:4: cohort\.size: 4 is more than cohort\.clients = 3",
        ),
    ],
)
def test_a_row_with_wrong_keys_is_rejected(text: str, message: str) -> None:
    with pytest.raises(InvalidJob, match=message):
        grid(methods=(MethodRow("row", text, "row.toml"),)).cells()


def test_rows_are_read_from_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text(TINY)
    (tmp_path / "a.toml").write_text(TINY)
    chosen = choose([str(tmp_path), "bias-only", "fed-bpt"], tuple(CONTROLS))
    assert [row if isinstance(row, str) else row.name for row in chosen] == ["a", "b", "bias-only", "fed-bpt"]
    with pytest.raises(InvalidInput, match="unknown method 'fed-cmaa'"):
        choose(["fed-cmaa"], tuple(CONTROLS))
    with pytest.raises(InvalidInput, match="'a' is given twice"):
        choose([str(tmp_path), str(tmp_path / "a.toml")], tuple(CONTROLS))


def test_controls_agree_with_an_evaluation() -> None:
    cells = {cell.method: cell for cell in grid(methods=tuple(CONTROLS)).cells()}
    splits = prepare(cells["zero-shot"].job)
    data = replace(compared_data(splits), test=sample_test_examples(splits.test, 60))
    space, ptm = splits.job.space(), fake_ptm()
    compared = compare(ptm, task_spec(splits.job), space, np.zeros(space.dim, np.float32), data)
    found = {name: measure(cell, fake_ptm()) for name, cell in cells.items()}
    assert found["zero-shot"].end.best == compared.without.accuracy
    assert compared.offsets is not None and found["bias-only"].end.best == compared.offsets.accuracy
    assert found["bias-only"].end.queries == len(splits.pooled())
    assert found["bias-only"].queries_evaluation == 60
    assert found["manual-prompt"].end.best != compared.without.accuracy
    assert {record.bytes_up for record in found.values()} == {0}


def test_a_cell_gives_the_same_record_again() -> None:
    (cell,) = grid(methods=(CMA,)).cells()
    one, other = measure(cell, fake_ptm()), measure(cell, fake_ptm())
    assert one.model_copy(update={"seconds": 0.0}) == other.model_copy(update={"seconds": 0.0})
    assert one.end.queries <= 1500 and one.bytes_up > 0 and one.answers > 0
    assert one.end.bytes == one.bytes_up + one.bytes_down


def test_searches_without_a_federation_send_nothing() -> None:
    for cell in grid(methods=(POOLED, ALONE)).cells():
        record = measure(cell, fake_ptm())
        assert (record.answers, record.bytes_up, record.end.bytes) == (0, 0, 0)
        assert record.end.round > 0


def test_a_cells_file_name_depends_on_all_that_decides_it(tmp_path: Path) -> None:
    (cell,) = grid(methods=(CMA,)).cells()

    def other(**changes: Any) -> Cell:
        (found,) = grid(**{"methods": (CMA,), **changes}).cells()
        return found

    quicker = MethodRow("tiny", TINY.replace("6", "8"), "tiny.toml")
    for changed in (other(budget=1501), other(methods=(quicker,)), other(test_examples=61), other(shots=5)):
        assert changed.file_name != cell.file_name
    here, there = (other(task="sst2", source=str(tmp_path / place / "sst2")) for place in ("here", "there"))
    assert here.file_name == there.file_name


def test_an_interrupted_grid_runs_only_the_missing_cells(tmp_path: Path) -> None:
    cells = grid(seeds=(0, 1)).cells()
    first = run_cells(cells, tmp_path, measure, Record, processes=1, threads=1)
    kept = tmp_path / cells[0].file_name
    write_record(kept, read_record(kept, Record).model_copy(update={"seconds": 1234.5}))
    (tmp_path / cells[3].file_name).unlink()
    heard: list[Cell] = []
    second = run_cells(cells, tmp_path, measure, Record, processes=1, threads=1, done=heard.append)
    assert second[0].seconds == 1234.5
    assert [record.curve for record in second] == [record.curve for record in first]
    assert sorted(cell.file_name for cell in heard) == sorted(cell.file_name for cell in cells)
    kept.write_text("{}")
    with pytest.raises(StoreMismatch, match="not a cell of this version"):
        run_cells(cells, tmp_path, measure, Record, processes=1, threads=1)


def test_several_processes_find_the_same_as_one(tmp_path: Path) -> None:
    cells = grid(seeds=(0, 1)).cells()
    one = run_cells(cells, tmp_path / "one", measure, Record, processes=1, threads=1)
    two = run_cells(cells, tmp_path / "two", measure, Record, processes=2, threads=1)
    assert [record.model_copy(update={"seconds": 0.0}) for record in two] == [
        record.model_copy(update={"seconds": 0.0}) for record in one
    ]


def test_an_error_in_another_process_arrives_unchanged(tmp_path: Path) -> None:
    """Kills: an exception that cannot be sent, which takes the whole pool down."""
    with pytest.raises(InvalidInput, match="--budget-queries: 5 queries are too few; at least 28"):
        run_cells(grid(methods=(CMA,), budget=5).cells(), tmp_path, measure, Record, processes=2, threads=1)


def test_test_examples_are_sampled_alike_for_all_cells() -> None:
    test = prepare(grid().cells()[0].job).test
    assert len(sample_test_examples(test, 0)) == len(test)
    assert sample_test_examples(test, 10).examples.texts == sample_test_examples(test, 10).examples.texts
    assert set(sample_test_examples(test, 10).examples.texts) < set(test.examples.texts)


def test_built_in_rows_are_documented() -> None:
    page = (Path(__file__).parents[3] / "docs/comparing.md").read_text()
    rows = page[page.index("| row | content |") :]
    assert {line.split("`")[1] for line in rows.splitlines() if line.startswith("| `")} == {*CONTROLS, *built_in()}

"""A grid of sizes: the same examples for all rows, and baselines that are what they say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.bench.cells import run_cells
from fedbbpt.bench.data_sizes import baselines, report
from fedbbpt.bench.data_sizes.baselines import OFFSETS, READOUT, ZERO_SHOT, Columns, Member
from fedbbpt.bench.data_sizes.grid import DataGrid, measure, thinned
from fedbbpt.bench.data_sizes.records import BEST_ALONE, Record, Result
from fedbbpt.bench.methods.controls import ControlInputs, zero_shot
from fedbbpt.bench.methods.grid import sample_test_examples
from fedbbpt.bench.methods.rows import MethodRow
from fedbbpt.federation.splits import prepare
from fedbbpt.job.sections import PtmSection
from fedbbpt.types import PrecisionChoice
from tests.tiny_run import fake_ptm

TINY = 'rounds = 4\n[method]\nname = "fed-cma"\npopulation = 4\n[task.prompt]\ndim = 4\ntokens = 4\n'
SEARCH = MethodRow("tiny", TINY, "tiny.toml")


def grid(**changes: Any) -> DataGrid:
    made = DataGrid(
        task="demo",
        source="demo",
        shots=(4, 0),
        most=40,
        splits=("0.5",),
        seeds=(0,),
        rows=(SEARCH,),
        learns=("alone", "together", "pooled"),
        budget=2000,
        clients=3,
        ptm=PtmSection(model="fake", precision=PrecisionChoice.FLOAT32),
        test_examples=60,
    )
    return replace(made, **changes)


def test_every_size_has_the_baselines_the_readout_and_each_row() -> None:
    cells = grid().cells()
    expected = [("", "alone"), (READOUT, "together"), *(("tiny", learns) for learns in ("alone", "together", "pooled"))]
    assert [(cell.shots, cell.method, cell.learns) for cell in cells] == [
        (shots, *each) for shots in (4, 0) for each in expected
    ]
    assert len({cell.file_name for cell in cells}) == len(cells)


def test_cells_of_one_size_have_the_same_examples() -> None:
    splits = [thinned(prepare(cell.job), cell.most) for cell in grid(splits=("0.5", "iid")).cells()]
    for size in (splits[:10], splits[10:]):
        for half in (size[:5], size[5:]):
            assert len({tuple(part.examples.texts for part in each.train) for each in half}) == 1
            assert len({tuple(part.examples.texts for part in each.dev) for each in half}) == 1
    assert 36 <= len(splits[10].pooled()) <= 40


def test_thinning_leaves_every_member_its_share() -> None:
    whole = prepare(grid().cells()[-1].job)
    few = thinned(whole, 40)
    total = len(whole.pooled())
    for before, after in zip(whole.train, few.train, strict=True):
        assert set(after.examples.texts) <= set(before.examples.texts)
        assert len(after) == max(1, len(before) * 40 // total)
    assert thinned(whole, total) is whole


@pytest.fixture
def members() -> tuple[tuple[Member, ...], Columns]:
    """Three members of one class each, and the first column beyond the classes tells the classes apart."""
    draw = np.random.default_rng(0)

    def columns(labels: np.ndarray[Any, np.dtype[np.int64]]) -> Columns:
        scores = 0.2 * draw.normal(size=(len(labels), 5))
        scores[:, 3] += labels
        scores[:, 0] += 1.0  # the classes' own scores always say class 0
        return Columns(scores, labels)

    mixed = np.arange(30) % 3
    found = tuple(Member(columns(np.full(20, label)), columns(mixed)) for label in range(3))
    return found, columns(np.arange(300) % 3)


def test_members_that_learn_alone_choose_the_best_of_their_dev_examples(
    members: tuple[tuple[Member, ...], Columns],
) -> None:
    found = {(result.method, result.learns): result for result in baselines.measure(*members, 3)}
    # A member of one class learns to say that class, which is no worse than what the model says.
    assert found[ZERO_SHOT, "alone"].accuracy == found[ZERO_SHOT, "pooled"].accuracy == pytest.approx(1 / 3)
    assert found[OFFSETS, "alone"].accuracy == pytest.approx(1 / 3, abs=0.02)
    assert found[BEST_ALONE, "alone"].accuracy >= max(found[m, "alone"].accuracy for m in (ZERO_SHOT, OFFSETS)) - 0.02
    # Only with the examples of the others can the informative column be used.
    assert found[READOUT, "pooled"].accuracy > 0.9
    assert found[READOUT, "alone"].accuracy < 0.6
    assert (found[ZERO_SHOT, "together"].queries, found[OFFSETS, "together"].queries) == (0, 150)
    assert found[READOUT, "pooled"].queries == found[BEST_ALONE, "alone"].queries == 150


def test_a_record_holds_what_other_ways_find() -> None:
    (cell, *_) = grid().cells()
    record, splits = measure(cell, fake_ptm()), prepare(cell.job).completed_by(fake_ptm())
    test = sample_test_examples(splits.test, 60)
    found = {(result.method, result.learns): result.accuracy for result in record.results}
    assert found[ZERO_SHOT, "together"] == zero_shot(ControlInputs(fake_ptm(), splits, test, "")).accuracy
    assert (record.train_examples, record.test_examples) == (len(splits.pooled()), 60)


def test_the_federation_finds_the_pooled_readout() -> None:
    cells = grid(rows=()).cells()
    alone, together = (measure(cell, fake_ptm()) for cell in cells[:2])
    pooled = next(each for each in alone.results if (each.method, each.learns) == (READOUT, "pooled"))
    (federated,) = together.results
    assert abs(federated.accuracy - pooled.accuracy) <= 2 / 60
    assert federated.queries == pooled.queries


def test_an_interrupted_grid_continues(tmp_path: Path) -> None:
    cells = grid(shots=(4,)).cells()
    records = run_cells(cells, tmp_path, measure, Record, processes=1, threads=1)
    (tmp_path / cells[3].file_name).unlink()
    again = run_cells(cells, tmp_path, measure, Record, processes=1, threads=1)
    assert [record.results for record in again] == [record.results for record in records]
    assert [again[i].seconds == records[i].seconds for i in (0, 1, 2, 4)] == 4 * [True]


def test_a_cells_file_name_depends_on_all_that_decides_it() -> None:
    def name(**changes: Any) -> str:
        cells = grid(**{"shots": (0,), "learns": ("together",), **changes}).cells()
        return cells[-1].file_name

    quicker = MethodRow("tiny", TINY.replace("population = 4", "population = 6"), "tiny.toml")
    names = [name(), name(most=41), name(budget=1999), name(rows=(quicker,)), name(learns=("alone",)), name(seeds=(1,))]
    assert len(set(names)) == len(names)
    assert grid(most=41).cells()[0].file_name == grid().cells()[0].file_name  # 4 of each class are below the limit


def record(seed: int, accuracy: float) -> Record:
    results = tuple(
        Result(method=method, learns=learns, accuracy=accuracy, queries=100 + seed)
        for method, learns in (("readout", "together"), (BEST_ALONE, "alone"))
    )
    return Record(
        split="iid",
        shots=4,
        seed=seed,
        results=results,
        train_examples=28,
        dev_examples=28,
        test_examples=60,
        seconds=1.0,
    )


def test_tables_have_means_and_standard_errors() -> None:
    records = [record(0, 0.5), record(1, 0.6), record(2, 0.7)]
    assert report.rows(records, "iid", 4) == [
        ("readout", "", "60.0 ± 5.8", "", "101"),
        (BEST_ALONE, "60.0 ± 5.8", "", "", ""),
    ]
    assert report.rows(records[:1], "iid", 4)[0][2] == "50.0"
    assert report.size_title(records, 4) == "4 of each class, 28 examples"

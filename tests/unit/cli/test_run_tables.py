"""The table of a run's results: each step with its gain, and the controls that the result does not beat."""

from dataclasses import replace
from io import StringIO

import numpy as np
from rich.console import Console

from fedbbpt.cli.terminal.run_tables import accuracies, results
from fedbbpt.federation.comparison import Comparison
from fedbbpt.federation.evaluation import Answers, Measured
from fedbbpt.federation.run_folder import FinishedRun
from fedbbpt.job.config import Job
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.types import Report, Result

REPORT = Report(0, 4, 0.7, 0.5, 0.65, queries=100, seconds=1.0, bytes_up=1000, bytes_down=3000)
LABELS = np.arange(40) % 4


def right(count: int, loss: float = 1.0) -> Measured:
    """The measurement of a prompt that answers the first `count` of 40 examples right."""
    predicted = np.where(np.arange(40) < count, LABELS, (LABELS + 1) % 4)
    return Measured(count / 40, loss, 40, Answers(LABELS, predicted, 4))


PLAIN = Comparison(without=right(16, 1.5), offsets=right(20), start=right(14), tuned=right(36, 0.4), queries=128)
READ_OUT = replace(PLAIN, readout=right(32), prompt=right(24))


def lines(comparison: Comparison) -> list[list[str]]:
    """The rows of the table, each as its cells."""
    finished = FinishedRun(
        Job(), Fake().describe(), 8, Result(np.zeros(3, np.float32), REPORT), (REPORT,), comparison, 1.0
    )
    console = Console(width=80, file=StringIO())
    with console.capture() as captured:
        console.print(accuracies(comparison))
        console.print(results(finished))
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in captured.get().splitlines()]


def test_each_condition_has_its_interval_and_what_the_result_gains_over_it() -> None:
    assert lines(READ_OUT)[:7] == [
        ["on 40 test examples", "accuracy", "95 % interval", "gain", "95 % interval"],
        ["no prompt", "40.0 %", "26.3 to 55.4", "+50.0", "+35.2 to +64.8"],
        ["where the search began", "35.0 %", "22.1 to 50.5", "+55.0", "+39.8 to +69.3"],
        ["offsets, no prompt", "50.0 %", "35.2 to 64.8", "+40.0", "+26.3 to +55.4"],
        ["tuned prompt and offsets", "60.0 %", "44.6 to 73.7", "+30.0", "+18.1 to +45.4"],
        ["readout, no prompt", "80.0 %", "65.2 to 89.5", "+10.0", "+0.4 to +23.1"],
        ["tuned prompt and readout", "90.0 %", "76.9 to 96.0"],
    ]


def test_a_readout_without_a_search_is_next_to_that_of_one_place() -> None:
    rows = lines(replace(READ_OUT, start=None, prompt=None, tuned=right(32)))
    assert [row[:2] for row in rows[3:5]] == [["readout, no prompt", "80.0 %"], ["the federation's readout", "80.0 %"]]
    assert not any("no better" in row[0] for row in rows)


def test_a_result_that_does_not_beat_a_control_says_so() -> None:
    """Kills: a table that hides that a search was for nothing."""
    assert ["the result is no better than", "the readout alone"] in lines(replace(READ_OUT, tuned=right(32)))
    assert ["the result is no better than", "no prompt, offsets"] in lines(replace(PLAIN, tuned=right(16)))


def test_a_lead_that_may_be_chance_says_so() -> None:
    """Kills: a table that hides that a search may have been for nothing."""
    assert ["the lead may be chance over", "the readout alone"] in lines(replace(READ_OUT, tuned=right(33)))
    assert not any("chance" in row[0] for row in lines(READ_OUT))


def test_a_run_without_scores_has_no_gains() -> None:
    nothing = Measured(None, 0.5, 40)
    rows = lines(replace(PLAIN, without=nothing, start=nothing, offsets=None, tuned=nothing))
    assert rows[3] == ["tuned prompt", "-"]
    assert not any("+" in cell for row in rows for cell in row)

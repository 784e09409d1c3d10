"""The table of a run's results: each step with its gain, and the controls that the result does not beat."""

from dataclasses import replace
from io import StringIO

import numpy as np
from rich.console import Console

from fedbbpt.cli.terminal.run_tables import results
from fedbbpt.federation.comparison import Comparison
from fedbbpt.federation.evaluation import Measured
from fedbbpt.federation.run_folder import FinishedRun
from fedbbpt.job.config import Job
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.types import Report, Result

REPORT = Report(0, 4, 0.7, 0.5, 0.65, queries=100, seconds=1.0, bytes_up=1000, bytes_down=3000)
PLAIN = Comparison(
    without=Measured(0.4, 1.5, 40),
    offsets=Measured(0.5, 1.2, 8),
    start=Measured(0.35, 1.6, 40),
    tuned=Measured(0.9, 0.4, 40),
    queries=128,
)
READ_OUT = replace(PLAIN, readout=Measured(0.8, 0.6, 8), prompt=Measured(0.6, 1.0, 8))


def lines(comparison: Comparison) -> list[list[str]]:
    """The rows of the table, each as its cells."""
    finished = FinishedRun(
        Job(), Fake().describe(), 8, Result(np.zeros(3, np.float32), REPORT), (REPORT,), comparison, 1.0
    )
    console = Console(width=80, file=StringIO())
    with console.capture() as captured:
        console.print(results(finished))
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in captured.get().splitlines()]


def test_a_run_with_a_readout_shows_each_step_with_its_gain() -> None:
    assert lines(READ_OUT)[1:7] == [
        ["accuracy with no prompt", "40.0 %"],
        ["with one offset per class and no prompt", "50.0 %", "+10.0 points"],
        ["with the prompt that the search began with", "35.0 %", "-5.0 points"],
        ["with the tuned prompt and offsets", "60.0 %", "+20.0 points"],
        ["with a readout and no prompt", "80.0 %", "+40.0 points"],
        ["with the tuned prompt and a readout", "90.0 %", "+50.0 points"],
    ]


def test_a_readout_without_a_search_is_next_to_that_of_one_place() -> None:
    rows = lines(replace(READ_OUT, start=None, prompt=None, tuned=Measured(0.8, 0.6, 40)))
    assert rows[3:5] == [
        ["with a readout fitted in one place", "80.0 %", "+40.0 points"],
        ["with the federation's readout", "80.0 %", "+40.0 points"],
    ]
    assert not any("no better" in row[0] for row in rows)


def test_a_result_that_does_not_beat_a_control_says_so() -> None:
    """Kills: a table that hides that a search was for nothing."""
    rows = lines(replace(READ_OUT, tuned=Measured(0.8, 0.4, 40)))
    assert ["the result is no better than", "the readout alone"] in rows
    rows = lines(replace(PLAIN, tuned=Measured(0.4, 1.4, 40)))
    assert ["the result is no better than", "no prompt, offsets"] in rows


def test_a_run_without_scores_has_no_gains() -> None:
    nothing = Measured(None, 0.5, 40)
    rows = lines(replace(PLAIN, without=nothing, start=nothing, offsets=None, tuned=nothing))
    assert rows[4] == ["accuracy after tuning", "-"]
    assert not any("points" in cell for row in rows for cell in row)

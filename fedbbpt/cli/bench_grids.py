"""What `fedbbpt bench methods` and `fedbbpt bench data` share: reading their options, and a progress bar."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from fedbbpt.bench.cells import Cell, run_cells
from fedbbpt.bench.methods.grid import IID
from fedbbpt.cli.terminal.console import err
from fedbbpt.cli.terminal.model_options import ModelOptions, option_name
from fedbbpt.errors import InvalidInput
from fedbbpt.host.progress import progress
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job
from fedbbpt.job.sections import PtmSection
from fedbbpt.tasks.manual_prompts import MANUAL_PROMPTS
from fedbbpt.types import PrecisionChoice

CELLS = "cells"
"""Name of the folder of cells within --out."""

C = TypeVar("C", bound=Cell)
R = TypeVar("R", bound=BaseModel)


def run_with_progress(
    cells: Sequence[C],
    folder: Path,
    measure: Callable[[C, Ptm], R],
    record: type[R],
    processes: int,
    threads: int,
    title: Callable[[C], str],
) -> Sequence[R]:
    """Runs the cells of a grid with a progress bar; see `run_cells`. `title` names a cell in the bar."""
    with progress("cells of the grid", len(cells), "cells") as advance:

        def done(cell: C) -> None:
            if err.is_terminal:
                err.print(title(cell), style="dim", soft_wrap=True)
            advance(1)

        return run_cells(cells, folder, measure, record, processes=processes, threads=threads, done=done)


def read_seeds(text: str) -> tuple[int, ...]:
    """Reads seeds such as "0..4", which includes both ends, or "0,1,2". Raises InvalidInput."""
    first, dots, last = text.partition("..")
    try:
        found = tuple(range(int(first), int(last) + 1)) if dots else tuple(int(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise InvalidInput(f"{text!r} is not a list of seeds", where="--seeds", fix="such as 0..4 or 0,1,2")
    return found


def read_splits(text: str) -> tuple[str, ...]:
    """Reads the partitions, such as "0.1,1.0,iid". Raises InvalidInput."""
    words = tuple(word.strip() for word in text.split(","))
    for word in words:
        try:
            valid = word == IID or 0 < float(word) < math.inf
        except ValueError:
            valid = False
        if not valid or words.count(word) > 1:
            fix = "different numbers above 0, or iid, such as 0.1,1.0,iid"
            raise InvalidInput(f"invalid {word!r} in {text!r}", where="--alpha", fix=fix)
    return words


def known_task(task: str) -> str:
    """Returns the name of a task with a hand-written prompt. Raises InvalidInput for another name."""
    if task not in MANUAL_PROMPTS:
        raise InvalidInput(f"unknown task {task!r}", where="--task", fix=f"one of {', '.join(MANUAL_PROMPTS)}")
    return task


def read_model(model: str, options: ModelOptions) -> PtmSection:
    """Returns the model of all cells, which have one precision, so that their results can be compared."""
    if options.precision is PrecisionChoice.AUTO:
        what = "a comparison has one precision on every machine"
        raise InvalidInput(what, where="--precision", fix="float32 or bfloat16")
    job = Job.model_validate({"ptm": {"model": model, "precision": "float32"}})
    return options.apply(job).ptm


def read_source(task: str, data: str) -> str:
    """Returns the source of a task's data. Raises InvalidInput if there is none."""
    if task == "demo":
        if data:
            raise InvalidInput(
                "the task demo makes its own data", where="--data", fix="leave it out, or another --task"
            )
        return "demo"
    if not data:
        raise InvalidInput("no data is given", where="--data", fix=f"the folder with the files of {task}")
    return data


def shared_words(reading: Mapping[str, str], task: str) -> list[str]:
    """Returns the words of a command that name the task and say how its data is read, without the path of the data."""
    words = ["--task", task, *([] if task == "demo" else ["--data", "FOLDER"])]
    for key, value in reading.items():
        words += [option_name(key), value]
    return words


def model_words(ptm: PtmSection) -> list[str]:
    """Returns the words of a command that name the model, for a local model only its folder."""
    words = ["--model", Path(ptm.model).name if Path(ptm.model).is_dir() else ptm.model]
    plain = PtmSection(precision=PrecisionChoice.FLOAT32).options()
    for key, value in ptm.options().items():
        words += [option_name(key), str(value)] if value != plain[key] else []
    return words

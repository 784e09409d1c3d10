"""Runs the missing cells of a grid, several at a time in processes that each have a copy of the PTM.

A cell's record is kept in a JSON file, which is named by what decides the record. So the same command continues a grid
that was interrupted.
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from fedbbpt.errors import ChildFailed, StoreMismatch
from fedbbpt.host.files import atomic_write
from fedbbpt.interfaces import Backend, Ptm
from fedbbpt.job.config import Job
from fedbbpt.job.sections import PtmSection
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.tenants.state import NO_LIMITS
from fedbbpt.ptm.tenants.tenant import IN_PROCESS


class Cell(Protocol):
    """A part of a grid that is measured by itself, as a pure function of its fields."""

    @property
    def file_name(self) -> str:
        """The name of the cell's file, with a digest of all that decides its numbers."""

    @property
    def job(self) -> Job:
        """The job of the cell, which names its model."""


C = TypeVar("C", bound=Cell)
R = TypeVar("R", bound=BaseModel)


def run_cells(
    cells: Sequence[C],
    folder: Path,
    measure: Callable[[C, Ptm], R],
    record: type[R],
    *,
    processes: int,
    threads: int,
    done: Callable[[C], None] = lambda cell: None,
) -> tuple[R, ...]:
    """Returns the record of each cell, in order. Cells that have a file in `folder` are read from it.

    Args:
        cells: The cells.
        folder: The folder of their files.
        measure: Makes the record of a cell with a PTM. It is a function of a module, which other processes can import.
        record: The type of the records.
        processes: The number of cells that run at the same time.
        threads: Threads of the model in each process.
        done: Called with each cell as soon as its record is there.

    Cells that are finished before an error keep their files. Raises ChildFailed, StoreMismatch, and what `measure`
    raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = []
    for cell in cells:
        if (folder / cell.file_name).exists():
            done(cell)
        else:
            missing.append(cell)
    if processes == 1:
        for cell in missing:
            _run_cell(cell, folder, measure, threads)
            done(cell)
    elif missing:
        _run_in_processes(missing, folder, measure, processes, threads, done)
    return tuple(read_record(folder / cell.file_name, record) for cell in cells)


def _run_in_processes(
    cells: Sequence[C],
    folder: Path,
    measure: Callable[[C, Ptm], R],
    processes: int,
    threads: int,
    done: Callable[[C], None],
) -> None:
    # A forked process would lack the model's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(cells)), context) as pool:
        pending = {pool.submit(_run_cell, cell, folder, measure, threads): cell for cell in cells}
        try:
            for future in as_completed(pending):
                future.result()
                done(pending[future])
        except BrokenProcessPool:
            fix = "fewer --processes if memory ran out; the same command continues"
            raise ChildFailed("a process ended before its cell was finished", where="bench", fix=fix) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _run_cell(cell: C, folder: Path, measure: Callable[[C, Ptm], R], threads: int) -> None:
    engine = Engine(_backend(cell.job.ptm, threads), time.monotonic, NO_LIMITS)
    write_record(folder / cell.file_name, measure(cell, LocalPtm(engine, IN_PROCESS)))


@lru_cache(maxsize=1)
def _backend(ptm: PtmSection, threads: int) -> Backend[Any]:
    return load(ptm.model, threads=threads, **ptm.options())


def write_record(path: Path, record: BaseModel) -> None:
    """Writes a record atomically."""
    atomic_write(path, record.model_dump_json(indent=1) + "\n")


def read_record(path: Path, record: type[R]) -> R:
    """Reads a record. Raises StoreMismatch if the file is of another version."""
    try:
        return record.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError:
        fix = "delete the file, and the cell is run again"
        raise StoreMismatch("the file is not a cell of this version", where=str(path), fix=fix) from None

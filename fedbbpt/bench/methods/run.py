"""Runs the missing cells of a grid, several at a time in processes that each have a copy of the PTM."""

import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedbbpt.bench.methods.grid import Cell, measure
from fedbbpt.bench.methods.records import Record, read_record, write_record
from fedbbpt.errors import ChildFailed, StoreMismatch
from fedbbpt.interfaces import Backend
from fedbbpt.job.sections import PtmSection
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.tenants.state import Quotas
from fedbbpt.ptm.tenants.tenant import IN_PROCESS

NO_LIMITS = Quotas(handles=1_000_000, bytes=1 << 40, time_to_live_seconds=math.inf)
"""The quotas of a PTM that only this process uses."""


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    *,
    processes: int,
    threads: int,
    done: Callable[[Cell], None] = lambda cell: None,
) -> tuple[Record, ...]:
    """Returns the record of each cell, in order. Cells that have a file in `folder` are read from it.

    Args:
        threads: threads of the model in each process.
        done: called with each cell as soon as its record is there.

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
            _run_cell(cell, folder, threads)
            done(cell)
    elif missing:
        _run_in_processes(missing, folder, processes, threads, done)
    return tuple(_read(folder / cell.file_name) for cell in cells)


def _run_in_processes(
    cells: Sequence[Cell], folder: Path, processes: int, threads: int, done: Callable[[Cell], None]
) -> None:
    # A forked process would lack the model's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(cells)), context) as pool:
        pending = {pool.submit(_run_cell, cell, folder, threads): cell for cell in cells}
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


def _run_cell(cell: Cell, folder: Path, threads: int) -> None:
    engine = Engine(_backend(cell.job.ptm, threads), time.monotonic, NO_LIMITS)
    write_record(folder / cell.file_name, measure(cell, LocalPtm(engine, IN_PROCESS)))


@lru_cache(maxsize=1)
def _backend(ptm: PtmSection, threads: int) -> Backend[Any]:
    return load(ptm.model, threads=threads, **ptm.options())


def _read(path: Path) -> Record:
    try:
        return read_record(path)
    except ValidationError:
        fix = "delete the file, and the cell is run again"
        raise StoreMismatch("the file is not a cell of this version", where=str(path), fix=fix) from None

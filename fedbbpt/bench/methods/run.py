"""Plays the cells of a grid that are not there yet, several at a time: processes, each with a copy of the PTM."""

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
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.tenants.state import Limits
from fedbbpt.types import Precision

ALONE = Limits(handles=1_000_000, bytes=1 << 40, time_to_live_seconds=math.inf)
"""Nobody else uses this PTM."""


def run(
    cells: Sequence[Cell],
    folder: Path,
    *,
    processes: int,
    threads: int,
    done: Callable[[Cell], None] = lambda cell: None,
) -> tuple[Record, ...]:
    """The record of each cell, in order; `done` hears of each. What was finished before an error stays."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = []
    for cell in cells:
        if (folder / cell.file_name).exists():
            done(cell)
        else:
            missing.append(cell)
    if processes == 1:
        for cell in missing:
            play(cell, folder, threads)
            done(cell)
    elif missing:
        # Not forked: a model's threads do not survive that.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(missing)), context) as pool:
            pending = {pool.submit(play, cell, folder, threads): cell for cell in missing}
            try:
                for future in as_completed(pending):
                    future.result()
                    done(pending[future])
            except BrokenProcessPool:
                fix = "fewer --processes, if memory ran out; the same command goes on"
                raise ChildFailed("a process ended before its cell was done", where="bench", fix=fix) from None
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return tuple(_read(folder / cell.file_name) for cell in cells)


def play(cell: Cell, folder: Path, threads: int) -> None:
    """Measures a cell and writes its file."""
    ptm = Engine(_backend(cell.job.ptm.model, cell.job.ptm.precision, threads), time.monotonic, ALONE)
    write_record(folder / cell.file_name, measure(cell, ptm))


@lru_cache(maxsize=1)
def _backend(model: str, precision: Precision, threads: int) -> Backend[Any]:
    return load(model, threads=threads, precision=precision)


def _read(path: Path) -> Record:
    try:
        return read_record(path)
    except ValidationError:
        raise StoreMismatch(
            "is no cell of this version", where=str(path), fix="delete it, and it is run again"
        ) from None

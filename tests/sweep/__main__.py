"""Sweeps over model types: `python -m tests.sweep [FAMILY [TYPE ...]]`.

Without arguments it sweeps over all types, in as many processes as there are cores, and writes the table in
docs/models.md. Errors and wrong scores end up in no table: they are printed, and the exit code is 1.
"""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.sweep.comparison import sweep_quietly
from tests.sweep.table import write
from tests.sweep.tiny_models import TYPES


def main(family: str = "", *chosen: str) -> int:
    """Returns the exit code."""
    cases = [(name, each) for name in TYPES if family in ("", name) for each in TYPES[name]]
    cases = [case for case in cases if case[1] in chosen or not chosen]
    outcomes = []
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        for outcome in pool.map(sweep_quietly, cases):
            print(f"{outcome.family}\t{outcome.model_type}\t{outcome}", flush=True)
            outcomes.append(outcome)
    if not family:
        write(outcomes)
    return int(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

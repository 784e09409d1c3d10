"""Compares what a prompt in the inputs and a prompt in the class texts cost, at equal dev loss.

Usage: python experiments/prompt_sides.py FOLDER_WITH_TRAIN_DEV_TEST [ROUNDS]

The prompt in the inputs is searched for ROUNDS rounds (8). The one in the class texts is searched until its dev loss is
as low, or for as many rounds as the job has. Both then have one look at the test questions. Seconds are those of the
processor, over all cores, so that they do not depend on what else the machine does.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any

import fedbbpt

JOB = Path(__file__).with_name("prompt-sides.toml")


def search(side: str, data: str, rounds: int, wanted: float) -> float:
    """Prints a row of the table for the best prompt, and returns its dev loss.

    Stops after `rounds` rounds, or as soon as a round's dev loss is at most `wanted`.
    """
    job: Any = fedbbpt.load_job(JOB)
    prompt = job.task.prompt.model_copy(update={"side": side})
    task = job.task.model_copy(update={"prompt": prompt})
    job = job.model_copy(update={"task": task, "data": job.data.model_copy(update={"source": data})})
    with fedbbpt.open_ptm(job.ptm.model) as ptm, fedbbpt.simulate(job, ptm) as run:
        started = time.process_time()
        for report in run:
            if report.round >= rounds or report.dev_loss <= wanted:
                break
        seconds, usage, best = time.process_time() - started, ptm.usage(), run.result().measured
        measured = run.prompt().evaluate(run.splits.test, ptm)
        accuracies = [f"{100 * (each or math.nan):.1f}" for each in (best.dev_accuracy, measured.accuracy)]
        cells = [side, f"{len(run.reports)}", f"{usage.queries:,}", f"{usage.tokens:,}", f"{seconds:.0f}"]
        print("|", " | ".join([*cells, f"{best.dev_loss:.3f}", *accuracies]), "|", flush=True)
        return best.dev_loss


def main(data: str, rounds: str = "8") -> None:
    """Prints a Markdown table."""
    print("| side | rounds | queries | tokens | CPU seconds | dev loss | dev accuracy % | test accuracy % |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    wanted = search("input", data, int(rounds), -math.inf)
    search("class", data, sys.maxsize, wanted)


if __name__ == "__main__":
    main(*sys.argv[1:])

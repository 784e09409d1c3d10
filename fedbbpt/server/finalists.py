"""The choice of a run's result: the best prompts of its rounds, and their comparison on all dev examples at the end.

A run that measures its rounds on a sample of the dev examples would often end with the luckiest of them. So it keeps a
few, and its last round measures them again, together with the last prompt, on all dev examples.
"""

from collections.abc import Sequence
from dataclasses import replace

from fedbbpt.prompts import space_of
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.types import Measurement, Report, Result, Sampling, SpaceSettings, Update

MOST = 4
"""How many prompts a run keeps for its last round if it measures on samples."""


def places(sampling: Sampling) -> int:
    """Returns the number of best prompts that a run keeps: one, unless its measurements are of samples."""
    return MOST if sampling.batch_examples else 1


def prompt_entries(space: SpaceSettings) -> int:
    """Returns the number of first entries of z that are a prompt; a readout may follow them."""
    made = space_of(space)
    return made.prompt.dim if isinstance(made, ReadoutSpace) else made.dim


def ranked(candidate: Result, finalists: Sequence[Result], most: int, entries: int) -> tuple[Result, ...]:
    """Returns the `most` best of a new candidate and the finalists, best first; among equals the newest first.

    Of results with the same prompt, the first `entries` entries of z, only the best one is kept: a fit of a readout
    takes many rounds, whose readouts hardly differ. Where several are kept, one of them has the prompt 0, with which a
    run begins, so that the result is not worse than without a search.
    """
    found: dict[bytes, Result] = {}
    for result in sorted((candidate, *finalists), key=lambda result: result.measured.rank, reverse=True):
        found.setdefault(result.z[:entries].tobytes(), result)
    kept, others = list(found.values())[:most], list(found.values())[most:]
    first = [result for result in others if not result.z[:entries].any()]
    return tuple(kept[: most - 1] + first if first and most > 1 else kept)


def measured_again(finalists: Sequence[Result], updates: Sequence[Update]) -> tuple[Result, ...]:
    """Returns the finalists with what the updates of the last round measured of each, on all dev examples."""
    sums = [sum((update.finalists[place] for update in updates), Measurement()) for place in range(len(finalists))]
    return tuple(
        replace(result, measured=with_dev_figures(result.measured, total))
        for result, total in zip(finalists, sums, strict=True)
    )


def with_dev_figures(report: Report, total: Measurement) -> Report:
    """Returns the report with the dev loss and the dev accuracy of a sum of measurements."""
    count, correct = total.dev_examples, total.dev_correct
    return replace(
        report,
        dev_loss=total.dev_loss_sum / count if count else None,
        dev_accuracy=correct / count if count and correct is not None else None,
        dev_examples=count,
    )

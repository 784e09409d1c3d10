"""Asynchronous rounds (FedBuff, arXiv 2106.06639): updates that answer an earlier round count in the open one.

An update of round b that counts in round r has the staleness tau = r - b. The method moves it to where round r began,
and its weight is multiplied by 1 / sqrt(1 + tau). The average of a round is over these weights; the paper divides by
the number of updates instead, which makes a step of stale updates only shorter.

A dev measurement is of the prompt of round b. So a prompt is compared with others only when no more measurements of it
can come.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.interfaces import ServerHalf
from fedbbpt.methods.stale_updates import displaced
from fedbbpt.server.finalists import places, ranked, with_dev_figures
from fedbbpt.types import Arrays, Earlier, Measurement, Result, Sampling, Snapshot, Update


@dataclass(frozen=True, slots=True)
class Begun:
    """An earlier round whose tasks can still be answered, as its clients began it."""

    state: Any
    """The method's state."""
    broadcast: Arrays
    seed: int
    """The seed of the round's tasks."""


def staleness_weight(staleness: int) -> float:
    """Returns 1 / sqrt(1 + tau), by which the weight of an update of staleness tau is multiplied."""
    return 1 / math.sqrt(1 + staleness)


def counted_late(method: ServerHalf[Any], update: Update, begun: Begun, state: Any, staleness: int) -> Update:
    """Returns a decoded update to an earlier round as it counts in a round that begins with `state`."""
    moved, factor = displaced(method, update, begun.state, state, begun.seed), staleness_weight(staleness)
    arrays = {name: factor * array for name, array in moved.arrays.items()}
    return replace(moved, arrays=arrays, weight=factor * moved.weight)


def measured(
    before: Snapshot,
    after: Snapshot,
    found: Mapping[int, Sequence[Measurement]],
    prompt: Callable[[int], npt.NDArray[np.float32]],
    *,
    kept: int,
    needed: int,
    sampling: Sampling,
    entries: int,
) -> Snapshot:
    """Returns the snapshot after a round, with the earlier rounds that are still open, and the best prompts of others.

    Args:
        before: The snapshot before the round.
        after: The snapshot after it, as in a synchronous run.
        found: The measurements of the round's updates by the round whose prompt they measured.
        prompt: Returns the prompt z `[n]` that a round began with.
        kept: The number of rounds before the next one whose tasks can be answered in it.
        needed: The number of measurements without which a prompt is not compared, unless no other has been measured.
        sampling: The rounds that measure their prompt, and whether on a sample of the dev examples.
        entries: The number of first entries of z that are a prompt.
    """
    opened = {
        before.round - len(before.earlier) + place: each
        for place, each in enumerate((*before.earlier, Earlier(before.state)))
    }
    for round, measurements in found.items():
        each = opened[round]
        total = sum(measurements, each.measured)
        opened[round] = replace(each, measured=total, updates=each.updates + len(measurements))
    done = {round: opened.pop(round) for round in sorted(opened)[: max(0, len(opened) - kept)]}
    finalists = before.finalists
    enough = {round: each for round, each in done.items() if each.updates >= needed}
    for round, each in (enough if enough or finalists or kept else done).items():
        report = with_dev_figures(after.reports[round], each.measured)
        if sampling.measures(round) or report.dev_examples:
            finalists = ranked(Result(prompt(round), report), finalists, places(sampling), entries)
    return replace(after, finalists=finalists, earlier=tuple(opened.values()))

"""Runs a method under a budget of queries, and measures its prompts on test examples afterwards.

A run is simulated round by round until the next prompt would cost more than the budget. A prompt's cost is every query
that the clients made before it could be chosen: on training examples, and on dev examples, those of the prompt itself
included. Test examples are scored when the search is over, at a few rounds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fedbbpt.bench.methods.message_sizes import message_bytes
from fedbbpt.bench.methods.records import Point
from fedbbpt.bench.methods.rows import Learns
from fedbbpt.client.asking import PromptScorer
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.simulation import Simulation
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Ptm
from fedbbpt.job.settings import task_spec
from fedbbpt.tasks.criterion import accuracy
from fedbbpt.types import LabelledExamples

CHECKPOINTS = 13
"""Most rounds whose prompts are measured on test examples, together with the best prompts until then."""


@dataclass(frozen=True, slots=True)
class PricedPrompt:
    """A round's prompt, and what had been spent when it was known and measured on dev examples."""

    z: npt.NDArray[np.float32]
    rank: tuple[float, float]
    """Its quality on dev examples; a higher one is better."""
    queries: int
    answers: int
    bytes_up: int
    bytes_down: int


PricedRound: TypeAlias = tuple[PricedPrompt, ...]
"""The prompts of one round, one for each federation; clients that learn alone are federations of one."""


def federations(splits: Splits, learns: Learns) -> tuple[Splits, ...]:
    """Returns the data of each federation: one, or with `learns` "alone" one for each client."""
    if learns != "alone":
        return (splits,)
    job = splits.job
    alone = job.model_copy(update={"cohort": job.cohort.model_copy(update={"clients": 1, "size": 0})})
    shares = zip(splits.train, splits.dev, splits.titles, strict=True)
    return tuple(
        replace(splits, job=alone, train=(train,), dev=(dev,), titles=(title,)) for train, dev, title in shares
    )


def search(parts: Sequence[Splits], ptm: Ptm, budget: int) -> tuple[PricedRound, ...]:
    """Returns all rounds that the budget pays for. Raises InvalidInput if it does not pay for the first."""
    rounds: list[PricedRound] = []
    for prompts in zip(*(_prompts(part, ptm) for part in parts), strict=True):
        needed = sum(prompt.queries for prompt in prompts)
        if needed > budget:
            if not rounds:
                fix = f"at least {needed}, to score the dev examples once"
                raise InvalidInput(f"{budget} queries are too few", where="--budget-queries", fix=fix)
            break
        rounds.append(prompts)
    return tuple(rounds)


def _prompts(splits: Splits, ptm: Ptm) -> Iterator[PricedPrompt]:
    queries = answers = bytes_up = bytes_down = 0
    for closed in Simulation(splits, ptm).rounds():
        report = closed.report
        measuring = sum(update.measurement.dev_examples for _, update in closed.exchanges)
        yield PricedPrompt(closed.z, report.rank, queries + measuring, answers, bytes_up, bytes_down)
        up, down = message_bytes(closed.exchanges)
        queries, answers = queries + report.queries, answers + report.clients
        bytes_up, bytes_down = bytes_up + up, bytes_down + down


def curve(
    rounds: Sequence[PricedRound], parts: Sequence[Splits], test: LabelledExamples, ptm: Ptm
) -> tuple[Point, ...]:
    """Returns the test accuracy at the checkpoints, as a mean over federations."""
    measured = checkpoints(len(rounds))
    last, best = np.zeros(len(measured)), np.zeros(len(measured))
    for index, part in enumerate(parts):
        prompts = [each[index] for each in rounds]
        # Among equal ranks the later one wins, as in the coordinator.
        leaders = [max(range(number + 1), key=lambda at: (prompts[at].rank, at)) for number in measured]
        wanted = sorted({*measured, *leaders})
        found = dict(zip(wanted, accuracies(np.stack([prompts[at].z for at in wanted]), part, test, ptm), strict=True))
        last += [found[at] / len(parts) for at in measured]
        best += [found[at] / len(parts) for at in leaders]
    return tuple(
        Point(
            round=number,
            queries=sum(prompt.queries for prompt in rounds[number]),
            bytes=sum(prompt.bytes_up + prompt.bytes_down for prompt in rounds[number]),
            last=float(last[place]),
            best=float(best[place]),
        )
        for place, number in enumerate(measured)
    )


def checkpoints(rounds: int) -> list[int]:
    """Returns the rounds to measure, from first to last, denser at the start, where accuracy changes fast."""
    return sorted({round((rounds - 1) * (i / (CHECKPOINTS - 1)) ** 2) for i in range(CHECKPOINTS)})


def accuracies(z: npt.NDArray[np.float32], splits: Splits, test: LabelledExamples, ptm: Ptm) -> npt.NDArray[np.float64]:
    """Returns the accuracy `[P]` of each z `[P, n]` on the test examples."""
    scores = PromptScorer(ptm, task_spec(splits.job), splits.job.space()).scores(test, z)
    return accuracy(scores, test.labels)

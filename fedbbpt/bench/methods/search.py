"""A method's run under a budget of queries, and afterwards its prompts' accuracy on test examples.

A run is played round by round until the next prompt would cost more than the budget. A prompt's cost is all that the
clients asked for before it was chosen: training queries, and those on dev examples, the prompt's own among them. Test
examples are scored when the search is over, at a few rounds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedbbpt.bench.methods.records import Point
from fedbbpt.bench.methods.rows import Learns
from fedbbpt.bench.methods.traffic import weigh
from fedbbpt.client.asking import PromptScorer
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.simulation import Simulation
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Ptm
from fedbbpt.job.settings import task_spec
from fedbbpt.tasks.criterion import accuracy
from fedbbpt.types import LabelledExamples

CHECKPOINTS = 13
"""Rounds whose prompts are measured on test examples, at most; the best prompts until then as well."""


@dataclass(frozen=True, slots=True)
class Step:
    """A round's prompt, and what it had cost when it was there and measured on dev examples."""

    z: npt.NDArray[np.float32]
    rank: tuple[float, float]
    queries: int
    answers: int
    bytes_up: int
    bytes_down: int


Turn = tuple[Step, ...]
"""The same round of every federation: of one, or of as many as there are clients that learn alone."""


def federations(splits: Splits, learns: Learns) -> tuple[Splits, ...]:
    """Each a run by itself. Examples are pooled by a job with one client; alone, each client is such a job."""
    if learns != "alone":
        return (splits,)
    job = splits.job
    alone = job.model_copy(update={"cohort": job.cohort.model_copy(update={"clients": 1, "size": 0})})
    shares = zip(splits.train, splits.dev, splits.titles, strict=True)
    return tuple(
        replace(splits, job=alone, train=(train,), dev=(dev,), titles=(title,)) for train, dev, title in shares
    )


def play(parts: Sequence[Splits], ptm: Ptm, budget: int) -> tuple[Turn, ...]:
    """All turns whose prompts the budget pays for. Raises InvalidInput where it does not pay for the first."""
    turns: list[Turn] = []
    for turn in zip(*(_steps(part, ptm) for part in parts), strict=True):
        needed = sum(step.queries for step in turn)
        if needed > budget:
            if not turns:
                fix = f"at least {needed}, one look at the dev examples"
                raise InvalidInput(f"{budget} queries", where="--budget-queries", fix=fix)
            break
        turns.append(turn)
    return tuple(turns)


def _steps(splits: Splits, ptm: Ptm) -> Iterator[Step]:
    queries = answers = bytes_up = bytes_down = 0
    for played in Simulation(splits, ptm).rounds():
        report = played.report
        measuring = sum(round(update.metrics["dev_count"]) for _, update in played.exchanges)
        yield Step(played.z, report.rank, queries + measuring, answers, bytes_up, bytes_down)
        up, down = weigh(played.exchanges)
        queries, answers = queries + report.queries, answers + report.clients
        bytes_up, bytes_down = bytes_up + up, bytes_down + down


def curve(turns: Sequence[Turn], parts: Sequence[Splits], test: LabelledExamples, ptm: Ptm) -> tuple[Point, ...]:
    """Test accuracy at some rounds, the mean over federations."""
    rounds = checkpoints(len(turns))
    last, best = np.zeros(len(rounds)), np.zeros(len(rounds))
    for index, part in enumerate(parts):
        steps = [turn[index] for turn in turns]
        # Of equal ranks the later, as the coordinator does.
        leaders = [max(range(round + 1), key=lambda at: (steps[at].rank, at)) for round in rounds]
        wanted = sorted({*rounds, *leaders})
        found = dict(zip(wanted, accuracies(np.stack([steps[at].z for at in wanted]), part, test, ptm), strict=True))
        last += [found[at] / len(parts) for at in rounds]
        best += [found[at] / len(parts) for at in leaders]
    return tuple(
        Point(
            round=round,
            queries=sum(step.queries for step in turns[round]),
            bytes=sum(step.bytes_up + step.bytes_down for step in turns[round]),
            last=float(last[place]),
            best=float(best[place]),
        )
        for place, round in enumerate(rounds)
    )


def checkpoints(rounds: int) -> list[int]:
    """The first and the last of so many rounds and some between, denser at the start, where accuracy changes fast."""
    return sorted({round((rounds - 1) * (i / (CHECKPOINTS - 1)) ** 2) for i in range(CHECKPOINTS)})


def accuracies(z: npt.NDArray[np.float32], splits: Splits, test: LabelledExamples, ptm: Ptm) -> npt.NDArray[np.float64]:
    """Of each z `[P, n]` on the test examples: `[P]`."""
    scores = PromptScorer(ptm, task_spec(splits.job), splits.job.space()).scores(test, z)
    return accuracy(scores, test.labels)

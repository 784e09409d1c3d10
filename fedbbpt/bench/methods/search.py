"""Runs a method under a budget of queries, and measures its prompts on test examples afterwards.

A run is simulated round by round until the next prompt would cost more than the budget. A prompt's cost is every query
of a run that ends with this prompt: those on training and dev examples before it, and those of the last round, which
measures the prompt on all dev examples. If rounds measure on samples of them, the last round measures the finalists as
well, and the best of all is the run's result. Test examples are scored when the search is over, at a few rounds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fedbbpt.bench.methods.records import Point
from fedbbpt.bench.methods.rows import Learns
from fedbbpt.client.asking import PromptScorer
from fedbbpt.errors import InvalidInput
from fedbbpt.federation import assemble
from fedbbpt.federation.message_sizes import message_bytes
from fedbbpt.federation.simulation import Simulation
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Ptm
from fedbbpt.job.settings import task_spec
from fedbbpt.tasks.criterion import accuracy
from fedbbpt.types import LabelledExamples
from fedbbpt.types.examples import concatenate

CHECKPOINTS = 13
"""Most rounds whose prompts are measured on test examples, together with the best prompts until then."""


@dataclass(frozen=True, slots=True)
class PricedPrompt:
    """A round's prompt, and what had been spent when it was known and measured on dev examples."""

    z: npt.NDArray[np.float32]
    rank: tuple[float, float]
    """Its quality on dev examples, as its round measured it; a higher one is better."""
    rivals: tuple[npt.NDArray[np.float32], ...]
    """The finalists of the rounds before it."""
    queries: int
    answers: int
    bytes_up: int
    bytes_down: int


PricedRound: TypeAlias = tuple[PricedPrompt, ...]
"""The prompts of one round, one for each federation; clients that learn alone are federations of one."""


def federations(splits: Splits, learns: Learns) -> tuple[Splits, ...]:
    """Returns the data of each federation: one of all clients, one of a single client, or one for each client."""
    if learns == "together":
        return (splits,)
    job = splits.job
    alone = job.model_copy(update={"cohort": job.cohort.model_copy(update={"clients": 1, "size": 0})})
    if learns == "pooled":
        train, dev = (splits.pooled(),), (concatenate(splits.dev),)
        return (replace(splits, job=alone, train=train, dev=dev, titles=("all",)),)
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
    rivals: tuple[npt.NDArray[np.float32], ...] = ()
    dev = {assemble.client_name(index): len(examples) for index, examples in enumerate(splits.dev)}
    for closed in Simulation(splits, ptm).rounds():
        report = closed.report
        if splits.job.method.batch_examples:
            measuring = (1 + len(rivals)) * sum(dev.values())
        elif splits.job.task.prompt.kind == "none" and report.round:
            measuring = 0  # readouts are measured on scores that the first round has asked
        else:
            measuring = sum(dev[task.id.client_id] for task, _ in closed.exchanges if task.id.client_id in dev)
        yield PricedPrompt(closed.z, report.rank, rivals, queries + measuring, answers, bytes_up, bytes_down)
        rivals = tuple(result.z for result in closed.finalists)
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
        ends = [prompts[number].z for number in measured]
        results = [result_of(prompts[: number + 1], part, ptm) for number in measured]
        wanted = {z.tobytes(): z for z in (*ends, *results)}
        found = dict(zip(wanted, accuracies(np.stack(list(wanted.values())), part, test, ptm), strict=True))
        last += [found[z.tobytes()] / len(parts) for z in ends]
        best += [found[z.tobytes()] / len(parts) for z in results]
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


def result_of(prompts: Sequence[PricedPrompt], splits: Splits, ptm: Ptm) -> npt.NDArray[np.float32]:
    """Returns the result z `[n]` of a run with these prompts, one for each round.

    If every round measured all dev examples, that is known. Otherwise the last round's choice is made here; its queries
    are in the last prompt's price.
    """
    method, end = splits.job.method, prompts[-1]
    if not method.batch_examples and method.dev_every == 1:
        # Among equal ranks the later one wins, as in the coordinator.
        return max(reversed(prompts), key=lambda prompt: prompt.rank).z
    candidates = np.stack([end.z, *end.rivals])
    scorer = PromptScorer(ptm, task_spec(splits.job), splits.job.space())
    judged = scorer.judge(concatenate(splits.dev), candidates)
    chosen: npt.NDArray[np.float32] = candidates[np.argmin(judged.objective)]
    return chosen


def checkpoints(rounds: int) -> list[int]:
    """Returns the rounds to measure, from first to last, denser at the start, where accuracy changes fast."""
    return sorted({round((rounds - 1) * (i / (CHECKPOINTS - 1)) ** 2) for i in range(CHECKPOINTS)})


def accuracies(z: npt.NDArray[np.float32], splits: Splits, test: LabelledExamples, ptm: Ptm) -> npt.NDArray[np.float64]:
    """Returns the accuracy `[P]` of each z `[P, n]` on the test examples."""
    scores = PromptScorer(ptm, task_spec(splits.job), splits.job.space()).scores(test, z)
    return accuracy(scores, test.labels)

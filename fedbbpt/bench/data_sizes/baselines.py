"""The methods without a search, from scores that are asked once for each example.

Members who learn alone fit their own training examples, choose a method with their own dev examples, and then fit both
with it, as a federation does. The dev examples are the same for all members in distribution, so a member whose own
classes are few can see that its fit is worse than none. That favours members who learn alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from fedbbpt.bench.data_sizes.records import BEST_ALONE, Result
from fedbbpt.client.asking import PromptScorer
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Ptm
from fedbbpt.job.settings import task_spec
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.tasks import readout
from fedbbpt.tasks.criterion import Labels
from fedbbpt.tasks.offsets import choose_offsets
from fedbbpt.tasks.readout_fit import fit_readout
from fedbbpt.types import LabelledExamples
from fedbbpt.types.examples import concatenate

Floats = npt.NDArray[np.float64]

ZERO_SHOT, OFFSETS, READOUT = "zero-shot", "offsets", "readout"


@dataclass(frozen=True, slots=True)
class Columns:
    """Examples as their column scores without a prompt, `[B, C]`, and their classes `[B]`."""

    scores: Floats
    labels: Labels

    def accuracy(self, fitted: Floats) -> float:
        """Returns the share of examples that a readout `[K, C + 1]` classifies correctly."""
        predicted = readout.scores(self.scores, fitted[None])[0].argmax(axis=1)
        return float((predicted == self.labels).mean())

    def loss(self, fitted: Floats) -> float:
        """Returns the mean cross-entropy of a readout `[K, C + 1]`."""
        return float(readout.losses(self.scores, self.labels, fitted[None])[0]) / len(self.labels)


@dataclass(frozen=True, slots=True)
class Member:
    """What a member has: its own examples, or those of all in one place."""

    train: Columns
    dev: Columns


def ask(splits: Splits, test: LabelledExamples, ptm: Ptm) -> tuple[tuple[Member, ...], Columns]:
    """Returns the columns of all members and of the test examples. A query for each example.

    Raises:
        OutputWithheld: The PTM gives no scores.
    """
    job = splits.job
    scorer = PromptScorer(ptm, task_spec(job), NoPrompt(job.space().prompt_tokens))
    parts = [*splits.train, *splits.dev, test]
    scores = scorer.scores(concatenate(parts), NoPrompt.Z)[0].astype(np.float64)
    cuts = np.split(scores, np.cumsum([len(part) for part in parts])[:-1])
    found = [Columns(cut, part.labels) for cut, part in zip(cuts, parts, strict=True)]
    members = len(splits.train)
    return tuple(map(Member, found[:members], found[members:-1])), found[-1]


def measure(members: Sequence[Member], test: Columns, classes: int) -> tuple[Result, ...]:
    """Returns the results of all methods without a search.

    Args:
        members: The members.
        test: The test examples.
        classes: K.
    """
    return tuple(_results(members, test, classes))


def _results(members: Sequence[Member], test: Columns, classes: int) -> Iterator[Result]:
    fits: dict[str, Callable[[Member, bool], Floats]] = {
        ZERO_SHOT: lambda member, refit: np.zeros((classes, member.train.scores.shape[1] + 1)),
        OFFSETS: partial(_offsets, classes),
        READOUT: partial(_readout, classes),
    }
    whole = Member(_joined([each.train for each in members]), _joined([each.dev for each in members]))
    every = len(whole.train.labels) + len(whole.dev.labels)
    queries = {ZERO_SHOT: 0, OFFSETS: every, READOUT: every}
    alone = {name: [fit(member, True) for member in members] for name, fit in fits.items()}
    for name, fit in fits.items():
        own = float(np.mean([test.accuracy(fitted) for fitted in alone[name]]))
        pooled = test.accuracy(fit(whole, True))
        yield Result(method=name, learns="alone", accuracy=own, queries=queries[name])
        yield Result(method=name, learns="pooled", accuracy=pooled, queries=queries[name])
        if name != READOUT:
            # Zero-shot has nothing to learn, and the sums that offsets are fitted from are those of all examples.
            yield Result(method=name, learns="together", accuracy=pooled, queries=queries[name])
    chosen = [alone[_best(member, fits)][index] for index, member in enumerate(members)]
    best = float(np.mean([test.accuracy(fitted) for fitted in chosen]))
    yield Result(method=BEST_ALONE, learns="alone", accuracy=best, queries=every)


def _best(member: Member, fits: Mapping[str, Callable[[Member, bool], Floats]]) -> str:
    """Returns the name of the fit of the training examples that is the most accurate on the member's dev examples."""
    found = {name: fit(member, False) for name, fit in fits.items()}
    return max(found, key=lambda name: (member.dev.accuracy(found[name]), -member.dev.loss(found[name])))


def _joined(parts: Sequence[Columns]) -> Columns:
    return Columns(np.concatenate([part.scores for part in parts]), np.concatenate([part.labels for part in parts]))


def _offsets(classes: int, member: Member, refit: bool) -> Floats:
    part = _joined([member.train, member.dev]) if refit else member.train
    fitted = np.zeros((classes, part.scores.shape[1] + 1))
    fitted[:, -1] = choose_offsets(part.scores[:, :classes], part.labels)
    return fitted


def _readout(classes: int, member: Member, refit: bool) -> Floats:
    train, dev = member.train, member.dev
    return fit_readout(train.scores, train.labels, dev.scores, dev.labels, classes, prompts=1, refit=refit)[0]

"""Rehearses a run before anything is spent: the whole federation, with a model that answers at random and at once.

Coordinator, clients, methods and codecs are those of the run, so that the number of queries and the bytes of each
message are counted, not computed by formulas that the code would outgrow.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.errors import UnknownExamples
from fedbbpt.federation.crew import CrewPlan, LocalCrew
from fedbbpt.federation.run_folder import AUXILIARY
from fedbbpt.federation.simulation import SimulatedRound, Simulation
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Ptm
from fedbbpt.types import (
    Array,
    Arrays,
    Examples,
    ExampleSet,
    ExamplesHandle,
    Injection,
    LatentPrompts,
    ModelCard,
    Output,
    Perturbation,
    Prompts,
    Scored,
    SoftPrompts,
    Stage,
    TaskSpec,
    TextPrompts,
    TokenPrompts,
    Usage,
)
from fedbbpt.types.digests import digest
from fedbbpt.types.examples import concatenate

CACHED_PAIRS = 200_000
"""Pairs that the rehearsed service remembers, about as many as a service with default settings."""
SIGNAL = 1.5
"""By how much the score of the true class is higher on average, in standard deviations of the noise."""


@dataclass(slots=True)
class _Registered:
    """The examples of a handle."""

    handle: ExamplesHandle
    task: TaskSpec
    digests: list[bytes]
    labels: npt.NDArray[np.int64]
    times: int = 0
    """How often they are registered, and not released."""

    @property
    def released(self) -> bool:
        return self.times == 0


class RehearsalPtm:
    """Implements `interfaces.Ptm` with the card, the checks and the token counts of a real one, but scores nothing.

    Examples are registered with the real one, as the run would, since that costs nothing. The scores are noise with a
    lead for the true class, so that searches and readouts take the course that they take with a model that knows a
    little.
    """

    def __init__(self, ptm: Ptm, splits: Splits) -> None:
        """
        Args:
            ptm: The real one. Its `score` is never called.
            splits: The run's data, which knows the labels.
        """
        self._ptm, self._card = ptm, ptm.describe()
        whole = concatenate([*splits.train, *splits.dev, splits.test, splits.server])
        self._labels = dict(zip(whole.examples.digests(), whole.labels.tolist(), strict=True))
        self._tasks: dict[str, TaskSpec] = {}
        self._registered: dict[str, _Registered] = {}
        self._known: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()
        self._usage = Usage()

    def describe(self) -> ModelCard:
        return self._card

    def register_task(self, task: TaskSpec) -> str:
        task_id = self._ptm.register_task(task)
        self._tasks[task_id] = task
        return task_id

    def label_tokens(self, task: TaskSpec) -> tuple[int, ...]:
        return self._ptm.label_tokens(task)

    def register_examples(
        self,
        task_id: str,
        examples: Examples,
        prompt_tokens: int,
        perturbation: Perturbation | None = None,
        labels: npt.NDArray[np.int64] | None = None,
    ) -> ExamplesHandle:
        handle = self._ptm.register_examples(task_id, examples, prompt_tokens, perturbation, labels)
        truth = np.array([self._labels.get(one, 0) for one in examples.digests()], np.int64)
        digests = ExampleSet(examples, prompt_tokens, perturbation, labels).row_digests()
        found = self._registered.setdefault(handle.id, _Registered(handle, self._tasks[task_id], digests, truth))
        found.times += 1
        return handle

    def score(self, examples_id: str, prompts: Prompts) -> Scored:
        found = self._registered.get(examples_id)
        if found is None or found.released:
            raise UnknownExamples("released or never registered", where="examples_id", fix="register again")
        prompts.check(self._card)
        digests = prompts.digests()
        usage = self._used(found, prompts, digests)
        self._usage += usage
        return Scored(self._card.output, self._answer(found, digests), self._card.revision, usage)

    def release(self, examples_id: str) -> None:
        if (found := self._registered.get(examples_id)) and not found.released:
            found.times -= 1
            self._ptm.release(examples_id)

    def release_all(self) -> None:
        """Takes back the registrations that the rehearsal has left."""
        for examples_id, found in self._registered.items():
            while not found.released:
                self.release(examples_id)

    def usage(self) -> Usage:
        return self._usage

    def _used(self, found: _Registered, prompts: Prompts, digests: npt.NDArray[np.object_]) -> Usage:
        pairs, cached = len(digests) * len(found.digests), 0
        for prompt in digests:
            for index, row in enumerate(found.digests):
                pair = (prompt[index if len(prompt) > 1 else 0], row)
                if pair in self._known:
                    cached += 1
                    self._known.move_to_end(pair)
                else:
                    self._known[pair] = None
        while len(self._known) > CACHED_PAIRS:
            self._known.popitem(last=False)
        each = found.handle.tokens / max(1, found.handle.count) + _prompt_tokens(prompts)
        return Usage(queries=pairs, tokens=round((pairs - cached) * each), cached_queries=cached)

    def _answer(self, found: _Registered, digests: npt.NDArray[np.object_]) -> Array:
        """Scores `[P, B, V]` in the form of the card's output. The same call always gets the same ones."""
        rng = seeds.rng(0, "rehearsal", digest(*found.digests, *digests[:, 0]).hex())
        classes, output = len(found.task.classes), self._card.output
        scores = rng.standard_normal((len(digests), len(found.labels), classes), np.float32)
        rows = np.arange(len(found.labels))
        scores[:, rows, found.labels % classes] += SIGNAL
        if output.scores:
            return scores
        if output is Output.LABEL_ARGMAX:
            choices: Array = scores.argmax(axis=2).astype(np.int32)
            return choices
        scores -= np.log(np.exp(scores).sum(axis=2, keepdims=True))
        losses: Array = -scores[:, rows, found.labels % classes].mean(axis=1, dtype=np.float64)
        return losses


def _prompt_tokens(prompts: Prompts) -> float:
    """The tokens of each prompt. Those of texts are estimated: English has about three tokens for two words."""
    if isinstance(prompts, TextPrompts):
        return float(np.mean([1.5 * len(text.split()) for text in prompts.texts]))
    if isinstance(prompts, TokenPrompts):
        return float(prompts.ids.shape[1])
    if prompts.injection not in (Injection.PREFIX, Injection.CONCAT):
        return 0.0
    if isinstance(prompts, LatentPrompts):
        return float(prompts.projection.tokens)
    return float(prompts.embeddings.shape[1]) if isinstance(prompts, SoftPrompts) else 0.0


class _Untrained:
    """Implements `interfaces.WhiteBox` without a model: training changes nothing."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def align(self, weights: Arrays, z: npt.NDArray[np.float32], stage: Stage, seed: int) -> Arrays:
        return weights

    def tune(
        self, weights: Arrays, z: npt.NDArray[np.float32], stage: Stage, seed: int
    ) -> tuple[npt.NDArray[np.float32], float]:
        return z, 0.0


def rehearse(splits: Splits, ptm: RehearsalPtm) -> Iterator[SimulatedRound]:
    """Yields the rounds of a run in which nothing is asked of a real model, and none is trained."""
    with TemporaryDirectory() as name:
        folder: Path | None = None
        if splits.job.definition().white_box:
            folder = Path(name)
            (folder / AUXILIARY).touch()
        with closing(Simulation(splits, ptm, folder, _crew)) as simulation:
            yield from simulation.rounds()


def _crew(plan: CrewPlan, ptm: Ptm) -> LocalCrew:
    return LocalCrew(plan if plan.auxiliary is None else replace(plan, white_box=_Untrained), ptm)

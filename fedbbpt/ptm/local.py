"""The PTM for callers in the same process as the model."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.tenants.handles import RegisteredExamples, joined
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.types import Examples, ExamplesHandle, ModelCard, Perturbation, Prompts, Scored, TaskSpec, Usage

PAIRS_TOGETHER = 1 << 16
"""Pairs of a prompt and an example that several calls may have computed together."""


class LocalPtm:
    """Implements `interfaces.Ptm` for one tenant of an engine in this process.

    Code that loads the model itself passes `tenants.tenant.IN_PROCESS`, which has no limits. Not thread-safe.
    """

    def __init__(self, engine: Engine, tenant: Tenant) -> None:
        self.engine, self.tenant = engine, tenant

    def describe(self) -> ModelCard:
        return self.engine.describe(tenant=self.tenant)

    def register_task(self, task: TaskSpec) -> str:
        return self.engine.register_task(task, tenant=self.tenant)

    def label_tokens(self, task: TaskSpec) -> tuple[int, ...]:
        self.register_task(task)
        return self.engine.label_tokens(task)

    def register_examples(
        self,
        task_id: str,
        examples: Examples,
        prompt_tokens: int,
        perturbation: Perturbation | None = None,
        labels: npt.NDArray[np.int64] | None = None,
    ) -> ExamplesHandle:
        return self.engine.register_examples(task_id, examples, prompt_tokens, perturbation, labels, tenant=self.tenant)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.engine.threads, thread_name_prefix="forward")

    def score(self, examples_id: str, prompts: Prompts) -> Scored:
        """Runs a call from `Engine.begin` to `Engine.finish`. Raises the errors of both, and those of the backend."""
        return self._scored(self.engine.examples(examples_id, tenant=self.tenant), prompts)

    def score_all(self, calls: Sequence[tuple[str, Prompts]]) -> list[Scored]:
        """Returns the answer to each call, as `score` would, but computes those with the same prompts together.

        The first of the calls that were computed together has the usage of them all. Raises what `score` raises.
        """
        answers: dict[int, Scored] = {}
        together: dict[Hashable, dict[int, RegisteredExamples]] = {}
        for place, (examples_id, prompts) in enumerate(calls):
            examples = self.engine.examples(examples_id, tenant=self.tenant)
            if prompts.per_example or not self.describe().output.scores:
                answers[place] = self._scored(examples, prompts)
                continue
            key = examples.task_id, *prompts.digests().ravel().tolist()
            together.setdefault(key, {})[place] = examples
        for found in together.values():
            prompts = calls[next(iter(found))][1]
            for part in _parts(found, max(1, PAIRS_TOGETHER // len(prompts))):
                answers |= self._answers(part, prompts)
        return [answers[place] for place in range(len(calls))]

    def _answers(self, sets: Mapping[int, RegisteredExamples], prompts: Prompts) -> dict[int, Scored]:
        """The answers by the place of each set of examples."""
        if len(sets) == 1:
            return {place: self._scored(examples, prompts) for place, examples in sets.items()}
        scored = self._scored(joined(list(sets.values())), prompts)
        answers, start, usage = dict[int, Scored](), 0, scored.usage
        for place, examples in sets.items():
            end = start + len(examples.rows)
            bounds = None if scored.bounds is None else scored.bounds[:, start:end]
            answer = scored.answer[:, start:end]
            answers[place] = Scored(scored.output, answer, scored.revision, usage, scored.budget, bounds)
            start, usage = end, Usage()
        return answers

    def _scored(self, examples: RegisteredExamples, prompts: Prompts) -> Scored:
        call = self.engine.begin(examples, prompts, tenant=self.tenant)
        try:
            batches = call.scoring.batches
            # Handing a batch to another thread takes longer than a small one takes to compute.
            if len(batches) == 1 or self.engine.threads == 1:
                for batch in batches:
                    call.scoring.run(batch)
            else:
                for _ in self._pool.map(call.scoring.run, batches):
                    pass
        except BaseException:
            self.engine.cancel(call)
            raise
        return self.engine.finish(call)

    def release(self, examples_id: str) -> None:
        self.engine.release(examples_id, tenant=self.tenant)

    def usage(self) -> Usage:
        return self.engine.usage(tenant=self.tenant)


def _parts(sets: Mapping[int, RegisteredExamples], most: int) -> Iterator[dict[int, RegisteredExamples]]:
    """Yields the sets of examples in parts of at most so many examples, or of a single set."""
    part, size = dict[int, RegisteredExamples](), 0
    for place, examples in sets.items():
        if part and size + len(examples.rows) > most:
            yield part
            part, size = {}, 0
        part[place] = examples
        size += len(examples.rows)
    yield part

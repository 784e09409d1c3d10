"""The PTM for callers in the same process as the model."""

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.types import Examples, ExamplesHandle, ModelCard, Perturbation, Prompts, Scored, TaskSpec, Usage


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
        call = self.engine.begin(examples_id, prompts, tenant=self.tenant)
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

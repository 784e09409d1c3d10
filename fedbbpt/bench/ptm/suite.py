"""Runs the measurements of `bench ptm` one after the other. Needs torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedbbpt.bench.ptm.comparison import Progress
from fedbbpt.bench.ptm.figures import Figure
from fedbbpt.bench.ptm.measurements import causal, device, health, memory, precision, replicas, throughput
from fedbbpt.bench.ptm.running_service import run_service
from fedbbpt.bench.ptm.workload import Workload, task_for
from fedbbpt.types import Precision, Runtime

PARTS = (
    throughput.PART,
    health.PART,
    memory.PART,
    precision.PART,
    causal.PART,
    replicas.PART,
    device.PART,
)
"""Names of the measurements, in their order."""
ONE_SERVICE = {throughput.PART, health.PART, memory.PART, precision.PART}
"""The measurements that ask the same service."""


@dataclass(frozen=True, slots=True)
class Suite:
    """The choices of one run of the benchmark, and the measurements that it makes."""

    model: str
    threads: int
    precision: Precision = Precision.FLOAT32
    runtime: Runtime = Runtime.TORCH
    workload: Workload = field(default_factory=Workload)
    repeats: int = 9
    probes: int = 500
    """Number of health checks."""
    jobs: int = 1000
    """Number of jobs in the memory measurement."""
    causal_model: str = ""
    """A causal language model. Empty: a small one with random weights."""
    causal_words: int = 100
    """Words of each text in the causal measurement."""
    device: str = ""
    """"cpu" or "cuda". Empty: CUDA where the machine has it."""
    shapes: Sequence[str] = ("roberta-large", "llama-2-7b")
    parts: Sequence[str] = PARTS

    def run(self, folder: Path, progress: Progress) -> tuple[Figure, ...]:
        """Runs the chosen measurements. `folder` holds logs and checkpoints. Raises InvalidInput, ChildFailed."""
        figures: list[Figure] = []
        if ONE_SERVICE & set(self.parts):
            figures += self._of_one_service(folder, progress)
        if causal.PART in self.parts:
            texts = causal.with_text_length(self.workload, self.causal_words)
            figures += causal.measure(
                self.causal_model, folder / causal.PART, self.threads, texts, self.repeats, progress
            )
        if replicas.PART in self.parts:
            figures += replicas.measure(self.model, folder / replicas.PART, self.workload, self.repeats, progress)
        if device.PART in self.parts:
            for shape in self.shapes:
                figures += device.measure(self.device, shape, folder / shape, self.workload, self.repeats, progress)
        return tuple(figures)

    def _of_one_service(self, folder: Path, progress: Progress) -> list[Figure]:
        progress(f"starting the service with {self.model}")
        figures: list[Figure] = []
        with run_service(folder / "ptm", self.model, self.threads, self.precision, self.runtime) as service:
            task = task_for(service.ptm.describe().family, self.model)
            job = task, self.workload, self.repeats
            if throughput.PART in self.parts:
                figures += throughput.measure(service, self.model, self.threads, *job, progress)
            if health.PART in self.parts:
                figures += health.measure(service, task, self.workload, self.probes, progress)
            if memory.PART in self.parts:
                figures += memory.measure(service, task, self.workload, self.jobs, progress)
            if precision.PART in self.parts:
                figures += precision.measure(service, self.model, folder, self.threads, *job, progress)
        return figures

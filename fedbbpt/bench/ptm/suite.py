"""The parts of the measurement, one after the other. Needs torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedbbpt.bench.ptm.figures import Figure
from fedbbpt.bench.ptm.measurements import causal, device, health, memory, precision, replicas, throughput
from fedbbpt.bench.ptm.service import service
from fedbbpt.bench.ptm.turns import Note
from fedbbpt.bench.ptm.workload import Workload, task_of
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


@dataclass(frozen=True, slots=True)
class Suite:
    model: str
    threads: int
    precision: Precision = Precision.FLOAT32
    runtime: Runtime = Runtime.TORCH
    workload: Workload = field(default_factory=Workload)
    repeats: int = 9
    probes: int = 500
    jobs: int = 1000
    causal_model: str = ""
    """Empty: a random one."""
    causal_words: int = 100
    device: str = ""
    """Empty: CUDA's, where there is one."""
    shapes: Sequence[str] = ("roberta-large", "llama-2-7b")
    parts: Sequence[str] = PARTS

    def run(self, folder: Path, note: Note) -> tuple[Figure, ...]:
        """`folder` is for logs and a made model. Raises InvalidInput, ChildFailed."""
        figures: list[Figure] = []
        if {throughput.PART, health.PART, memory.PART, precision.PART} & set(self.parts):
            note(f"starting the service with {self.model}")
            with service(folder / "ptm", self.model, self.threads, self.precision, self.runtime) as started:
                task = task_of(started.ptm.describe().family, self.model)
                job = task, self.workload, self.repeats
                if throughput.PART in self.parts:
                    figures += throughput.measure(started, self.model, self.threads, *job, note)
                if health.PART in self.parts:
                    figures += health.measure(started, task, self.workload, self.probes, note)
                if memory.PART in self.parts:
                    figures += memory.measure(started, task, self.workload, self.jobs, note)
                if precision.PART in self.parts:
                    figures += precision.measure(started, self.model, folder, self.threads, *job, note)
        if causal.PART in self.parts:
            workload = causal.texts_of(self.workload, self.causal_words)
            figures += causal.measure(
                self.causal_model, folder / causal.PART, self.threads, workload, self.repeats, note
            )
        if replicas.PART in self.parts:
            figures += replicas.measure(self.model, folder / replicas.PART, self.workload, self.repeats, note)
        if device.PART in self.parts:
            for shape in self.shapes:
                figures += device.measure(self.device, shape, self.workload, self.repeats, note)
        return tuple(figures)

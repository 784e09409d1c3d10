"""The service that is measured: `fedbbpt ptm serve` in a process of its own, asked over gRPC by this one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fedbbpt.bench.ptm.turns import Way
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.errors import FedbbptError
from fedbbpt.federation.processes import ProcessGroup
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.types import LatentPrompts, Precision, Runtime, Scores, TaskSpec
from fedbbpt.wire.channel import connect

START_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Service:
    ptm: RemotePtm
    address: str
    pid: int
    precision: Precision
    runtime: Runtime

    def way(self, task: TaskSpec, workload: Workload) -> Way:
        """On the workload's texts, which it keeps."""
        handle = self._register(task, workload)
        return lambda prompts: partial(self.score, handle, prompts)

    def anew(self, task: TaskSpec, workload: Workload) -> Way:
        """On texts that it knows nothing of before each job; nobody else may ask for them."""
        kept: list[str] = []

        def way(prompts: LatentPrompts) -> Callable[[], Scores]:
            while kept:
                self.ptm.release(kept.pop())
            kept.append(self._register(task, workload))
            return partial(self.score, kept[0], prompts)

        return way

    def _register(self, task: TaskSpec, workload: Workload) -> str:
        return self.ptm.register_examples(self.ptm.register_task(task), workload.texts(), workload.prompt_tokens).id

    def score(self, handle: str, prompts: LatentPrompts) -> Scores:
        scored = self.ptm.score(handle, prompts)
        if scored.usage.cached_queries:
            raise FedbbptError("answers were known before", where="bench", fix="a service that nobody else asks")
        return scored.scores


@contextmanager
def service(
    folder: Path,
    model: str,
    threads: int,
    precision: Precision = Precision.FLOAT32,
    runtime: Runtime = Runtime.TORCH,
    *,
    replicas: int = 0,
) -> Iterator[Service]:
    """Runs while the block does; with `replicas` on Ray. `folder` is for its log. Raises ChildFailed."""
    with ProcessGroup(folder) as group:
        file = folder / "address"
        file.unlink(missing_ok=True)
        engine = ["--engine", "ray", "--replicas", str(replicas)] if replicas else ["--engine", runtime]
        words = ["--model", model, "--threads", str(threads), "--precision", precision, *engine]
        group.start("ptm", ["ptm", "serve", *words, "--address-file", str(file)])
        address = group.address("ptm", file, START_SECONDS)
        with connect(address) as channel:
            yield Service(RemotePtm(channel), address, group.pid("ptm"), precision, runtime)

"""Starts `fedbbpt ptm serve` in a process of its own and asks it over gRPC, as a client would."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fedbbpt.bench.ptm.comparison import Scorer
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.errors import FedbbptError
from fedbbpt.federation.processes import ProcessGroup
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.types import LatentPrompts, Precision, Runtime, Scores, TaskSpec
from fedbbpt.wire.channel import connect
from fedbbpt.wire.peers import PTM

START_SECONDS = 600.0
"""How long the service may take to load its model."""


@dataclass(frozen=True, slots=True)
class RunningService:
    """A PTM service that runs in another process on this machine."""

    ptm: RemotePtm
    address: str
    pid: int
    precision: Precision
    runtime: Runtime

    def scorer(self, task: TaskSpec, workload: Workload) -> Scorer:
        """Returns a scorer of the workload's texts, which are registered once."""
        handle = self._register(task, workload)
        return lambda prompts: partial(self.score, handle, prompts)

    def scorer_of_new_texts(self, task: TaskSpec, workload: Workload) -> Scorer:
        """Returns a scorer that releases the texts and registers them again before each job.

        No other scorer may use the same texts, as the service would then still know them.
        """
        registered: list[str] = []

        def prepare(prompts: LatentPrompts) -> Callable[[], Scores]:
            while registered:
                self.ptm.release(registered.pop())
            registered.append(self._register(task, workload))
            return partial(self.score, registered[0], prompts)

        return prepare

    def _register(self, task: TaskSpec, workload: Workload) -> str:
        return self.ptm.register_examples(self.ptm.register_task(task), workload.texts(), workload.prompt_tokens).id

    def score(self, handle: str, prompts: LatentPrompts) -> Scores:
        """Returns scores `[P, B, K]`. Raises FedbbptError if any of them came from the service's cache."""
        scored = self.ptm.score(handle, prompts)
        if scored.usage.cached_queries:
            raise FedbbptError(
                "the service answered from its cache", where="bench", fix="a service that has no other users"
            )
        return scored.scores


@contextmanager
def run_service(
    folder: Path,
    model: str,
    threads: int,
    precision: Precision = Precision.FLOAT32,
    runtime: Runtime = Runtime.TORCH,
    *,
    device: str = "cpu",
    replicas: int = 0,
) -> Iterator[RunningService]:
    """Runs a service for the duration of the block.

    Args:
        folder: where the service's log is written.
        replicas: above 0, the service runs on Ray with this many replicas of the model.

    Raises ChildFailed if the service does not start.
    """
    with ProcessGroup(folder) as group:
        address_file = folder / "address"
        address_file.unlink(missing_ok=True)
        engine = ["--engine", "ray", "--replicas", str(replicas)] if replicas else ["--engine", runtime]
        options = ["--model", model, "--threads", str(threads), "--precision", precision, "--device", device, *engine]
        group.start("ptm", ["ptm", "serve", *options, "--address-file", str(address_file)])
        address = group.address("ptm", address_file, START_SECONDS)
        with connect(address, peer=PTM) as channel:
            yield RunningService(RemotePtm(channel), address, group.pid("ptm"), precision, runtime)

"""A PTM that goes down, hangs or changes during a run, and its effect on a client and the federation."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.errors import DeadlineExceeded, FedbbptError, PtmUnavailable, RevisionChanged
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake, FakeRow
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.ptm.scheduling.planner import PlannedJob
from fedbbpt.types import MicroBatch, ModelCard, Prompts, Scores, TaskSpec
from fedbbpt.wire.channel import connect
from tests.federation import InProcess, play
from tests.tiny_run import CLIENTS, DEADLINE_SECONDS, ROUNDS, job, undisturbed


class Hanging(Fake):
    """Answers no call before `let_go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def job(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[FakeRow], wanted: npt.NDArray[np.bool_]
    ) -> PlannedJob:
        planned = super().job(task, prompts, rows, wanted)

        def run(batch: MicroBatch) -> Scores:
            assert self.let_go.wait(200.0)
            return planned.run(batch)

        return PlannedJob(planned.batches, run)


class Other(Fake):
    def describe(self) -> ModelCard:
        return replace(super().describe(), revision="fake-3")


class Provider:
    """The PTM service on one port, with one model after the other."""

    def __init__(self, servers: Any) -> None:
        self._servers, self._backend = servers, Fake()
        self._port: int = servers.start(Engine(self._backend, time.monotonic))

    def ptm(self, patience_seconds: float = 60.0) -> RemotePtm:
        return RemotePtm(connect(f"127.0.0.1:{self._port}"), call_seconds=2.0, patience_seconds=patience_seconds)

    def stop(self) -> None:
        if isinstance(self._backend, Hanging):
            self._backend.let_go.set()
        self._servers.stop(self._port)

    def start(self, backend: Fake) -> None:
        self._backend = backend
        self._servers.start(Engine(backend, time.monotonic), port=self._port)


@pytest.fixture
def provider(ptm_servers: Any) -> Provider:
    return Provider(ptm_servers)


@pytest.fixture
def federation(splits: Splits, tmp_path: Path) -> Iterator[InProcess]:
    made = InProcess(splits, tmp_path / "run.db")
    yield made
    made.close()


def test_client_waits_for_a_ptm_that_is_down(provider: Provider, data: Path, tmp_path: Path) -> None:
    alone = prepare(job(data, clients=1))
    federation = InProcess(alone, tmp_path / "run.db")
    client = federation.client(0, ptm=provider.ptm(0.0))
    play([client], 2)
    provider.stop()
    waits: list[int] = []

    def wait() -> None:
        waits.append(1)
        if len(waits) == 3:
            provider.start(Fake())

    assert client.agent.run(client.link, wait) == ROUNDS - 1
    assert len(waits) >= 3
    assert federation.course() == undisturbed(alone)
    federation.close()


@pytest.mark.parametrize(
    ("after", "error"), [(None, PtmUnavailable), (Hanging, DeadlineExceeded), (Other, RevisionChanged)]
)
def test_ptm_in_trouble_costs_a_client_one_round_and_the_federation_nothing(
    federation: InProcess, provider: Provider, after: type[Fake] | None, error: type[FedbbptError]
) -> None:
    anna, berta, clara = federation.client(0, ptm=provider.ptm(0.0)), federation.client(1), federation.client(2)
    play([anna, berta, clara], 1)
    provider.stop()
    if after is not None:
        provider.start(after())
    with pytest.raises(error):
        anna.answer()
    play([berta, clara], 1)
    federation.advance(DEADLINE_SECONDS)
    if after is not None:
        provider.stop()
    provider.start(Fake())
    again = federation.client(0, ptm=provider.ptm())
    play([berta, clara], 1)
    play([again, berta, clara], ROUNDS - 2)
    assert federation.course().clients == [3, 2, 2, *[CLIENTS] * (ROUNDS - 2)]

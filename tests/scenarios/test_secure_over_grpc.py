"""Secure aggregation over gRPC: clients that die, a coordinator that is killed or lies, and TLS."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.errors import InvalidRequest, NotPrivate
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.secure.messages import Attempt, FromServer, Signatures, Survivors
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.server.secure_rounds import SecureRounds
from fedbbpt.wire.traffic import TrafficMeter
from tests.federation import AdvancingLoop, OverGrpc, Security
from tests.tiny_run import DEADLINE_SECONDS, fake_ptm, job, secure, undisturbed

CLIENTS = 5


class Died(Exception):
    """A client's process has ended."""


class WatchedLink(RemoteCoordinator):
    """Calls `at` with each message of secure aggregation before the client reads it."""

    at: Callable[[FromServer], None] = staticmethod(lambda message: None)

    def _take_secure(self, message: FromServer) -> None:
        self.at(message)
        super()._take_secure(message)


class Federation(OverGrpc):
    """A federation that tells what its coordinator waits for."""

    def _open(self, traffic: TrafficMeter) -> Coordinator:
        self._coordinator = super()._open(traffic)
        return self._coordinator

    def waits_for(self) -> frozenset[str]:
        """Returns the clients that secure aggregation waits for."""

        async def look() -> frozenset[str]:
            assert self._coordinator.secure is not None
            return self._coordinator.secure.missing

        return self._run(look())


class Run:
    """A run whose clients are threads."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self._threads = ThreadPoolExecutor(CLIENTS)

    def start(self, index: int, at: Callable[[FromServer], None] = lambda message: None) -> "Future[int]":
        """Starts a client, which ends with the run, or when `at` raises."""

        def work() -> int:
            link = WatchedLink(self.federation.channel(client=index))
            link.at = at
            client = self.federation.client(index, link=link, ptm=fake_ptm())
            try:
                return client.agent.run(client.link, wait=lambda: None)
            finally:
                link._close()

        return self._threads.submit(work)


def splits_of(data: Path, rounds: int = 3) -> Splits:
    return prepare(secure(job(data, rounds=rounds, clients=CLIENTS)))


def test_a_coordinator_killed_while_clients_reveal_ends_with_the_simulated_prompt_over_tls(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop, security: Security
) -> None:
    splits = splits_of(data)
    run = Run(Federation(splits, tmp_path / "run.db", server_loop, security))
    first = threading.Lock()

    def at(message: FromServer) -> None:
        if isinstance(message, Survivors) and message.attempt == 1 and first.acquire(blocking=False):
            run.federation.restart()

    clients = [run.start(index, at) for index in range(CLIENTS)]
    assert [client.result() for client in clients] == [4] * CLIENTS
    assert run.federation.course() == undisturbed(splits)
    run.federation.close()


@pytest.mark.parametrize("step", [Attempt, Survivors])
def test_a_client_that_dies_before_or_after_its_masked_answer_leaves_the_run_to_the_others(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop, step: type[FromServer]
) -> None:
    run = Run(Federation(splits_of(data), tmp_path / "run.db", server_loop))

    def dies(message: FromServer) -> None:
        if isinstance(message, step) and getattr(message, "attempt", 0) == 1:
            raise Died

    dying, *others = [run.start(index, dies if index == 0 else lambda message: None) for index in range(CLIENTS)]
    with pytest.raises(Died):
        dying.result()

    while run.federation.waits_for() != {"client-0000"}:
        pass
    run.federation.advance(DEADLINE_SECONDS + 1)
    assert [other.result() for other in others] == [4] * (CLIENTS - 1)
    counted = run.federation.course().clients
    assert counted[0] == CLIENTS
    assert counted[1] == (CLIENTS if step is Survivors else CLIENTS - 1)
    assert counted[2:] == [CLIENTS - 1] * 2
    run.federation.close()


class LyingRounds(SecureRounds):
    """Tells client-0001 in round 1 that client-0000 has dropped out, and shows it no signature of anybody."""

    _lie: Sequence[FromServer] = ()

    def due(self, client_id: str) -> Sequence[FromServer]:
        """Returns what is due, with the lie in place of the last message."""
        honest = list(super().due(client_id))
        if client_id == "client-0001" and honest and isinstance(honest[-1], Survivors) and honest[-1].attempt == 1:
            if not self._lie:
                told = honest[-1]
                self._lie = [replace(told, dropped=(0,)), Signatures(told.epoch, told.attempt, ())]
            return [*honest[:-1], *self._lie]
        return honest


class LyingFederation(Federation):
    """A federation whose coordinator lies."""

    def _open(self, traffic: TrafficMeter) -> Coordinator:
        coordinator = super()._open(traffic)
        assert coordinator.secure is not None
        coordinator.secure.__class__ = LyingRounds
        return coordinator


def test_a_client_leaves_a_coordinator_that_lies_about_survivors(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop
) -> None:
    run = Run(LyingFederation(splits_of(data, rounds=1), tmp_path / "run.db", server_loop))
    clients = [run.start(index) for index in range(CLIENTS)]
    with pytest.raises(NotPrivate, match="only 0 neighbours have signed the survivors"):
        clients[1].result()
    assert [client.result() for client in (clients[0], *clients[2:])] == [2] * (CLIENTS - 1)
    run.federation.close()


def test_an_update_in_the_clear_is_refused(data: Path, tmp_path: Path, server_loop: AdvancingLoop) -> None:
    federation = OverGrpc(splits_of(data), tmp_path / "run.db", server_loop)
    clients = [federation.client(index) for index in range(CLIENTS)]
    task = clients[0].task()
    link = clients[0].link
    assert isinstance(link, RemoteCoordinator)
    link._secure = None  # as a client of another make that does not know secure aggregation
    with pytest.raises(InvalidRequest, match="in the clear"):
        link.submit(task.id, clients[0].agent.answer(task))
    link._close()
    federation.close()

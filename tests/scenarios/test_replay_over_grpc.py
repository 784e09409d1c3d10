"""Clients that replay the search over gRPC: what travels, and that nothing that can go wrong changes the result."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.interfaces import Replay
from fedbbpt.job.config import Job
from fedbbpt.types import Arrays, Receipt
from tests.federation import AdvancingLoop, Client, OverGrpc, play
from tests.recording_link import RecordingLink
from tests.tiny_run import CLIENTS, DEADLINE_SECONDS, ROUNDS, job, undisturbed


@pytest.fixture(params=["ranks", "newton"])
def steps(data: Path, request: pytest.FixtureRequest) -> Splits:
    sections = job(data).model_dump()
    sections["method"] |= {"step": request.param}
    sections["task"]["prompt"] |= {"dim": 40}  # the news of two steps are smaller than the state
    return prepare(Job.model_validate(sections))


@pytest.fixture
def federation(steps: Splits, tmp_path: Path, server_loop: AdvancingLoop) -> Iterator[OverGrpc]:
    federation = OverGrpc(steps, tmp_path / "run.db", server_loop)
    yield federation
    federation.close()


class OtherBits:
    """A replay on a machine that rounds differently: each step moves the first number by its last bit."""

    def __init__(self, inner: Replay[Any]) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def replayed(self, held: Arrays, news: Arrays, seed: int) -> Arrays:
        found = dict(self._inner.replayed(held, news, seed))
        mean = found["mean"].copy()
        mean[0] = np.nextafter(mean[0], mean.dtype.type(np.inf))
        return {**found, "mean": mean}


def recorded(federation: OverGrpc, index: int) -> tuple[Client, RecordingLink]:
    link = RecordingLink(federation.channel())
    return federation.client(index, link=link), link


def test_a_client_gets_the_search_once_and_then_news(federation: OverGrpc) -> None:
    """Kills: a state for everybody in every round; news that are larger than the losses that they come from."""
    (first, link), *others = [recorded(federation, index) for index in range(CLIENTS)]
    play([first, *(client for client, _ in others)], rounds=ROUNDS + 1)
    assert first.finished()
    assert link.kinds == "s" + "n" * ROUNDS
    state, *news = [header.arrays.total_bytes for header in link.headers]
    assert max(news) < state
    assert federation.course() == undisturbed(federation.splits)


def test_a_restarted_coordinator_repeats_no_state_and_tells_it_if_a_round_was_missed(federation: OverGrpc) -> None:
    clients = [recorded(federation, index) for index in range(CLIENTS)]
    play([client for client, _ in clients], rounds=1)
    for client, _ in clients:
        client.task()
    federation.restart()
    play([client for client, _ in clients], rounds=ROUNDS)
    assert all(client.finished() for client, _ in clients)
    for _, link in clients:
        assert link.kinds == "sn=" + "n" * (ROUNDS - 1)
    assert federation.course() == undisturbed(federation.splits)


def test_a_client_that_missed_a_round_gets_the_news_of_both(federation: OverGrpc) -> None:
    """Kills: news of the last step only, a seed of the wrong round, rows in the wrong order."""
    (present, _), (other, _), (slow, link) = [recorded(federation, index) for index in range(CLIENTS)]
    play([present, other, slow], rounds=1)
    late = slow.task()
    for client in (present, other):
        client.answer()
    federation.advance(DEADLINE_SECONDS)
    for client in (present, other):
        client.answer()
    assert slow.submit(late) is Receipt.TOO_LATE
    federation.advance(DEADLINE_SECONDS)
    play([present, other, slow], rounds=ROUNDS - 2)
    assert link.kinds == "sn2" + "n" * (ROUNDS - 3)
    assert all(client.finished() for client in (present, other, slow))


def test_a_client_that_joins_again_gets_the_state(federation: OverGrpc) -> None:
    (present, _), (other, _), (missing, _) = [recorded(federation, index) for index in range(CLIENTS)]
    play([present, other, missing], rounds=1)
    missing.hang_up()
    play([present, other], rounds=1)
    federation.advance(DEADLINE_SECONDS)
    again, link = recorded(federation, CLIENTS - 1)  # takes part from the next round on
    play([present, other], rounds=1)
    play([present, other, again], rounds=ROUNDS - 2)
    assert link.kinds == "s" + "n" * (ROUNDS - 3)
    assert link._search is not None
    assert isinstance(present.link, RemoteCoordinator) and present.link._search is not None
    assert link._search.digest == present.link._search.digest


def test_a_machine_that_computes_other_bits_gets_broadcasts(
    federation: OverGrpc, caplog: pytest.LogCaptureFixture
) -> None:
    """Kills: a client that goes on with a search of its own, which is wrong in silence."""
    clients = [recorded(federation, index) for index in range(CLIENTS)]
    odd = clients[0][1]
    assert odd._search is not None
    odd._search._replay = OtherBits(odd._search._replay)
    with caplog.at_level(logging.WARNING):
        play([client for client, _ in clients], rounds=ROUNDS + 1)
    assert odd.kinds == "snb" + "b" * (ROUNDS - 1)
    assert "this machine computes the search to other bits than the coordinator" in caplog.text
    assert all(client.finished() for client, _ in clients)
    assert federation.course() == undisturbed(federation.splits)


def test_a_client_that_does_not_replay_takes_part(federation: OverGrpc) -> None:
    clients = [recorded(federation, index) for index in range(CLIENTS)]
    plain = clients[0][1]
    plain._search = None
    play([client for client, _ in clients], rounds=ROUNDS + 1)
    assert plain.kinds == "b" * (ROUNDS + 1)
    assert federation.course() == undisturbed(federation.splits)


def test_a_repeated_answer_is_a_duplicate_whatever_the_client_holds(federation: OverGrpc) -> None:
    clients = [recorded(federation, index) for index in range(CLIENTS)]
    client, link = clients[0]
    task = client.task()
    assert client.submit(task) is Receipt.COUNTED
    assert client.submit(task) is Receipt.DUPLICATE
    assert link.kinds == "s"

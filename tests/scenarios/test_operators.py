"""The operators' rpcs over gRPC: members, trouble, results with cards, and who may call what."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.errors import (
    ClientIdTaken,
    Conflict,
    NoResultYet,
    NotFound,
    SessionEvicted,
    Unauthenticated,
    UnknownRun,
)
from fedbbpt.federation.assemble import hello
from fedbbpt.federation.fetched_result import save_result
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.federation.served_runs import RunFolders
from fedbbpt.federation.splits import Splits
from fedbbpt.job.job_file import job_text
from fedbbpt.server.remote import RemoteRun, RemoteRuns
from fedbbpt.server.runs import Runs
from fedbbpt.server.service import CoordinatorServer, serve
from fedbbpt.types import NewRun, PtmIdentity
from fedbbpt.wire.channel import connect
from fedbbpt.wire.tokens import token_digest
from tests.federation import Client
from tests.tiny_run import CLIENTS, fake_ptm


class Hub:
    """A coordinator with two runs, one of which has a token of its own."""

    def __init__(
        self, folder: Path, splits: Splits, loop: asyncio.AbstractEventLoop, tokens: list[str], operators: list[str]
    ) -> None:
        self._loop, self.splits = loop, splits
        self._folders = RunFolders(folder)
        self._serving: CoordinatorServer = asyncio.run_coroutine_threadsafe(
            serve(Runs(self._folders.runs, self._folders), tokens=tokens, operators=operators), loop
        ).result()
        text = job_text(splits.job)
        self.runs("operator").submit(NewRun("open", text))
        self.runs("operator").submit(NewRun("private", text, token_sha256=(token_digest("member"),)))

    def channel(self, token: str) -> Any:
        return connect(f"127.0.0.1:{self._serving.port}", token=token)

    def runs(self, token: str) -> RemoteRuns:
        return RemoteRuns(self.channel(token))

    def run(self, name: str = "", token: str = "operator") -> RemoteRun:
        return RemoteRun(self.channel(token), name)

    def client(self, index: int, run: str, token: str = "operator", key: str = "key") -> Client:
        link = RemoteCoordinator(self.channel(token), run=run, pause=lambda seconds: None)
        return Client(link, hello(f"client-{index:04d}", key, 10), self.splits, index, fake_ptm())

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._serving.stop(0.0), self._loop).result()
        self._folders.close()


@pytest.fixture(params=[(["operator"], [])])
def hub(
    request: pytest.FixtureRequest, tmp_path: Path, splits: Splits, server_loop: asyncio.AbstractEventLoop
) -> Iterator[Hub]:
    hub = Hub(tmp_path / "runs", splits, server_loop, *request.param)
    yield hub
    hub.close()


def test_a_runs_own_token_admits_its_clients_and_nothing_else(hub: Hub) -> None:
    with pytest.raises(Unauthenticated, match="another run, or to runs as their client only"):
        hub.client(0, "private", token="operator")
    member = hub.client(0, "private", token="member")
    own = hub.run("private", "member")
    assert [one.client_id for one in own.status().members] == ["client-0000"]
    with pytest.raises(NoResultYet):
        own.result()
    for call in (
        hub.run("open", "member").status,
        own.stop,
        own.members,
        lambda: own.remove("client-0000"),
        own.delete,
        lambda: own.play_on(1),
        lambda: own.backup("x.db"),
        hub.runs("member").list,
        lambda: hub.runs("member").submit(NewRun("third", "")),
    ):
        with pytest.raises(Unauthenticated):
            call()
    with pytest.raises(Unauthenticated, match="no valid token"):
        hub.run("open", "stranger").status()
    assert hub.run("private").stop().state == "stopped"
    member.hang_up()


@pytest.mark.parametrize("hub", [([], [])], indirect=True)
def test_without_tokens_everybody_operates_but_a_runs_own_token_is_needed_to_join(hub: Hub) -> None:
    assert [run.name for run in hub.runs("").list()] == ["open", "private"]
    with pytest.raises(Unauthenticated):
        hub.client(0, "private", token="")
    hub.client(0, "private", token="member").hang_up()


@pytest.mark.parametrize("hub", [(["client"], ["operator"])], indirect=True)
def test_tokens_of_operators_leave_those_of_clients_to_clients(hub: Hub) -> None:
    client = hub.client(0, "open", token="client")
    run = hub.run("open", "client")
    assert run.status().state == "waiting"
    with pytest.raises(NoResultYet):
        run.result()
    for call in (run.stop, run.members, lambda: run.remove("client-0000"), hub.runs("client").list):
        with pytest.raises(Unauthenticated, match="as their client only"):
            call()
    with pytest.raises(Unauthenticated):
        hub.run("private", "client").status()
    assert len(hub.run("open").members()) == 1
    client.hang_up()


def test_members_are_listed_with_their_troubles_and_removed(hub: Hub) -> None:
    run, client = hub.run("open"), hub.client(0, "open")
    client.link.report_trouble("PtmUnavailable: no answer")
    (member,) = run.members()
    assert (member.client_id, member.trouble) == ("client-0000", "PtmUnavailable: no answer")
    assert member.trouble_since > 1.7e9 and run.status().members == (member,)
    with pytest.raises(ClientIdTaken, match="`fedbbpt members remove client-0000`"):
        hub.client(0, "open", key="another")
    run.remove("client-0000")
    assert run.members() == []
    with pytest.raises(NotFound, match="no client has this name"):
        run.remove("client-0000")
    with pytest.raises(SessionEvicted):
        client.task()
    hub.client(0, "open", key="another").hang_up()


def test_every_client_gets_the_result_with_the_ptm_that_it_asks(hub: Hub, tmp_path: Path) -> None:
    clients = [hub.client(index, "open") for index in range(CLIENTS)]
    for client in clients:
        assert isinstance(client.link, RemoteCoordinator)
        client.link.report_ptm(PtmIdentity("fake", "r1", "float32"))
    while not hub.run("open").status().state.ended:
        for client in clients:
            client.answer()
    saved = save_result(hub.run("open"), tmp_path / "theirs.safetensors")
    assert (saved.ptm, saved.ptm_revision) == ("fake", "r1")
    save_result(hub.run("open"), tmp_path / "ours.safetensors", PtmIdentity("another", "r2"))
    (z, card), (same, own) = (read_prompt(tmp_path / f"{name}.safetensors") for name in ("theirs", "ours"))
    assert z.tobytes() == same.tobytes() and card == saved
    assert (own.ptm, own.ptm_revision, own.ptm_precision) == ("another", "r2", "")
    assert card.examples == 10 * CLIENTS
    for client in clients:
        client.hang_up()


def test_runs_are_told_apart_by_name(hub: Hub) -> None:
    with pytest.raises(UnknownRun, match="the coordinator has 2 runs; the name of one: open, private"):
        hub.run().status()
    with pytest.raises(UnknownRun):
        hub.client(0, "third")
    with pytest.raises(Conflict, match="the run is waiting; stop it; then it can be continued"):
        hub.run("open").play_on(2)
    hub.run("open").stop()
    assert hub.run("open").play_on(2).state == "running"
    hub.run("private").stop()
    hub.run("private").delete()
    assert hub.run().status().name == "open"

"""The operators' rpcs over gRPC: members, trouble, results with cards, and who may call what."""

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.errors import (
    ClientIdTaken,
    Conflict,
    NoResultYet,
    NotFound,
    NotPermitted,
    SessionEvicted,
    Unauthenticated,
    Unavailable,
    UnknownRun,
)
from fedbbpt.federation.fetched_result import save_result
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.types import PtmIdentity, Receipt
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from fedbbpt.wire.status import from_rpc_error
from tests.hub import Hub, tokens
from tests.tiny_run import CLIENTS


def test_a_runs_own_token_admits_its_clients_and_nothing_else(hub: Hub) -> None:
    with pytest.raises(NotPermitted, match="the run has tokens of its own"):
        hub.client(0, "private")
    own, member = hub.run("private", "own client-0000"), hub.client(0, "private", token="own client-0000")
    hub.client(1, "private", token="own client-0001").hang_up()
    assert [one.client_id for one in own.status().members] == ["client-0000"]
    with pytest.raises(NoResultYet):
        own.result()
    with pytest.raises(NotPermitted, match="the token admits to another run"):
        hub.run("open", "own client-0000").status()
    with pytest.raises(NotPermitted, match="--name client-0001, or that client's own credentials"):
        hub.client(0, "private", token="own client-0001")
    with pytest.raises(NotPermitted):
        hub.run("private", "client-0002").status()
    with pytest.raises(Unauthenticated, match="no valid token"):
        hub.run("open", "stranger").status()
    assert hub.run("private").stop().state == "stopped"
    member.hang_up()


@pytest.mark.parametrize("hub", [None], indirect=True)
def test_without_tokens_everybody_operates_but_a_runs_own_token_is_needed_to_join(hub: Hub) -> None:
    assert [run.name for run in hub.runs("").list()] == ["open", "private"]
    with pytest.raises(NotPermitted):
        hub.client(0, "private", token="")
    hub.client(0, "private", token="own client-0000").hang_up()


def test_a_client_sees_itself_and_can_neither_stop_a_run_nor_take_another_name(hub: Hub) -> None:
    first, second = hub.client(0, "open"), hub.client(1, "open")
    seen = hub.run("open", "client-0000")
    assert [member.client_id for member in seen.status().members] == ["client-0000"]
    assert [member.client_id for status, _ in [next(seen.watch())] for member in status.members] == ["client-0000"]
    told = [next(hub.run("open", name).watch_events()).events for name in ("client-0000", "observer")]
    assert {event.client_id for event in told[0]} == {"client-0000"}
    assert {event.client_id for event in told[1]} >= {"client-0000", "client-0001"}
    assert len(hub.run("open", "observer").status().members) == len(hub.run("open").members()) == 2
    for call in (seen.stop, seen.members, lambda: seen.remove("client-0001"), hub.runs("client-0000").list):
        with pytest.raises(NotPermitted, match="client-0000 has the role client, which may not call this"):
            call()
    with pytest.raises(NotPermitted, match="client-0001: these credentials belong to client-0000"):
        hub.client(1, "open", token="client-0000")
    with pytest.raises(NotPermitted, match="Join: the-operator has the role operator"):
        hub.client(1, "open", token="operator")
    for client in (first, second):
        client.hang_up()


def test_a_session_is_of_use_to_no_other_member(hub: Hub) -> None:
    """Kills: a session that is a bearer token, with which another client leaves, answers or reports in its name."""
    first = hub.client(0, "open")
    session = first.link._session  # type: ignore[attr-defined]  # it travels in requests only
    stub = CoordinatorServiceStub(hub.channel("client-0001"))
    opening = pb.TakePartRequest(opening=pb.Opening(session=session))
    calls: list[Callable[[], object]] = [
        lambda: stub.Leave(pb.LeaveRequest(session=session), timeout=30.0),
        lambda: stub.ReportTrouble(pb.ReportTroubleRequest(session=session, text="x"), timeout=30.0),
        lambda: next(stub.TakePart(iter([opening]), timeout=30.0)),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as error:
            call()
        problem = from_rpc_error(error.value, Unavailable)
        assert isinstance(problem, NotPermitted) and "these credentials belong to client-0001" in str(problem)
    assert [(one.client_id, one.trouble) for one in hub.run("open").members()] == [("client-0000", "")]
    first.hang_up()


def test_a_token_that_is_taken_away_ends_its_streams_and_no_other(hub: Hub) -> None:
    clients = [hub.client(index, "open") for index in range(CLIENTS)]
    tasks = [client.task() for client in clients]
    hub.reload([token for token in tokens() if token.name != "client-0000"])
    with pytest.raises(Unauthenticated, match="no valid token"):
        clients[0].task()
    for client, task in zip(clients[1:], tasks[1:], strict=True):
        assert client.submit(task) is Receipt.COUNTED
    for client in clients:
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

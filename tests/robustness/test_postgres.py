"""A store in PostgreSQL: one coordinator at a time has it, connections break, the server stops, and nothing is lost."""

import secrets
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.errors import InvalidInput, StoreError, StoreLocked, StoreMismatch, StoreReplaced
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Store
from fedbbpt.server.stores.opening import await_store, open_store
from fedbbpt.server.stores.postgres import PostgresStore
from fedbbpt.server.stores.rows import RunRecord
from fedbbpt.types import Measurement, Member, Phase, Receipt, Snapshot, TaskId, Update
from fedbbpt.wire.channel import connect
from tests.federation import AdvancingLoop, OverGrpc, play
from tests.postgres import PostgresServer
from tests.tiny_run import CLIENTS, ROUNDS, undisturbed

pytestmark = pytest.mark.slow

RUN = RunRecord("run-1", 2**64 - 1, "digest", "2026-01-01T00:00:00+00:00")
ANNA, BERTA = Member("anna", "key", 5, since=0), Member("berta", "key", 5, since=0)


def update(client_id: str, weight: float = 5.0) -> tuple[TaskId, Update]:
    return TaskId("run-1", 1, client_id, Phase.UPDATE), Update({}, weight, Measurement(1.0, 2, 1, 30))


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.url(f"s{secrets.token_hex(4)}")


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    with closing(PostgresStore(url, RUN)) as made:
        made.put_members([ANNA])
        made.commit(Snapshot(1, {}))
        yield made


def test_a_second_coordinator_is_refused_while_the_first_is_running(store: PostgresStore, url: str) -> None:
    with pytest.raises(StoreLocked, match="another coordinator has it"):
        PostgresStore(url, RUN)
    assert store.members() == {"anna": ANNA}


def test_runs_in_two_schemas_do_not_meet(store: PostgresStore, postgres: PostgresServer) -> None:
    with closing(PostgresStore(postgres.url(f"s{secrets.token_hex(4)}"), RUN)) as other:
        assert other.members() == {}


def test_a_broken_connection_fails_one_call_only(store: PostgresStore, url: str, postgres: PostgresServer) -> None:
    postgres.end_sessions()
    with pytest.raises(StoreError, match="does not answer"):
        store.put_updates([update("anna")])
    store.put_updates([update("anna")])
    store.put_members([BERTA])
    store.close()
    with closing(PostgresStore(url, RUN)) as again:
        assert (list(again.updates(1)), again.members()) == (["anna"], {"anna": ANNA, "berta": BERTA})


class CutAfter(PostgresStore):
    """A store whose connection breaks when a transaction has been committed, before the answer arrives."""

    cut = False

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with super()._writing():
            yield
        if self.cut:
            self.cut = False
            self._connection.invalidate()
            raise StoreError("the database does not answer")


def test_a_transaction_of_unknown_end_is_made_again(url: str) -> None:
    with closing(CutAfter(url, RUN)) as store:
        store.commit(Snapshot(1, {}))
        store.cut = True
        with pytest.raises(StoreError):
            store.put_updates([update("anna")])
        store.put_updates([update("anna"), update("berta")])
        store.cut = True
        with pytest.raises(StoreError):
            store.commit(Snapshot(2, {}), [ANNA])
        store.commit(Snapshot(2, {}), [ANNA])
    with closing(PostgresStore(url, RUN)) as again:
        loaded = again.load()
        assert loaded is not None
        assert (loaded.round, again.members(), again.updates(1)) == (2, {"anna": ANNA}, {})


def test_a_coordinator_that_was_replaced_writes_nothing_more(
    store: PostgresStore, url: str, postgres: PostgresServer
) -> None:
    postgres.end_sessions()
    with closing(PostgresStore(url, RUN)) as second:
        with pytest.raises(StoreError, match="does not answer"):
            store.put_members([BERTA])
        for _ in range(2):
            with pytest.raises(StoreReplaced, match="another coordinator has taken over"):
                store.put_members([BERTA])
        assert second.members() == {"anna": ANNA}
    with pytest.raises(StoreReplaced):  # also when the other one has gone
        store.put_members([BERTA])


def test_a_standby_waits_until_the_first_has_gone(store: PostgresStore, url: str, postgres: PostgresServer) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            postgres.end_sessions()

    with closing(await_store(url, RUN, pause)) as second:
        assert second.members() == {"anna": ANNA}
    assert len(pauses) == 3


class InPostgres(OverGrpc):
    def __init__(self, splits: Splits, path: Path, loop: AdvancingLoop, url: str, port: int = 0) -> None:
        self._url, self._first_port = url, port
        super().__init__(splits, path, loop)

    def _start(self, port: int) -> None:
        super()._start(port or self._first_port)

    def _open_store(self) -> Store:
        return open_store(self._url, self.record())


@pytest.fixture
def federation(splits: Splits, tmp_path: Path, server_loop: AdvancingLoop, url: str) -> Iterator[InPostgres]:
    made = InPostgres(splits, tmp_path / "run.db", server_loop, url)
    yield made
    made.close()


def test_a_run_ends_as_undisturbed_although_its_connections_break(
    federation: InPostgres, splits: Splits, postgres: PostgresServer
) -> None:
    clients = federation.clients()
    for index in range(ROUNDS):
        play(clients[: index + 1], 1)
        postgres.end_sessions()
        play(clients[index + 1 :], 1)
    play(clients, 1)
    assert federation.course() == undisturbed(splits)


def test_a_round_waits_while_the_server_is_down(
    federation: InPostgres, splits: Splits, postgres: PostgresServer
) -> None:
    """A client's first pause, after its first failure, starts the server again."""
    link = RemoteCoordinator(federation.channel(), pause=lambda seconds: postgres.start())
    anna, others = federation.client(0, link=link), [federation.client(index) for index in range(1, CLIENTS)]
    for _ in range(ROUNDS + 1):
        task = anna.task()
        postgres.stop()
        assert anna.submit(task) is Receipt.COUNTED
        play(others, 1)
    assert federation.course() == undisturbed(splits)


def test_clients_find_the_coordinator_that_takes_over(
    federation: InPostgres, splits: Splits, tmp_path: Path, server_loop: AdvancingLoop, url: str
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    channel = connect(f"127.0.0.1:{federation.port},127.0.0.1:{port}")
    clients = [federation.client(index, link=RemoteCoordinator(channel)) for index in range(CLIENTS)]
    play(clients, 1)
    play(clients[:1], 1)
    federation.close()
    second = InPostgres(splits, tmp_path / "run.db", server_loop, url, port)
    play(clients[1:], 1)
    play(clients, ROUNDS - 1)
    assert second.course() == undisturbed(splits)
    second.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("/postgres", "/missing_database"),
        ("csearch_path%3D", "csearch_path%3Dmissing_"),
        ("@127.0.0.1", "@127.0.0.2"),
        ("fedbbpt@", "nobody@"),
    ],
)
def test_what_cannot_be_reached_is_refused_in_words(url: str, change: str, message: str) -> None:
    with pytest.raises(StoreError) as refused:
        PostgresStore(url.replace(change, message), RUN)
    assert refused.value.fix
    assert "\n" not in str(refused.value)


def test_tables_of_another_program_are_left_alone(url: str, postgres: PostgresServer) -> None:
    schema = url.rpartition("%3D")[2]
    postgres.sql(f"CREATE TABLE {schema}.recipes (name TEXT)")
    with pytest.raises(StoreMismatch, match="another program"):
        PostgresStore(url, RUN)


def test_a_url_of_another_database_is_refused() -> None:
    with pytest.raises(InvalidInput, match="mysql://"):
        open_store("mysql://localhost/fedbbpt", RUN)

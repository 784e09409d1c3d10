"""Bad connections between clients, coordinator and PTM service: cut, slow, silent, half open, with changed bytes.

In each case the run ends with the bits of an undisturbed run, and no client is counted twice.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.errors import FedbbptError
from fedbbpt.federation.splits import Splits
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.types import Receipt
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.wire.channel import connect
from fedbbpt.wire.checksums import sealed
from fedbbpt.wire.peers import PTM
from fedbbpt.wire.tensors import bundle
from tests.federation import RUN_ID, AdvancingLoop, Client, OverGrpc, Security, play
from tests.robustness.proxy import At, CutBefore, FlipInside, Proxy, Then, Way
from tests.slow import slow_except
from tests.tiny_run import CLIENTS, ROUNDS, Course, undisturbed

T = TypeVar("T")

HEARTBEAT_SECONDS = 0.05
IMPATIENT_CALL_SECONDS = 2.0
"""Short, so that silence is noticed soon. On a slow machine calls may be repeated, which must not change the result."""
PAUSES_PER_PING = 5
"""Keepalive finds connections that wait for bytes that never come, as after a changed length, and ends them."""
each_number_of_steps = pytest.mark.parametrize("steps", slow_except([2, 5], 2))


class BadConnection:
    """A federation whose clients connect through proxies."""

    def __init__(
        self, splits: Splits, path: Path, loop: AdvancingLoop, security: Security | None, ptm_port: int
    ) -> None:
        self._loop, self.ptm_call_seconds, self._pauses = loop, 30.0, itertools.count(1)
        self.federation = OverGrpc(splits, path, loop, security, HEARTBEAT_SECONDS)
        self.proxy, self.ptm_proxy = Proxy(self.federation.port), Proxy(ptm_port)
        self._port, self._ptm_port = (self.call(proxy.start()) for proxy in (self.proxy, self.ptm_proxy))

    def client(self, index: int, call_seconds: float = 30.0) -> Client:
        link = RemoteCoordinator(
            self.federation.channel(self._port, client=index), call_seconds=call_seconds, pause=self._pause
        )
        channel = connect(f"127.0.0.1:{self._ptm_port}", peer=PTM)
        ptm = RemotePtm(channel, call_seconds=self.ptm_call_seconds, patience_seconds=60.0, pause=self._pause)
        return self.federation.client(index, link=link, ptm=ptm)

    def _pause(self, seconds: float) -> None:
        self.thaw()
        if next(self._pauses) % PAUSES_PER_PING == 0:
            for proxy in (self.proxy, self.ptm_proxy):
                self.call(proxy.cut())
        time.sleep(seconds)

    def _wait(self) -> None:
        """Ends the connections to the PTM after a call that got no answer, as keepalive does."""
        self.thaw()
        self.call(self.ptm_proxy.cut())

    def thaw(self) -> None:
        for proxy in (self.proxy, self.ptm_proxy):
            self.call(proxy.thaw())

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def run(self) -> Course:
        """Runs all clients to the end, each in its own thread."""

        def work(index: int) -> None:
            client = self._begin(index)
            try:
                client.agent.run(client.link, wait=self._wait)
            except (
                FedbbptError
            ):  # a changed bit in a header may name another rpc or token: the operator starts it again
                client = self._begin(index)
                client.agent.run(client.link, wait=self._wait)

        with ThreadPoolExecutor(CLIENTS) as threads:
            list(threads.map(work, range(CLIENTS)))
        return self.federation.course()

    def _begin(self, index: int) -> Client:
        """Starts a client again until it has joined, as its operator does."""
        while True:
            try:
                return self.client(index, IMPATIENT_CALL_SECONDS)
            except FedbbptError:
                self.thaw()

    def close(self) -> None:
        for proxy in (self.proxy, self.ptm_proxy):
            self.call(proxy.stop())
        self.federation.close()


MakeConnection: TypeAlias = Callable[[Security | None], contextlib.AbstractContextManager[BadConnection]]


@pytest.fixture
def make_connection(splits: Splits, tmp_path: Path, server_loop: AdvancingLoop, ptm_servers: Any) -> MakeConnection:
    numbers, ptm_port = itertools.count(), ptm_servers.start(Engine(Fake(), time.monotonic))

    @contextlib.contextmanager
    def make(security: Security | None) -> Iterator[BadConnection]:
        line = BadConnection(splits, tmp_path / f"{next(numbers)}.db", server_loop, security, ptm_port)
        try:
            yield line
        finally:
            line.close()

    return make


@pytest.fixture(scope="module")
def expected(splits: Splits) -> Course:
    return undisturbed(splits)


def to_ptm(line: BadConnection) -> Proxy:
    return line.ptm_proxy


def sweep(
    make_connection: MakeConnection,
    security: Security | None,
    way: Way,
    steps: int,
    fault: Callable[[int], At],
    expected: Course,
    proxy_of: Callable[[BadConnection], Proxy] = lambda line: line.proxy,
) -> None:
    """Makes a run for each of `steps` positions among the bytes that an undisturbed run sends in this direction."""
    with make_connection(security) as line:
        assert line.run() == expected
        # The length of a run varies slightly, because messages may share packets.
        total = proxy_of(line).passed[way] * 9 // 10
    struck = 0
    for byte in range(total // (2 * steps), total, total // steps):
        with make_connection(security) as line:
            proxy_of(line).fault = at = fault(byte)
            if proxy_of is to_ptm:
                line.ptm_call_seconds = 1.0 if at.then in (Then.FREEZE, Then.HALF_OPEN) else 5.0
            found = line.run()
            if proxy_of is to_ptm and at.then in (Then.FREEZE, Then.HALF_OPEN):
                # A client whose PTM does not answer says so, and the others do not wait for it.
                assert len(found.reports) == len(expected.reports), at
            else:
                assert without_queries(found) == without_queries(expected), at
            struck += at.struck
    assert struck >= steps - 1


def without_queries(course: Course) -> Course:
    """Returns the course without its costs: an answer that begins anew after a failed call asks again."""
    return replace(course, reports=tuple(replace(report, queries=0) for report in course.reports))


@each_number_of_steps
@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("secured", [False, True])
def test_a_connection_cut_at_any_byte_changes_nothing(
    make_connection: MakeConnection, security: Security, expected: Course, way: Way, secured: bool, steps: int
) -> None:
    sweep(make_connection, security if secured else None, way, steps, lambda byte: At(way, byte, Then.CUT), expected)


@each_number_of_steps
@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("secured", [False, True])
def test_a_connection_that_flips_any_byte_changes_nothing(
    make_connection: MakeConnection, security: Security, expected: Course, way: Way, secured: bool, steps: int
) -> None:
    """TLS notices every changed byte, and checksums notice those of messages on a connection without TLS."""
    tls = security if secured else None
    sweep(make_connection, tls, way, steps, lambda byte: At(way, byte, Then.GO_ON, flipped=0x10), expected)


@each_number_of_steps
@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("then", slow_except([Then.FREEZE, Then.HALF_OPEN], Then.FREEZE))
def test_a_connection_that_falls_silent_at_any_byte_changes_nothing(
    make_connection: MakeConnection, expected: Course, way: Way, then: Then, steps: int
) -> None:
    sweep(make_connection, None, way, steps, lambda byte: At(way, byte, then), expected)


@each_number_of_steps
@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("then", slow_except([Then.CUT, Then.FREEZE, Then.HALF_OPEN], Then.CUT))
def test_a_connection_to_the_ptm_that_breaks_at_any_byte_changes_nothing(
    make_connection: MakeConnection, expected: Course, way: Way, then: Then, steps: int
) -> None:
    sweep(make_connection, None, way, steps, lambda byte: At(way, byte, then), expected, to_ptm)


@each_number_of_steps
@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("flipped", slow_except([0x01, 0x80], 0x01))
def test_a_connection_to_the_ptm_that_flips_any_byte_changes_nothing(
    make_connection: MakeConnection, expected: Course, way: Way, flipped: int, steps: int
) -> None:
    sweep(make_connection, None, way, steps, lambda byte: At(way, byte, Then.GO_ON, flipped), expected, to_ptm)


@pytest.mark.parametrize(
    ("delay_seconds", "piece_bytes"), slow_except([(0.002, 65536), (0.0, 1), (0.001, 100)], (0.0, 1))
)
def test_slow_connections_change_nothing(
    make_connection: MakeConnection, expected: Course, delay_seconds: float, piece_bytes: int
) -> None:
    """With latency, byte by byte, and throttled."""
    with make_connection(None) as line:
        for proxy in (line.proxy, line.ptm_proxy):
            proxy.delay_seconds, proxy.piece_bytes = delay_seconds, piece_bytes
        assert without_queries(line.run()) == without_queries(expected)


def test_a_lost_reply_is_answered_as_a_duplicate(make_connection: MakeConnection, expected: Course) -> None:
    """The update is stored but its receipt is lost: the client sends it again and gets a duplicate's receipt."""
    receipt = pb.TakePartResponse(receipt=pb.RECEIPT_COUNTED).SerializeToString()
    # A heartbeat that is due at the same time shares the message.
    messages = (sealed(receipt), sealed(pb.TakePartResponse(heartbeat=pb.Heartbeat()).SerializeToString() + receipt))
    counted = tuple(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)  # as gRPC frames them
    with make_connection(None) as line:
        clients = [line.client(index) for index in range(CLIENTS)]
        for _ in range(ROUNDS + 1):
            tasks = [client.task() for client in clients]
            line.proxy.fault = fault = CutBefore(Way.DOWN, counted)
            assert clients[0].submit(tasks[0]) is Receipt.DUPLICATE
            assert fault.struck
            for client, task in zip(clients[1:], tasks[1:], strict=True):
                assert client.submit(task) is Receipt.COUNTED
        assert line.federation.course() == expected


def test_an_update_with_corrupted_arrays_is_sent_again(make_connection: MakeConnection, expected: Course) -> None:
    with make_connection(None) as line:
        clients = [line.client(index) for index in range(CLIENTS)]
        task = clients[0].task()
        line.proxy.fault = fault = FlipInside(Way.UP, bundle(clients[0].agent.answer(task).arrays)[0].data)
        assert clients[0].submit(task) is Receipt.COUNTED
        assert fault.struck
        play(clients[1:], 1)
        play(clients, ROUNDS)
        assert line.federation.course() == expected


def test_a_damaged_task_is_fetched_again(make_connection: MakeConnection, expected: Course) -> None:
    id_of_a_task = pb.TaskId(run_id=RUN_ID).SerializeToString()
    with make_connection(None) as line:
        line.proxy.fault = fault = FlipInside(Way.DOWN, id_of_a_task)
        assert line.run() == expected
        assert fault.struck

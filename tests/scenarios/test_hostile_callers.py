"""Attacks by strangers and tenants on a PTM service and on each other fail."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MessageTooLarge,
    Overloaded,
    PtmUnavailable,
    Unauthenticated,
)
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake, FakeRow
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.ptm.scheduling.planner import PlannedJob
from fedbbpt.ptm.service import ServiceLimits
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.ptm.tenants.state import Quotas
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.ptm.v1.ptm_pb2_grpc import PtmServiceStub
from fedbbpt.types import Examples, ExampleSet, MicroBatch, Perturbation, Prompts, Scores, TaskSpec, TextPrompts
from fedbbpt.wire import channel
from fedbbpt.wire.admission import CallerLimits
from fedbbpt.wire.channel import connect
from fedbbpt.wire.messages import ptm_messages
from fedbbpt.wire.status import from_rpc_error, retry_seconds
from fedbbpt.wire.strangers import StrangerLimits
from tests.scenarios.test_ptm_service import Gated, health
from tests.tenants import tokens

TASK = TaskSpec("{prompt} {text}", ("a number", "a person"))
EXAMPLES = Examples(("who wrote it", "how many people", "where is it"))
PROMPTS = TextPrompts(("which kind", "what"))
SCORE = "/fedbbpt.ptm.v1.PtmService/Score"
HEALTH = "/grpc.health.v1.Health/Check"


def remote(port: int, token: str = "") -> RemotePtm:
    return RemotePtm(connect(f"127.0.0.1:{port}", token=token), call_seconds=60.0, patience_seconds=0.0)


def register(ptm: RemotePtm) -> str:
    return ptm.register_examples(ptm.register_task(TASK), EXAMPLES, 4).id


class Unsent:
    """Opens calls whose message never comes."""

    def __init__(self, port: int, token: str = "") -> None:
        self._over = threading.Event()
        self._channel: Any = connect(f"127.0.0.1:{port}", token=token)

    def open(self, path: str = SCORE) -> Any:
        """Opens a call with a very late deadline."""

        def nothing() -> Iterator[bytes]:
            self._over.wait()
            yield from ()

        return self._channel.stream_unary(path).future(nothing(), timeout=300.0)

    def close(self) -> None:
        self._over.set()
        self._channel.close()


@pytest.fixture
def unsent() -> Iterator[Callable[..., Unsent]]:
    made: list[Unsent] = []

    def make(port: int, token: str = "") -> Unsent:
        made.append(Unsent(port, token))
        return made[-1]

    yield make
    for one in made:
        one.close()


def error_of(call: Any) -> Exception:
    """Returns the error with which a call ends."""
    with pytest.raises(grpc.RpcError) as raised:
        call.result(timeout=60.0)
    return from_rpc_error(raised.value, PtmUnavailable)


def test_strangers_occupy_no_calls(
    ptm_servers: Any, unsent: Callable[..., Unsent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are rejected before they have sent anything, so that tenants can still call."""
    monkeypatch.setattr(channel, "MAX_CONCURRENT_CALLS", 8)
    port = ptm_servers.start(Engine(Fake(), time.monotonic), tenants=Tenants.of_tokens(tokens("one")))
    strangers = unsent(port)
    for call in [strangers.open() for _ in range(16)]:
        assert isinstance(error_of(call), Unauthenticated)
    assert remote(port, "one").describe().revision == "fake-2"


def test_call_beyond_the_limit_may_be_retried(
    ptm_servers: Any, unsent: Callable[..., Unsent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: gRPC's own rejection, which clients would take for a spent budget."""
    monkeypatch.setattr(channel, "MAX_CONCURRENT_CALLS", 4)
    port = ptm_servers.start(Engine(Fake(), time.monotonic), tenants=Tenants.of_tokens(tokens("one", "two")))
    caller, ended = unsent(port, "one"), SimpleQueue[Any]()
    for _ in range(6):
        caller.open().add_done_callback(ended.put)
    for call in [ended.get(timeout=60.0) for _ in range(2)]:
        with pytest.raises(grpc.RpcError) as raised:
            call.result()
        assert isinstance(from_rpc_error(raised.value, PtmUnavailable), Overloaded)
        assert retry_seconds(raised.value) > 0


def test_message_of_a_stranger_is_not_parsed(ptm_servers: Any) -> None:
    port = ptm_servers.start(Engine(Fake(), time.monotonic), tenants=Tenants.of_tokens(tokens("one")))
    for token, error in (("", Unauthenticated), ("one", InvalidRequest)):
        line: Any
        with connect(f"127.0.0.1:{port}", token=token) as line:
            assert isinstance(error_of(line.unary_unary(SCORE).future(b"\xff" * 100_000, timeout=60.0)), error)


def test_calls_of_a_caller_and_their_time_are_limited(ptm_servers: Any, unsent: Callable[..., Unsent]) -> None:
    each = CallerLimits(calls=2, arriving=2, seconds=3.0)
    strangers = StrangerLimits(calls=2, seconds=3.0)
    tenants, limits = Tenants.of_tokens(tokens("one", "two")), ServiceLimits(tenant_calls=each, strangers=strangers)
    port = ptm_servers.start(Engine(Fake(), time.monotonic), tenants=tenants, limits=limits)
    callers = {"one": SCORE, "": HEALTH}
    calls = {token: [unsent(port, token).open(path) for _ in range(3)] for token, path in callers.items()}
    for opened in calls.values():
        assert Counter(type(error_of(call)) for call in opened) == {DeadlineExceeded: 2, Overloaded: 1}
    assert remote(port, "two").describe().revision == "fake-2"


def test_compressed_message_of_a_stranger_is_refused_unread(ptm_servers: Any) -> None:
    """Kills: kilobytes on the wire that become megabytes in memory, before anybody knows who sent them."""
    port = ptm_servers.start(Engine(Fake(), time.monotonic))
    line: Any
    with connect(f"127.0.0.1:{port}") as line:
        call = line.unary_unary(HEALTH).future(b"\0" * 100_000, timeout=60.0, compression=grpc.Compression.Gzip)
        with pytest.raises(grpc.RpcError, match="Compression algorithm 'gzip' is disabled"):
            call.result()
        assert isinstance(error_of(line.unary_unary(HEALTH).future(b"\0" * 100_000, timeout=60.0)), MessageTooLarge)


def test_client_of_several_services_connects_beside_watches_of_strangers(ptm_servers: Any) -> None:
    """Kills: a room for watches that strangers fill, so that a channel that watches health first never connects."""
    limits = ServiceLimits(strangers=StrangerLimits(calls_of_a_peer=2))
    tenants = Tenants.of_tokens(tokens("one"))
    ports = [ptm_servers.start(Engine(Fake(), time.monotonic), tenants=tenants, limits=limits) for _ in range(2)]
    lines: list[Any] = [connect(f"127.0.0.1:{port}") for port in ports for _ in range(2)]
    watches = [line.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=300.0) for line in lines]
    for watch in watches:
        next(watch)
    with connect(",".join(f"127.0.0.1:{port}" for port in ports), token="one") as known:
        ptm = RemotePtm(known, call_seconds=60.0, patience_seconds=0.0)
        assert [ptm.describe().revision for _ in range(4)] == ["fake-2"] * 4
    assert all(watch.is_active() for watch in watches)
    for line in lines:
        line.close()


class Slow(Fake):
    """Prepares examples while `gate` is set; sets `entered` when it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.entered, self.prepared = threading.Event(), threading.Event(), 0

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[FakeRow]:
        self.entered.set()
        assert self.gate.wait(200.0)
        self.prepared += 1
        return super().prepare(task, examples, prompt_tokens, perturbation)


def test_slow_work_delays_its_own_tenant_only(ptm_servers: Any) -> None:
    """A call that is cancelled before its turn is never begun."""
    backend = Slow()
    port = ptm_servers.start(Engine(backend, time.monotonic), tenants=Tenants.of_tokens(tokens("one", "two")))
    line: Any = connect(f"127.0.0.1:{port}", token="one")
    ptm, stub = remote(port, "one"), PtmServiceStub(line)
    task_id = ptm.register_task(TASK)

    def register(room: int) -> Any:
        request = ptm_messages.register_examples_request(task_id, ExampleSet(EXAMPLES, room))
        return stub.RegisterExamples.future(request, timeout=200.0)

    first = register(0)
    assert backend.entered.wait(60.0)  # so that no other call comes before it
    others = [register(room) for room in (1, 2, 3)]
    assert remote(port, "two").register_task(TASK) == task_id
    check, told = line.unary_unary(HEALTH), ptm_servers.metrics(port).registry.get_sample_value
    check(b"", timeout=60.0)  # an answer on the same connection: the service has read all calls before it
    for call in others:
        call.cancel()
    ended = {"rpc": "RegisterExamples", "status": "cancelled"}
    for _ in range(10_000):  # otherwise the gate might open before the service has read the cancellations
        check(b"", timeout=60.0)
        if told("fedbbpt_ptm_calls_total", ended) == len(others):
            break
    last = register(9)
    backend.gate.set()
    assert last.result().count == first.result().count == len(EXAMPLES) and backend.prepared == 2


def test_bytes_of_open_requests_are_limited(ptm_servers: Any) -> None:
    backend = Gated()
    tenants = Tenants.of_tokens(tokens("one", "two"))
    port = ptm_servers.start(Engine(backend, time.monotonic), tenants=tenants, limits=ServiceLimits(request_bytes=1000))
    handles = {token: register(remote(port, token)) for token in ("one", "two")}
    stubs = {token: PtmServiceStub(connect(f"127.0.0.1:{port}", token=token)) for token in handles}

    def ask(token: str) -> Any:
        return stubs[token].Score.future(
            ptm_messages.score_request(handles[token], TextPrompts(("a" * 800,))), timeout=200.0
        )

    first = ask("one")
    assert backend.entered.wait(60.0)
    assert isinstance(error_of(ask("one")), Overloaded)
    other = ask("two")
    backend.gate.set()
    assert first.result().usage.queries == other.result().usage.queries == len(EXAMPLES.texts)


class Busy(Slow):
    """Computes once examples wait to be prepared; sets `begun` at the first pair, `computed` after `pairs` of them."""

    def __init__(self, pairs: int) -> None:
        super().__init__()
        self.begun, self.computed, self._left = threading.Event(), threading.Event(), pairs

    def job(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[FakeRow], wanted: npt.NDArray[np.bool_]
    ) -> PlannedJob:
        planned = super().job(task, prompts, rows, wanted)

        def run(batch: MicroBatch) -> Scores:
            self.begun.set()
            assert self.entered.wait(200.0)
            self._left -= len(batch.rows)
            if not self._left:
                self.computed.set()
            return planned.run(batch)

        return PlannedJob(planned.batches, run)


def test_caller_that_leaves_before_the_answer_pays_for_the_computed_pairs(ptm_servers: Any) -> None:
    """The caller leaves after the last pair is computed, while the engine is busy for the same tenant."""
    backend = Busy(pairs=6)
    backend.gate.set()
    port = ptm_servers.start(Engine(backend, time.monotonic))
    line = connect(f"127.0.0.1:{port}")
    ptm, stub = remote(port), PtmServiceStub(line)
    task_id, handle = ptm.register_task(TASK), register(ptm)
    backend.gate.clear()
    backend.entered.clear()
    call = stub.Score.future(ptm_messages.score_request(handle, PROMPTS), timeout=200.0)
    assert backend.begun.wait(60.0)
    other = stub.RegisterExamples.future(
        ptm_messages.register_examples_request(task_id, ExampleSet(EXAMPLES, 9)), timeout=200.0
    )
    assert backend.computed.wait(60.0)
    for leave in (lambda: None, call.cancel):
        leave()
        health(line, "")  # answered after the service has seen the cancellation
    backend.gate.set()
    other.result()
    assert ptm.usage().queries == 6


class Watched(Engine):
    """Sets `empty` once all examples are dropped."""

    def __init__(self) -> None:
        super().__init__(Fake(), time.monotonic, Quotas(time_to_live_seconds=0.0))
        self.empty = threading.Event()

    def drop_expired(self, *, tenant: Tenant) -> None:
        super().drop_expired(tenant=tenant)
        if not self.kept_bytes:
            self.empty.set()


def test_inputs_expire_though_their_tenant_never_returns(ptm_servers: Any) -> None:
    engine = Watched()
    register(remote(ptm_servers.start(engine, limits=ServiceLimits(cleanup_seconds=0.1))))
    assert engine.empty.wait(60.0)

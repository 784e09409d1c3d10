"""Several PTM services serve one client: they share the work, and scores stay the same when one of them fails."""

import threading
import time
from typing import Any

import pytest

from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.ptm.v1.ptm_pb2_grpc import PtmServiceStub
from fedbbpt.types import Examples, Scores, TaskSpec, TextPrompts
from fedbbpt.wire.channel import connect
from fedbbpt.wire.tls import ClientTls
from tests.federation import Security
from tests.tenants import local_ptm, tokens

TASK = TaskSpec("{prompt} {text}", ("a number", "a person"))
EXAMPLES = Examples(("who wrote it", "how many people", "where is it"))
PROMPTS = TextPrompts(("which kind", "what"))
QUERIES = len(PROMPTS.texts) * len(EXAMPLES)


class Client:
    """A client of all services, which repeats the same call."""

    def __init__(self, ports: list[int], tls: ClientTls | None = None, token: str = "") -> None:
        self._tls, self._token = tls, token
        self.ptm = RemotePtm(connect(",".join(f"127.0.0.1:{port}" for port in ports), tls, token))
        self._handle = self.ptm.register_examples(self.ptm.register_task(TASK), EXAMPLES, 4).id
        self.asked = 0

    def score(self) -> None:
        assert self.ptm.score(self._handle, PROMPTS).scores.tobytes() == expected().tobytes()
        self.asked += QUERIES

    def counted(self, port: int) -> pb.GetUsageResponse:
        """Returns the usage that one service reports."""
        with connect(f"127.0.0.1:{port}", self._tls, self._token) as channel:
            return PtmServiceStub(channel).GetUsage(pb.GetUsageRequest(), timeout=60.0)

    def score_until_answered_by(self, *ports: int) -> None:
        """Repeats the call until each of these services has answered once."""
        while not all(self.counted(port).usage.queries for port in ports):
            self.score()


def engine() -> Engine:
    return Engine(Fake(), time.monotonic)


def expected() -> Scores:
    alone = local_ptm(Fake())
    return alone.score(alone.register_examples(alone.register_task(TASK), EXAMPLES, 4).id, PROMPTS).scores


@pytest.fixture
def ports(ptm_servers: Any) -> list[int]:
    return [ptm_servers.start(engine()) for _ in range(3)]


def test_services_share_the_work_and_count_each_query_once(ports: list[int]) -> None:
    """In the end every service has the examples, and calls no longer carry them."""
    client = Client(ports)
    while not all(client.counted(port).handles for port in ports):
        client.score()
    for _ in range(6):
        client.score()
    counts = [client.counted(port).usage.queries for port in ports]
    assert sum(counts) == client.asked and min(counts) > 0


def test_stopped_service_loses_no_call(ports: list[int], ptm_servers: Any) -> None:
    client, problems = Client(ports), list[Exception]()
    client.score_until_answered_by(*ports)
    busy = threading.Event()

    def work() -> None:
        try:
            for _ in range(60):
                client.score()
                busy.set()
        except Exception as problem:
            problems.append(problem)

    worker, asked = threading.Thread(target=work), client.asked
    worker.start()
    busy.wait(60.0)
    ptm_servers.stop(ports[0])
    ptm_servers.stop(ports[1])
    worker.join()
    assert problems == [] and client.asked == asked + 60 * QUERIES


def test_restarted_service_gets_the_examples_again(ports: list[int], ptm_servers: Any) -> None:
    client = Client(ports)
    client.score_until_answered_by(*ports)
    ptm_servers.stop(ports[0])
    ptm_servers.start(engine(), port=ports[0])
    client.score_until_answered_by(ports[0])
    assert client.counted(ports[0]).handles == 1


def test_unhealthy_service_gets_no_calls(ports: list[int], ptm_servers: Any) -> None:
    client = Client(ports)
    client.score_until_answered_by(*ports)
    ptm_servers.fall_ill(ports[0])

    def asked_in_turn() -> bool:
        before = client.counted(ports[0]).usage.queries
        for _ in ports:
            client.score()
        return client.counted(ports[0]).usage.queries > before

    while asked_in_turn():
        pass
    assert not any(asked_in_turn() for _ in range(3))


def test_services_with_tls_share_one_name(ptm_servers: Any, security: Security) -> None:
    tenants = Tenants.of_tokens(tokens(security.token))
    ports = [ptm_servers.start(engine(), tls=security.server, tenants=tenants) for _ in range(2)]
    client = Client(ports, security.client, security.token)
    client.score_until_answered_by(*ports)
    assert sum(client.counted(port).usage.queries for port in ports) == client.asked

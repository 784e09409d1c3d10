"""The PTM service on Ray passes the conformance kit, scores like a local model, and survives the loss of a replica."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import grpc
import numpy as np
import pytest

from fedbbpt.cli.terminal.signals import TERMINATED
from fedbbpt.conformance.ptm import cases
from fedbbpt.conformance.ptm.suite import open_service, run
from fedbbpt.errors import DeadlineExceeded, PolicyForbids, PtmUnavailable, Unauthenticated
from fedbbpt.identity.tokens_file import write_tokens
from fedbbpt.ptm.models.fake import WIDTH, Fake
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.ptm.v1.ptm_pb2_grpc import PtmServiceStub
from fedbbpt.types import (
    Examples,
    Injection,
    LatentPrompts,
    Projection,
    ProjectionKind,
    Prompts,
    Scores,
    SoftPrompts,
    TaskSpec,
    TextPrompts,
)
from fedbbpt.wire.channel import connect
from fedbbpt.wire.messages import ptm_messages
from fedbbpt.wire.status import from_rpc_error
from tests.processes import Machine, mentioning
from tests.tenants import local_ptm
from tests.tenants import tokens as named

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")]

TASK = TaskSpec("{prompt} {text}", ("a number", "a person", "a place"))
EXAMPLES = Examples(tuple(f"who wrote book {n}" for n in range(40)))
TOKENS = ("one-tenant", "another-tenant")


@dataclass(frozen=True)
class Service:
    port: int
    folder: Path

    def caller(self, token: str = TOKENS[0], *, host: str = "127.0.0.1", call_seconds: float = 240.0) -> RemotePtm:
        return RemotePtm(connect(f"{host}:{self.port}", token=token), call_seconds=call_seconds)

    def replicas(self) -> set[int]:
        """Returns the ids of the processes that hold this service's model."""
        (starter,) = mentioning(str(self.folder))
        return {pid for pid in mentioning("ray::ServeReplica:fedbbpt-ptm:Replica") if starter in ancestors(pid)}


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        status = Path(f"/proc/{pid}/status").read_text()
        pid = int(status.partition("PPid:")[2].split()[0])
        yield pid


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Machine(tmp_path_factory.mktemp("ray")) as machine:
        tokens = machine.folder / "tokens"
        write_tokens(tokens, named(*TOKENS))
        words = "ptm serve --engine ray --model fake --replicas 2 --audit audit.jsonl --tokens"
        machine.start("ptm", *words.split(), str(tokens))
        yield Service(int(machine.address("ptm").rpartition(":")[2]), machine.folder)
        assert machine.end("ptm") == TERMINATED, machine.log("ptm")


def soft(seed: int, count: int = 3) -> SoftPrompts:
    return SoftPrompts(np.random.default_rng(seed).standard_normal((count, 4, WIDTH), np.float32), Injection.PREFIX)


def expected(prompts: Prompts) -> Scores:
    here = local_ptm(Fake())
    return here.score(here.register_examples(here.register_task(TASK), EXAMPLES, 8).id, prompts).scores


def handle(ptm: RemotePtm) -> str:
    return ptm.register_examples(ptm.register_task(TASK), EXAMPLES, 8).id


def test_service_on_ray_passes_the_conformance_kit(service: Service) -> None:
    with open_service(f"127.0.0.1:{service.port}", token=TOKENS[0], other_token=TOKENS[1]) as kit:
        results = run(kit, cases.read(kit.profiles()), frozenset(), lambda result: None)
    assert [f"{result.case.name}: {result.detail}" for result in results if not result.outcome.good] == []
    assert {"core", "soft", "discrete"} <= {result.case.profile for result in results}


def test_scores_have_the_bits_of_a_local_model(service: Service) -> None:
    z = np.random.default_rng(1).standard_normal((3, 10), np.float32)
    latent = LatentPrompts(z, Projection(ProjectionKind.RADEMACHER, seed=7, tokens=3, scale=1.0, initial_text="so"))
    ptm = service.caller()
    name = handle(ptm)
    for prompts in (soft(0, 50), latent, TextPrompts(("which kind", "what"))):
        assert ptm.score(name, prompts).scores.tobytes() == expected(prompts).tobytes()


def test_killed_replica_loses_no_call(service: Service) -> None:
    victim = min(service.replicas())
    wrong: list[int] = []

    def ask(caller: int) -> None:
        ptm = service.caller()
        name = handle(ptm)
        for call in range(15):
            if caller == 0 and call == 5:
                os.kill(victim, signal.SIGKILL)
            prompts = soft(100 * caller + call)
            if ptm.score(name, prompts).scores.tobytes() != expected(prompts).tobytes():
                wrong.append(call)

    threads = [threading.Thread(target=ask, args=(caller,)) for caller in range(1, 4)]
    for thread in threads:
        thread.start()
    ask(0)
    for thread in threads:
        thread.join()
    assert wrong == [] and victim not in service.replicas()


def test_call_past_its_deadline_pays_for_the_computed_pairs(service: Service) -> None:
    """Kills: work that continues after its caller has gone away."""
    patient = service.caller(TOKENS[1])
    before = patient.usage().queries
    examples = Examples(tuple(f"who wrote book {n}" for n in range(1300)))
    name = patient.register_examples(patient.register_task(TASK), examples, 8).id
    stub = PtmServiceStub(connect(f"127.0.0.1:{service.port}", token=TOKENS[1]))
    with pytest.raises(grpc.RpcError) as raised:
        stub.Score(ptm_messages.score_request(name, soft(0, 100)), timeout=0.05)
    assert isinstance(from_rpc_error(raised.value, PtmUnavailable), DeadlineExceeded)
    prompts = soft(1)
    assert patient.score(handle(patient), prompts).scores.tobytes() == expected(prompts).tobytes()
    assert patient.usage().queries - before < 100 * 1300


def test_unknown_token_is_rejected(service: Service) -> None:
    with pytest.raises(Unauthenticated, match="no known token or certificate"):
        service.caller("a third tenant")


def test_calls_from_another_machine_are_rejected(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray listens on all networks, so the front must reject them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attempt:
        try:
            attempt.connect(("192.0.2.1", 9))  # sends nothing, but selects the network interface
        except OSError:
            pytest.skip("this machine has no network")
        host = attempt.getsockname()[0]
    monkeypatch.setenv("no_proxy", host)
    with pytest.raises(PolicyForbids, match="unencrypted"):
        service.caller("", host=host)

"""Tenants over gRPC: each has its own output, budget and rate, and nothing is charged twice."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme

from fedbbpt.errors import BudgetSpent, PolicyForbids, RateLimited, Unauthenticated
from fedbbpt.host.audit import read_audit
from fedbbpt.identity.certificates import identity_of
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.ptm.scheduling.planner import PlannedJob
from fedbbpt.ptm.service import ServiceLimits
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.ptm.tenants.tenants_file import read_tenants
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.ptm.v1.ptm_pb2_grpc import PtmServiceStub
from fedbbpt.tasks.criterion import cross_entropy
from fedbbpt.types import Budget, Examples, MicroBatch, Output, Prompts, Scores, TaskSpec, TextPrompts
from fedbbpt.wire.channel import connect
from fedbbpt.wire.messages import ptm_messages
from fedbbpt.wire.status import retry_seconds
from fedbbpt.wire.tls import ClientTls, ServerTls
from tests.scenarios.test_ptm_service import Gated, error_of

TASK = TaskSpec("{prompt} {text}", ("a number", "a person"))
EXAMPLES = Examples(tuple(f"{word} {i}" for i in range(5) for word in ("who wrote", "how many")))
LABELS = np.tile([1, 0], 5)
PROMPTS = TextPrompts(("which kind", "what"))


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture
def start(ptm_servers: Any, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts a service for the tenants of a TOML text, and uses their names as tokens."""

    def started(text: str, backend: Fake | None = None, audit_file: Path | None = None, **options: Any) -> int:
        names = [line.split('"')[1] for line in text.splitlines() if line.startswith("name")]
        for name in names:
            text = text.replace(f'name = "{name}"', f'name = "{name}"\ntoken_sha256 = "{sha256(name)}"')
        (tmp_path / "tenants.toml").write_text(text)
        tenants = read_tenants(tmp_path / "tenants.toml")
        engine = Engine(backend or Fake(), time.monotonic, tenants=tenants, audit_file=audit_file)
        port: int = ptm_servers.start(engine, tenants=tenants, **options)
        engines.append(engine)
        return port

    engines: list[Engine] = []
    yield started
    for engine in engines:
        engine.close()


def remote(port: int, token: str, **options: Any) -> RemotePtm:
    return RemotePtm(connect(f"127.0.0.1:{port}", token=token), call_seconds=60.0, send_labels=True, **options)


def register(ptm: RemotePtm, labels: np.ndarray | None = None) -> str:
    return ptm.register_examples(ptm.register_task(TASK), EXAMPLES, 4, labels=labels).id


OUTPUTS = "\n".join(f'[[tenant]]\nname = "{output}"\noutput = "{output}"' for output in Output)


def test_each_tenant_gets_its_own_output(start: Callable[..., int]) -> None:
    port = start(OUTPUTS)
    found = {}
    for output in Output:
        ptm = remote(port, output)
        assert ptm.describe().output is output
        found[output] = ptm.score(register(ptm, LABELS if output is Output.LOSS_ONLY else None), PROMPTS)
    logits = found[Output.LABEL_LOGITS].scores
    logs = found[Output.LABEL_LOGPROBS].scores.astype(np.float64)
    assert np.allclose(np.exp(logs).sum(axis=2), 1, atol=1e-5) and np.allclose(
        np.diff(logs), np.diff(logits), atol=1e-4
    )
    assert np.array_equal(found[Output.LABEL_ARGMAX].choices, logits.argmax(axis=2))
    assert np.allclose(found[Output.LOSS_ONLY].losses, cross_entropy(logits, LABELS), rtol=1e-9)


def test_loss_reveals_no_single_example(start: Callable[..., int]) -> None:
    """Neither does a handle of one example, nor of one example eight times, nor of eight with one label changed."""
    ptm = remote(start('[[tenant]]\nname = "a"\noutput = "loss-only"'), "a")
    task_id = ptm.register_task(TASK)
    for texts in (("who",), ("who",) * 8):
        with pytest.raises(PolicyForbids, match="1 different"):
            ptm.register_examples(task_id, Examples(texts), 4, labels=np.zeros(len(texts), np.int64))
    register(ptm, LABELS)
    other = LABELS.copy()
    other[4] = 1 - other[4]
    with pytest.raises(PolicyForbids, match="another label"):
        ptm.register_examples(task_id, EXAMPLES, 4, labels=other)


def test_budget_is_final_and_outlives_the_service(start: Callable[..., int], tmp_path: Path) -> None:
    text, audit_file = '[[tenant]]\nname = "a"\nmax_queries = 50', tmp_path / "audit.jsonl"
    first = Engine(Fake(), time.monotonic, tenants=[Tenant(name="a", max_queries=50)], audit_file=audit_file)
    in_process = LocalPtm(first, Tenant(name="a"))
    handle = in_process.register_examples(in_process.register_task(TASK), EXAMPLES, 4).id
    assert in_process.score(handle, PROMPTS).budget == Budget(queries=30)
    first.close()
    ptm = remote(start(text, audit_file=audit_file), "a", pause=_no_pause)
    handle = register(ptm)
    assert ptm.usage().queries == 20
    assert ptm.score(handle, TextPrompts(("a", "b"))).budget.queries == 10
    with pytest.raises(BudgetSpent, match="20 queries where 10 of 50 are left"):
        ptm.score(handle, TextPrompts(("c", "d")))
    assert ptm.score(handle, TextPrompts(("c",))).budget.queries == 0
    records = list(read_audit(audit_file))
    assert sum(record["queries"] for record in records if record["kind"] == "score") == 50
    assert [record["status"] for record in records if record["kind"] == "refusal"] == ["BudgetSpent"]
    told = audit_file.read_text()
    assert "who wrote" not in told and "which kind" not in told and "a person" not in told


def _no_pause(seconds: float) -> None:
    raise AssertionError("a spent budget is not retried")


def test_call_beyond_the_rate_is_told_when_to_retry(start: Callable[..., int]) -> None:
    port = start('[[tenant]]\nname = "a"\nqueries_per_second = 0.001\nburst_queries = 15')
    ptm = remote(port, "a", patience_seconds=0.0)
    handle = register(ptm)
    ptm.score(handle, PROMPTS)
    with pytest.raises(RateLimited, match=r"more than 0\.001"):
        ptm.score(handle, TextPrompts(("a",)))
    stub = PtmServiceStub(connect(f"127.0.0.1:{port}", token="a"))
    with pytest.raises(grpc.RpcError) as raised:
        stub.Score(ptm_messages.score_request(handle, TextPrompts(("a",))), timeout=60.0)
    assert retry_seconds(raised.value) > 0  # RetryInfo: the call may be retried


def test_calls_with_the_same_key_are_computed_and_charged_once(start: Callable[..., int]) -> None:
    text = '[[tenant]]\nname = "a"\ncurrency = "EUR"\nmicros_per_query = 10\nmicros_per_cached_query = 1'
    port = start(text)
    ptm = remote(port, "a")
    stub = PtmServiceStub(connect(f"127.0.0.1:{port}", token="a"))
    request = ptm_messages.score_request(register(ptm), PROMPTS, "a key")
    answers = [stub.Score(request, timeout=60.0) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2] and answers[0].usage.cost_micros == 200
    assert (ptm.usage().queries, ptm.usage().cost_micros) == (20, 200)
    other = ptm_messages.score_request(request.examples_id, TextPrompts(("another",)), "a key")
    assert "another request" in str(error_of(stub.Score, other))
    request.idempotency_key = "another key"
    assert stub.Score(request, timeout=60.0).usage.cost_micros == 20  # cached, so cheaper, but not free


def test_repeated_call_is_charged_once_in_total(start: Callable[..., int], tmp_path: Path) -> None:
    """Kills: charging again for pairs that were computed before the caller lost its connection."""
    backend = Gated()
    port = start('[[tenant]]\nname = "a"\nmax_queries = 20\ncurrency = "EUR"\nmicros_per_query = 10', backend)
    ptm = remote(port, "a")
    stub = PtmServiceStub(connect(f"127.0.0.1:{port}", token="a"))
    request = ptm_messages.score_request(register(ptm), PROMPTS, "a key")
    for attempt in range(3):
        backend.gate.clear()
        backend.entered.clear()
        first = stub.Score.future(request, timeout=60.0)
        assert backend.entered.wait(60.0)
        first.cancel()
        stub.GetUsage(pb.GetUsageRequest())  # on the same connection, so it arrives after the cancellation
        backend.gate.set()
        while ptm.usage().queries <= attempt:
            """Waits until the pair that was being computed is finished."""
    last = stub.Score(request, timeout=60.0)
    assert (ptm.usage().queries, ptm.usage().cost_micros, backend.ran) == (20, 200, 20)
    assert stub.Score(request, timeout=60.0) == last


def test_call_repeated_while_it_runs_joins_the_first(start: Callable[..., int]) -> None:
    backend = Gated()
    port = start('[[tenant]]\nname = "a"', backend)
    ptm = remote(port, "a")
    stub = PtmServiceStub(connect(f"127.0.0.1:{port}", token="a"))
    request = ptm_messages.score_request(register(ptm), PROMPTS, "a key")
    first = stub.Score.future(request, timeout=60.0)
    assert backend.entered.wait(60.0)
    again = stub.Score.future(request, timeout=60.0)
    backend.gate.set()
    assert first.result() == again.result() and backend.ran == 20


class InOrder(Gated):
    """Records the number of prompts of the call to which each computed pair belongs."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[int] = []

    def job(self, task: TaskSpec, prompts: Prompts, rows: Any, wanted: Any) -> PlannedJob:
        planned, count = super().job(task, prompts, rows, wanted), len(wanted)

        def run(batch: MicroBatch) -> Scores:
            scores = planned.run(batch)
            self.order.append(count)
            return scores

        return PlannedJob(planned.batches, run)


def test_short_call_overtakes_a_long_one_of_another_tenant(start: Callable[..., int]) -> None:
    backend = InOrder()
    port = start('[[tenant]]\nname = "long"\n[[tenant]]\nname = "short"', backend, limits=ServiceLimits(quantum=8))

    def ask(name: str, prompts: TextPrompts) -> Any:
        request = ptm_messages.score_request(register(remote(port, name)), prompts)
        stub = PtmServiceStub(connect(f"127.0.0.1:{port}", token=name))
        call = stub.Score.future(request, timeout=200.0)
        stub.GetUsage(pb.GetUsageRequest(), timeout=60.0)  # answered after the call, which is in the queue by then
        return call

    calls = [ask("long", TextPrompts(tuple(f"prompt {i}" for i in range(100))))]
    assert backend.entered.wait(60.0)
    calls.append(ask("short", TextPrompts(("one",))))
    backend.gate.set()
    for call in calls:
        call.result()
    assert backend.order[-1] == 100 and backend.order.count(1) == len(EXAMPLES), "the short call ends first"


def test_certificate_identifies_its_tenant(ptm_servers: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("127.0.0.1", "north.example.org", "stranger.example.org"):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    text = '[[tenant]]\nname = "north"\ncertificate = "north.example.org"\noutput = "label-argmax"'
    (tmp_path / "tenants.toml").write_text(text)
    tenants = read_tenants(tmp_path / "tenants.toml")
    tls = ServerTls(tmp_path / "127.0.0.1.pem", tmp_path / "127.0.0.1.key", tmp_path / "ca.pem")
    port = ptm_servers.start(Engine(Fake(), time.monotonic, tenants=tenants), tenants=tenants, tls=tls)

    def certified(name: str) -> RemotePtm:
        mine = ClientTls(tmp_path / "ca.pem", tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        return RemotePtm(connect(f"127.0.0.1:{port}", mine), call_seconds=60.0)

    assert certified("north.example.org").describe().output is Output.LABEL_ARGMAX
    with pytest.raises(Unauthenticated):
        certified("stranger.example.org")
    pem = (tmp_path / "north.example.org.pem").read_bytes()
    fewer = tenants.without(frozenset({identity_of(pem).serial}))
    port = ptm_servers.start(Engine(Fake(), time.monotonic, tenants=fewer), tenants=fewer, tls=tls)
    with pytest.raises(Unauthenticated, match="the certificate was revoked"):
        certified("north.example.org")


def test_label_tokens_are_counted_over_all_tasks_and_restarts(start: Callable[..., int], tmp_path: Path) -> None:
    tenant = Tenant(name="a", label_tokens=4)
    for attempt in range(2):
        engine = Engine(Fake(), time.monotonic, tenants=[tenant], audit_file=tmp_path / "audit.jsonl")
        for classes in (("a", "b"), ("b", "c"), ("d", "a")):
            engine.register_task(TaskSpec("{prompt} {text}", classes), tenant=tenant)
        assert engine.budget(tenant=tenant).label_tokens == 0
        with pytest.raises(BudgetSpent, match="1 new label tokens where 0 of 4"):
            engine.register_task(TaskSpec("{prompt} {text}", ("a", f"e{attempt}")), tenant=tenant)
        engine.close()


def test_usage_is_reported_by_task(start: Callable[..., int]) -> None:
    port = start('[[tenant]]\nname = "a"\nmax_tokens = 100000')
    ptm = remote(port, "a")
    stub = PtmServiceStub(connect(f"127.0.0.1:{port}", token="a"))
    ptm.score(register(ptm), PROMPTS)
    other = ptm.register_task(TaskSpec("{text}", TASK.classes))
    ptm.score(ptm.register_examples(other, EXAMPLES, 4).id, TextPrompts(("a",)))
    told = stub.GetUsage(pb.GetUsageRequest(), timeout=60.0)
    by_task = {each.task_id: each.usage.queries for each in told.tasks}
    assert by_task == {ptm.register_task(TASK): 20, other: 10} and told.usage.queries == 30 and told.handles == 2
    assert told.budget.tokens == 100_000 - told.usage.tokens and not told.budget.HasField("queries")

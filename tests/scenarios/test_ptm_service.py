"""The PTM service with many, impatient or unknown callers, and clients of a service that is down or has changed."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from fedbbpt.errors import (
    DeadlineExceeded,
    InsecureAddress,
    InvalidExamples,
    InvalidRequest,
    InvalidTask,
    InvalidTensor,
    Overloaded,
    PortTaken,
    PtmUnavailable,
    RevisionChanged,
    Unauthenticated,
    UnknownExamples,
    UnsupportedPrompt,
)
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake, FakeRow
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.ptm.scheduling.planner import PlannedJob
from fedbbpt.ptm.service import ServiceLimits
from fedbbpt.ptm.tenants.registry import RegisteredTenant, Tenants
from fedbbpt.ptm.tenants.tenant import ANYONE, Tenant
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.ptm.v1.ptm_pb2_grpc import PtmServiceStub
from fedbbpt.types import Examples, MicroBatch, ModelCard, Prompts, Scores, TaskSpec, TextPrompts
from fedbbpt.v1 import prompt_pb2, tensor_pb2
from fedbbpt.wire.channel import connect
from fedbbpt.wire.messages import ptm_messages
from fedbbpt.wire.status import from_rpc_error
from tests.tenants import tokens

TASK = TaskSpec("{prompt} {text}", ("a number", "a person"))
EXAMPLES = Examples(("who wrote it", "how many people", "where is it"))
PROMPTS = TextPrompts(("which kind", "what"))


class Gated(Fake):
    """Computes pair by pair while `gate` is set; sets `entered` when a micro-batch begins."""

    def __init__(self) -> None:
        super().__init__(token_budget=1)
        self.gate, self.entered, self.ran = threading.Event(), threading.Event(), 0

    def job(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[FakeRow], wanted: npt.NDArray[np.bool_]
    ) -> PlannedJob:
        planned = super().job(task, prompts, rows, wanted)

        def run(batch: MicroBatch) -> Scores:
            self.entered.set()
            assert self.gate.wait(200.0)
            self.ran += 1
            return planned.run(batch)

        return PlannedJob(planned.batches, run)


class Other(Fake):
    def describe(self) -> ModelCard:
        return replace(super().describe(), revision="fake-3")


def remote(port: int, **options: Any) -> RemotePtm:
    return RemotePtm(connect(f"127.0.0.1:{port}", token=options.pop("token", "")), **options)


def register(ptm: RemotePtm) -> str:
    return ptm.register_examples(ptm.register_task(TASK), EXAMPLES, 4).id


def health(channel: grpc.Channel, name: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    status: int = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10.0).status
    return status


def error_of(call: Callable[..., object], *arguments: object) -> Exception:
    with pytest.raises(grpc.RpcError) as raised:
        call(*arguments, timeout=60.0)
    return from_rpc_error(raised.value, PtmUnavailable)


def test_call_past_its_deadline_stops_and_pays_for_the_computed_pairs(ptm_servers: Any) -> None:
    backend = Gated()
    port = ptm_servers.start(Engine(backend, time.monotonic))
    hasty, patient = remote(port, call_seconds=3.0), remote(port)
    handle = register(hasty)
    with pytest.raises(DeadlineExceeded):
        hasty.score(handle, PROMPTS)
    assert backend.entered.is_set()
    hasty.usage()  # on the same connection, so it arrives after the cancellation
    backend.gate.set()
    while not patient.usage().queries:
        """Waits until the pair that was being computed is finished."""
    scored = patient.score(register(patient), PROMPTS)
    assert (scored.usage.queries, scored.usage.cached_queries) == (
        6,
        1,
    )  # the pair that the hasty caller had computed is cached
    assert patient.usage().queries == 7 and backend.ran == 6


def test_work_beyond_the_limit_is_rejected_at_once(ptm_servers: Any) -> None:
    backend = Gated()
    port = ptm_servers.start(Engine(backend, time.monotonic), limits=ServiceLimits(queued_tokens=10))
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        backend.gate.set()
        first.join()

    ptm = remote(port, pause=pause)
    handle = register(ptm)
    first = threading.Thread(
        target=ptm.score, args=(handle, TextPrompts(tuple("abcdefgh")))
    )  # above the limit, but alone
    first.start()
    assert backend.entered.wait(10.0)
    stub = PtmServiceStub(connect(f"127.0.0.1:{port}"))
    request = ptm_messages.score_request(handle, PROMPTS)
    assert isinstance(error_of(stub.Score, request), Overloaded)
    assert health(connect(f"127.0.0.1:{port}"), "") == health_pb2.HealthCheckResponse.SERVING
    assert ptm.score(handle, PROMPTS).usage.queries == 6 and len(pauses) >= 1  # retried, and succeeded


def test_restarted_service_gets_the_examples_again(ptm_servers: Any) -> None:
    port = ptm_servers.start(Engine(Fake(), time.monotonic))
    ptm = remote(port)
    handle = register(ptm)
    before = ptm.score(handle, PROMPTS).scores
    ptm_servers.stop(port)
    ptm_servers.start(Engine(Fake(), time.monotonic), port=port)
    for _ in range(2):
        assert np.array_equal(ptm.score(handle, PROMPTS).scores, before)
    assert ptm.usage().queries == 12
    ptm.release(handle)
    assert PtmServiceStub(connect(f"127.0.0.1:{port}")).GetUsage(pb.GetUsageRequest(), timeout=10.0).handles == 0


def test_service_restarted_with_another_model_is_an_error(ptm_servers: Any) -> None:
    port = ptm_servers.start(Engine(Fake(), time.monotonic))
    ptm = remote(port)
    handle = register(ptm)
    ptm_servers.stop(port)
    ptm_servers.start(Engine(Other(), time.monotonic), port=port)
    for call in (lambda: ptm.score(handle, PROMPTS), ptm.describe):
        with pytest.raises(RevisionChanged, match="fake-3"):
            call()
    with pytest.raises(RevisionChanged, match="fake-3"):
        remote(port, revision="fake-2")
    assert remote(port, revision="fake-3").describe().revision == "fake-3"


def test_service_that_stays_down_is_unavailable_in_the_end() -> None:
    now, pauses = [0.0], list[float]()

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += 10.0

    with pytest.raises(PtmUnavailable):
        remote(1, patience_seconds=30.0, clock=lambda: now[0], pause=pause)
    assert 3 <= len(pauses) <= 5 and max(pauses) <= 5.0


def test_client_waits_for_a_service_that_restarts(ptm_servers: Any) -> None:
    port = ptm_servers.start(Engine(Fake(), time.monotonic))
    ptm_servers.stop(port)

    def pause(seconds: float) -> None:
        time.sleep(seconds)
        if not started:
            started.append(ptm_servers.start(Engine(Fake(), time.monotonic), port=port))

    started: list[int] = []
    assert remote(port, pause=pause).describe().revision == "fake-2" and started == [port]


def test_tokens_are_required_and_separate_the_callers(ptm_servers: Any) -> None:
    port = ptm_servers.start(Engine(Fake(), time.monotonic), tenants=Tenants.of_tokens(tokens("one", "two")))
    for token in ("", "three"):
        with pytest.raises(Unauthenticated):
            remote(port, token=token)
    one, two = remote(port, token="one"), remote(port, token="two")
    handle = register(one)
    one.score(handle, PROMPTS)
    assert one.usage().queries == 6 and two.usage().queries == 0
    stub = PtmServiceStub(connect(f"127.0.0.1:{port}", token="two"))
    request = ptm_messages.score_request(handle, PROMPTS)
    assert isinstance(error_of(stub.Score, request), UnknownExamples)


def test_call_with_an_invalid_or_a_second_token_is_rejected(ptm_servers: Any) -> None:
    port = ptm_servers.start(Engine(Fake(), time.monotonic), tenants=Tenants.of_tokens(tokens("one")))
    stub = PtmServiceStub(connect(f"127.0.0.1:{port}"))
    for shown in (["one"], ["Bearer mine", "Bearer one"]):
        describe = partial(stub.Describe, metadata=tuple(("authorization", value) for value in shown))
        assert isinstance(error_of(describe, pb.DescribeRequest()), Unauthenticated)


class CountingTenants(Tenants):
    """Anyone may call; counts how often callers are identified."""

    identified = 0

    def identify(self, shown: str | None, certificate_names: Sequence[str]) -> Tenant:
        self.identified += 1
        return super().identify(shown, certificate_names)


def test_tenant_of_a_call_is_identified_once(ptm_servers: Any) -> None:
    """Kills: admission and service that each look at the caller's token and certificate."""
    tenants = CountingTenants([RegisteredTenant(ANYONE)])
    ptm = remote(ptm_servers.start(Engine(Fake(), time.monotonic), tenants=tenants))  # Describe
    handle = register(ptm)  # RegisterTask, RegisterExamples
    ptm.score(handle, PROMPTS)
    ptm.usage()
    ptm.release(handle)
    assert tenants.identified == 6


def test_health_needs_no_token(ptm_servers: Any) -> None:
    channel = connect(
        f"127.0.0.1:{ptm_servers.start(Engine(Fake(), time.monotonic), tenants=Tenants.of_tokens(tokens('one')))}"
    )
    for name in ("", "fedbbpt.ptm.v1.PtmService"):
        assert health(channel, name) == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("name", ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"])
def test_reflection_is_served(ptm_servers: Any, name: str) -> None:
    channel = connect(f"127.0.0.1:{ptm_servers.start(Engine(Fake(), time.monotonic))}")
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    ask: Any = channel.stream_stream(
        f"/{name}/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    (listed,) = ask(iter([request]), timeout=10.0)
    assert {name, "fedbbpt.ptm.v1.PtmService"} <= {found.name for found in listed.list_services_response.service}


def test_incomplete_messages_are_rejected(ptm_servers: Any) -> None:
    port = ptm_servers.start(Engine(Fake(), time.monotonic))
    ptm, stub = remote(port), PtmServiceStub(connect(f"127.0.0.1:{port}"))
    handle, task_id = register(ptm), ptm.register_task(TASK)
    example, paired = pb.Example(text="who"), pb.Example(text="who", text_pair="it")
    labelled = pb.Example(text="who", label=1)
    for examples in ([], [example, paired], [example] * 10_001, [example, labelled], [labelled], [pb.Example()]):
        register_them = pb.RegisterExamplesRequest(task_id=task_id, examples=pb.ExampleSet(examples=examples))
        assert isinstance(error_of(stub.RegisterExamples, register_them), InvalidExamples)

    z = tensor_pb2.Tensor(dtype=tensor_pb2.D_TYPE_FLOAT32, shape=[1, 2], data=b"\0" * 8)
    normal, prefix = prompt_pb2.PROJECTION_KIND_NORMAL, prompt_pb2.INJECTION_PREFIX
    good = prompt_pb2.Projection(kind=normal, tokens=2, injection=prefix)
    short = tensor_pb2.Tensor(dtype=tensor_pb2.D_TYPE_FLOAT32, shape=[1, 3], data=b"\0" * 8)
    no_kind = prompt_pb2.LatentPrompts(z=z, projection=prompt_pb2.Projection(tokens=2, injection=prefix))
    no_injection = prompt_pb2.LatentPrompts(z=z, projection=prompt_pb2.Projection(kind=normal, tokens=2))
    requests: list[tuple[pb.ScoreRequest, type[Exception]]] = [
        (pb.ScoreRequest(examples_id=handle), InvalidRequest),
        (pb.ScoreRequest(text=prompt_pb2.TextPrompts(texts=["a"])), InvalidRequest),
        (pb.ScoreRequest(inline=pb.InlineExamples(), text=prompt_pb2.TextPrompts(texts=["a"])), InvalidTask),
        (pb.ScoreRequest(examples_id=handle, latent=prompt_pb2.LatentPrompts(z=short, projection=good)), InvalidTensor),
        (pb.ScoreRequest(examples_id=handle, latent=prompt_pb2.LatentPrompts(projection=good)), InvalidTensor),
        (
            pb.ScoreRequest(examples_id=handle, latent=no_kind),
            UnsupportedPrompt,
        ),
        (
            pb.ScoreRequest(examples_id=handle, latent=no_injection),
            UnsupportedPrompt,
        ),
        (pb.ScoreRequest(examples_id=handle, soft=prompt_pb2.SoftPrompts(embeddings=z)), UnsupportedPrompt),
    ]
    for request, error in requests:
        assert isinstance(error_of(stub.Score, request), error)
    fine = pb.ScoreRequest(examples_id=handle, latent=prompt_pb2.LatentPrompts(z=z, projection=good))
    assert stub.Score(fine, timeout=60.0).usage.queries == 3


def test_taken_ports_and_insecure_addresses_are_rejected(ptm_servers: Any) -> None:
    port = ptm_servers.start(Engine(Fake(), time.monotonic))
    with pytest.raises(PortTaken):
        ptm_servers.start(Engine(Fake(), time.monotonic), port=port)
    with pytest.raises(InsecureAddress):
        ptm_servers.start(Engine(Fake(), time.monotonic), host="0.0.0.0")

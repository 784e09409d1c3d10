"""The service's rpcs, called without gRPC."""

import asyncio

import pytest

from fedbbpt.errors import UnknownExamples
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.server import serialise
from fedbbpt.ptm.service import PtmService, ServiceLimits
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import Examples, ExampleSet, TaskSpec, TextPrompts
from fedbbpt.wire.messages import ptm_messages

TASK = TaskSpec("{prompt} {text}", ("a number", "a person"))
EXAMPLES = ExampleSet(Examples(("who was it", "how many films")), 4)
ANNA, BELA = Tenant(name="anna"), Tenant(name="bela")


def request(key: str = "") -> pb.ScoreRequest:
    return ptm_messages.score_request((TASK, EXAMPLES), TextPrompts(("which kind", "what")), key)


@pytest.fixture
def service() -> PtmService:
    return PtmService(Engine(Fake(), lambda: 0.0), Tenants.anyone(), ServiceLimits())


def test_keyed_reply_is_serialised_once_and_sent_unchanged(service: PtmService) -> None:
    """Kills: a reply that is parsed, or serialised again, when a call is repeated."""

    async def play() -> tuple[bytes, bytes]:
        return await service.Score(request("key"), ANNA), await service.Score(request("key"), ANNA)

    first, second = asyncio.run(play())
    service.close()
    assert second is first and serialise(first) is first
    assert pb.ScoreResponse.FromString(first).usage.queries == 4


def test_replies_of_one_tenant_are_unknown_to_another(service: PtmService) -> None:
    async def play() -> tuple[bytes, bytes, pb.GetUsageResponse]:
        first, second = await service.Score(request("key"), ANNA), await service.Score(request("key"), BELA)
        handle = pb.ScoreResponse.FromString(first).examples_id
        await service.Release(pb.ReleaseRequest(examples_id=handle), BELA)
        with pytest.raises(UnknownExamples):
            await service.Score(ptm_messages.score_request(handle, TextPrompts(("a",))), BELA)
        return first, second, await service.GetUsage(pb.GetUsageRequest(), BELA)

    first, second, usage = asyncio.run(play())
    service.close()
    assert second is not first
    assert usage.usage.queries == 4 and usage.usage.cached_queries == 0

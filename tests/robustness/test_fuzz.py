"""Whatever bytes a caller sends, a service answers with a right code. `fuzz` does the same for as long as one likes."""

import asyncio
import random
from collections import Counter
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.robustness.fuzz import Coordinator, Finding, Ptm, findings
from tests.slow import slow_except


async def first_finding(target: Coordinator | Ptm, seed: int, messages: int) -> Finding | None:
    """Returns the first message of so many that the service answers with a wrong code."""
    await target.start()
    try:
        codes = Counter[str]()
        async with asyncio.timeout(300.0):
            async for found in findings(target, random.Random(seed), codes, messages):
                return found
        assert codes.total() == messages and len(codes) > 5
        return None
    finally:
        await target.stop()


@pytest.mark.parametrize("service", [Coordinator, Ptm])
@pytest.mark.parametrize(("seed", "messages"), slow_except([(1, 150), (2, 5000)], (1, 150)))
def test_damaged_messages_get_a_right_code(service: type[Coordinator | Ptm], seed: int, messages: int) -> None:
    found = asyncio.run(first_finding(service(), seed, messages))
    assert found is None, str(found)


@pytest.mark.parametrize("service", [Coordinator, Ptm])
def test_a_path_that_is_no_text_ends_no_server(service: type[Coordinator | Ptm]) -> None:
    """Kills: grpcio 1.84 and 1.85, whose asyncio server ends at a call to a path that is not UTF-8."""

    async def play() -> None:
        target = service()
        await target.start()
        try:
            direct = [("grpc.enable_http_proxy", 0)]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}", options=direct) as channel:
                call: Any = channel.unary_unary
                with pytest.raises(grpc.aio.AioRpcError):
                    await call(b"/fedbbpt.v1.RunService/\xf3")(b"", timeout=30.0)
                health: Any = health_pb2_grpc.HealthStub(channel)
                assert (await health.Check(health_pb2.HealthCheckRequest())).status
        finally:
            await target.stop()

    asyncio.run(play())

"""Whatever bytes a caller sends, a service answers with a right code. `fuzz` does the same for as long as one likes."""

import asyncio
import random
from collections import Counter

import pytest

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

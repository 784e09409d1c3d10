"""Fixtures of the scenarios."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbbpt.federation.splits import Splits
from tests.hub import Hub, tokens


@pytest.fixture(params=[tokens()], ids=["tokens"])
def hub(
    request: pytest.FixtureRequest, tmp_path: Path, splits: Splits, server_loop: asyncio.AbstractEventLoop
) -> Iterator[Hub]:
    hub = Hub(tmp_path / "runs", splits, server_loop, request.param)
    yield hub
    hub.close()

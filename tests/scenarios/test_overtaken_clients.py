"""Rounds that ask more clients than they need, over gRPC: a client that others overtake goes on with the open round."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import Job
from fedbbpt.types import Receipt
from tests.federation import AdvancingLoop, OverGrpc, play
from tests.tiny_run import job


@pytest.fixture(params=["ranks", "newton"])
def federation(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop, request: pytest.FixtureRequest
) -> Iterator[OverGrpc]:
    sections = job(data, clients=3).model_dump()
    sections["method"] |= {"step": request.param}
    sections["cohort"] |= {"size": 2, "over_sample": 1.5, "quorum": 1.0}
    federation = OverGrpc(prepare(Job.model_validate(sections)), tmp_path / "run.db", server_loop)
    yield federation
    federation.close()


def test_a_client_that_was_overtaken_skips_the_rounds_that_are_over(federation: OverGrpc) -> None:
    """Kills: a slow client that works through every task that waits for it, and never catches up with the others."""
    *quick, slow = (federation.client(index) for index in range(3))
    first = slow.task()
    play(quick, rounds=3)
    assert slow.submit(first) is Receipt.TOO_LATE
    following = slow.task()
    assert following.id.round == 3
    assert slow.submit(following) is Receipt.COUNTED

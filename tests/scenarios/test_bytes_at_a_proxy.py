"""Bytes of a client and round, counted at a proxy, with TLS, a token and all framing, at n = 500.

Clients that answer one after the other take 60 to 100 bytes more than those that answer at the same time, because more
of gRPC's flow control travels in records of its own. Now and then a round takes more: the median counts.
"""

from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import Job
from tests.counting_proxy import CountingProxy
from tests.federation import AdvancingLoop, OverGrpc, Security, play
from tests.tiny_run import CLIENTS, job

ROUNDS = 12


class Roomy(OverGrpc):
    """A federation whose limit of bytes allows 500 dimensions."""

    max_update_bytes = 2**20


@pytest.mark.parametrize(
    ("method", "uplink", "most_up", "most_down"),
    [
        ({"name": "fed-cma", "step": "ranks"}, "float32", 400, 600),
        ({"name": "fed-cma", "step": "newton"}, "float16", 1_000, 600),
        ({"name": "fed-bpt", "local_covariance": "identity", "perturb_rate": 0.0}, "int8", 850, 1_300),
        (
            {"name": "fed-bpt", "local_covariance": "identity", "perturb_rate": 0.0, "uplink": "ranks"},
            "float32",
            400,
            1_300,
        ),
        ({"name": "fed-bbpt", "uplink": "scalars"}, "float32", 1_000, 9_500),
    ],
)
def test_a_round_takes_few_bytes(
    data: Path,
    tmp_path: Path,
    server_loop: AdvancingLoop,
    security: Security,
    method: dict[str, Any],
    uplink: str,
    most_up: int,
    most_down: int,
) -> None:
    sections = job(data, rounds=ROUNDS).model_dump()
    sections["task"]["prompt"] |= {"dim": 500}
    splits = prepare(Job.model_validate(sections | {"method": method, "codec": {"uplink": uplink}}))
    federation = Roomy(splits, tmp_path / "run.db", server_loop, security)
    with CountingProxy(federation.port) as proxy:
        links = [RemoteCoordinator(federation.channel(proxy.port)) for _ in range(CLIENTS)]
        clients = [federation.client(index, link=link) for index, link in enumerate(links)]
        play(clients, rounds=2)
        counts = [proxy.count()]
        for _ in range(ROUNDS - 3):
            play(clients, rounds=1)
            counts.append(proxy.count())
    federation.close()
    passed = [after - before for before, after in pairwise(counts)]
    assert median(count.up for count in passed) / CLIENTS < most_up
    assert median(count.down for count in passed) / CLIENTS < most_down

"""Bytes of a client and round, counted at a proxy, with TLS, a token and all framing, at n = 500.

Clients that answer one after the other take 60 to 100 bytes more than those that answer at the same time, because more
of gRPC's flow control travels in records of its own. A round is counted from the moment at which all clients have its
task to the moment at which all have the next one, so that no task is on its way while bytes are read.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import Job
from fedbbpt.types import Receipt
from tests.counting_proxy import CountingProxy
from tests.federation import AdvancingLoop, OverGrpc, Security, play
from tests.recording_link import RecordingLink
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
        links = [RecordingLink(federation.channel(proxy.port, client=index)) for index in range(CLIENTS)]
        clients = [federation.client(index, link=link) for index, link in enumerate(links)]
        play(clients, rounds=2)
        tasks = [client.task() for client in clients]
        before = proxy.count()
        for _ in range(ROUNDS - 3):
            for client, task in zip(clients, tasks, strict=True):
                assert client.submit(task) is Receipt.COUNTED
            tasks = [client.task() for client in clients]
        passed = proxy.count() - before
    federation.close()
    assert {link.kinds for link in links} == {"s" + "n" * (ROUNDS - 1)}
    assert passed.up / CLIENTS / (ROUNDS - 3) < most_up
    assert passed.down / CLIENTS / (ROUNDS - 3) < most_down


@pytest.mark.parametrize(("step", "state"), [("ranks", 16_016), ("newton", 6_012)])
def test_clients_that_one_round_in_ten_asks_get_the_state_once(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop, security: Security, step: str, state: int
) -> None:
    """Kills: the whole state for a client that missed a round, which nearly all clients of small cohorts did."""
    number, rounds, joining = 10, 60, 6_000
    sections = job(data, rounds=rounds).model_dump()
    sections["task"]["prompt"] |= {"dim": 500}
    sections["method"] |= {"step": step}
    sections["cohort"] |= {"clients": number, "size": 1}
    federation = Roomy(prepare(Job.model_validate(sections)), tmp_path / "run.db", server_loop, security)
    with CountingProxy(federation.port) as proxy:
        links = [RecordingLink(federation.channel(proxy.port, client=index)) for index in range(number)]
        clients = [federation.client(index, link=link) for index, link in enumerate(links)]
        with ThreadPoolExecutor(number) as threads:
            list(threads.map(lambda client: client.agent.run(client.link, lambda: None), clients))
        passed = proxy.count()
    federation.close()
    assert all(link.kinds[0] == "s" for link in links if link.kinds)
    returning = "".join(link.kinds[1:] for link in links)
    assert "s" not in returning
    assert "*" in returning
    assert passed.down < number * (state + joining) + rounds * 700

"""Relays: a run through them equals the run without, and what can go wrong at a site changes no result in silence."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.federation import assemble
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.job.config import Job
from fedbbpt.types import Report
from tests.federation import AdvancingLoop, Client, OverGrpc, play
from tests.sites import SiteOverGrpc, above
from tests.tiny_run import ROUNDS, fake_ptm, job

SITES = {"north": (0, 1), "south": (2, 3)}
"""The clients of each site by their indices."""


def splits_of(data: Path, method: str = "fed-cma", codec: str = "float32", **options: object) -> Splits:
    """Returns the splits of four clients."""
    sections = job(data, method=method, codec=codec, clients=4).model_dump()
    sections["method"] |= options
    return prepare(Job.model_validate(sections))


class Sites:
    """A coordinator, and relays that have joined it with their clients."""

    def __init__(self, splits: Splits, folder: Path, loop: AdvancingLoop) -> None:
        self.splits = splits
        self.top = OverGrpc(above(splits, len(SITES)), folder / "run.db", loop)
        self.relays = [SiteOverGrpc(loop, self.top.port, name, len(own)) for name, own in SITES.items()]
        self.clients = [
            client
            for relay, own in zip(self.relays, SITES.values(), strict=True)
            for client in relay.join_all(splits, own)
        ]

    def close(self) -> None:
        for relay in self.relays:
            relay.close()
        self.top.close()


@pytest.fixture
def sites(data: Path, tmp_path: Path, server_loop: AdvancingLoop) -> Iterator[Sites]:
    sites = Sites(splits_of(data), tmp_path, server_loop)
    yield sites
    sites.close()


def reports(federation: OverGrpc) -> list[Report]:
    return [report for _, news in federation.watch() for report in news]


def flat(splits: Splits, folder: Path, loop: AdvancingLoop) -> tuple[npt.NDArray[np.float32], list[Report]]:
    """Returns the prompt and the reports of the run without relays, whose clients draw as those of the sites do."""
    federation = OverGrpc(splits, folder / "flat.db", loop)
    try:
        clients = []
        for site, index in ((site, index) for site, own in SITES.items() for index in own):
            hello = assemble.hello(f"{site}/{assemble.client_name(index)}", "key", len(splits.train[index]))
            clients.append(Client(federation.link(), hello, splits, index, fake_ptm()))
        play(clients, rounds=ROUNDS + 1)
        return federation.result().z, reports(federation)
    finally:
        federation.close()


@pytest.mark.parametrize(
    ("method", "options", "codec", "bound"),
    [
        ("fed-cma", {"step": "ranks"}, "float32", 0.0),
        ("fed-cma", {"step": "newton", "population": 4}, "float32", 1e-4),
        ("fed-cma", {"step": "newton", "population": 4}, "float16", 1e-2),
        ("fed-readout", {}, "float32", 1e-6),
        ("fedavg-bbt", {}, "float32", 1e-6),
        ("fed-bbpt", {}, "float32", 1e-6),
    ],
)
def test_two_sites_of_two_clients_end_with_the_prompt_of_four_clients(
    data: Path,
    tmp_path: Path,
    server_loop: AdvancingLoop,
    method: str,
    options: dict[str, object],
    codec: str,
    bound: float,
) -> None:
    """Kills: means in place of sums; sites that weigh alike; draws that depend on the relay; measurements that the
    relay drops. The codec rounds each site's sum once more, and that is all that differs."""
    splits = splits_of(data, method, codec, **options)
    expected, apart = flat(splits, tmp_path, server_loop)
    sites = Sites(splits, tmp_path, server_loop)
    try:
        play(sites.clients, rounds=ROUNDS + 1)
        assert all(client.finished() for client in sites.clients)
        found, summed = sites.top.result().z, reports(sites.top)
    finally:
        sites.close()
    assert np.abs(found - expected).max() <= bound * np.abs(expected).max()
    assert [each.clients for each in summed] == [len(SITES)] * len(apart)
    for one, other in zip(summed, apart, strict=True):
        assert (one.queries, one.dev_examples) == (other.queries, other.dev_examples)
        assert one.dev_loss == pytest.approx(other.dev_loss, rel=max(bound, 1e-6))

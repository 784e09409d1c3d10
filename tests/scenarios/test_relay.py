"""Relays: a run through them equals the run without, and what can go wrong at a site changes no result in silence."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.errors import CoordinatorUnavailable, InvalidJob
from fedbbpt.federation import assemble
from fedbbpt.federation.relay.relay import HOLD_SECONDS
from fedbbpt.federation.relay.site import DEADLINE_SHARE
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.identity import names
from fedbbpt.job.config import Job
from fedbbpt.server.remote import RemoteRun
from fedbbpt.types import Receipt, Report, RunState
from fedbbpt.wire.channel import connect
from tests.counting_proxy import ByteCount, CountingProxy
from tests.federation import AdvancingLoop, Client, OverGrpc, play
from tests.recording_link import RecordingLink
from tests.sites import SiteOverGrpc, above
from tests.tiny_run import DEADLINE_SECONDS, ROUNDS, fake_ptm, job

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


def finish(clients: Sequence[Client]) -> None:
    """Lets all clients answer side by side until the run ends: after a restart they join again at the same time."""

    def play_on(client: Client) -> None:
        for task in client.tasks():
            client.submit(task)

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(play_on, clients))


def counted(clients: Sequence[Client], proxy: CountingProxy) -> ByteCount:
    """Returns the bytes of all rounds except the first two, from one moment at which all have a task to another."""
    play(clients, rounds=1)
    tasks = [client.task() for client in clients]
    before = proxy.count()
    for _ in range(ROUNDS - 1):
        for client, task in zip(clients, tasks, strict=True):
            assert client.submit(task) is Receipt.COUNTED
        tasks = [client.task() for client in clients]
    return proxy.count() - before


def reports(federation: OverGrpc) -> list[Report]:
    return [report for _, news in federation.watch() for report in news]


def flat(splits: Splits, folder: Path, loop: AdvancingLoop) -> tuple[npt.NDArray[np.float32], list[Report]]:
    """Returns the prompt and the reports of the run without relays, whose clients draw as those of the sites do."""
    federation = OverGrpc(splits, folder / "flat.db", loop)
    try:
        clients = []
        for site, index in ((site, index) for site, own in SITES.items() for index in own):
            hello = assemble.hello(f"{site}/{assemble.client_name(index)}", "key", len(splits.train[index]))
            # Draws depend on the name, and no client may join under one that only relays make.
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(names, "_NAME", re.compile(".*"))
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


def test_a_killed_relay_asks_again_and_its_site_counts_once(
    sites: Sites, tmp_path: Path, server_loop: AdvancingLoop
) -> None:
    """Kills: an answer that is lost with the relay, and a sum that counts twice."""
    play(sites.clients, rounds=1)
    assert sites.clients[0].answer() is Receipt.COUNTED
    sites.relays[0].restart()
    finish(sites.clients)
    expected, apart = flat(sites.splits, tmp_path, server_loop)
    assert sites.top.result().z.tobytes() == expected.tobytes()
    assert [each.queries for each in reports(sites.top)] == [each.queries for each in apart]


def test_a_coordinator_that_restarts_gets_the_sums_that_it_lacks(
    sites: Sites, tmp_path: Path, server_loop: AdvancingLoop
) -> None:
    play(sites.clients, rounds=1)
    play(sites.clients[:3], rounds=1)
    sites.top.restart()
    finish(sites.clients)
    expected, apart = flat(sites.splits, tmp_path, server_loop)
    assert sites.top.result().z.tobytes() == expected.tobytes()
    assert [each.queries for each in reports(sites.top)] == [each.queries for each in apart]


def test_a_client_that_misses_a_round_is_missing_from_the_sum_only(sites: Sites) -> None:
    """Kills: a round that waits for the deadline above; a sum with the weight of clients that are not in it."""
    silent, *others = sites.clients
    for client in others:
        assert client.answer() is Receipt.COUNTED
    sites.top.advance(DEADLINE_SHARE * DEADLINE_SECONDS)
    play(others, rounds=ROUNDS)
    assert all(client.finished() for client in others)
    found = reports(sites.top)
    assert [each.clients for each in found] == [len(SITES)] * (ROUNDS + 1)
    missing = len(sites.splits.dev[0])
    assert [each.dev_examples for each in found] == [30 - missing] * (ROUNDS + 1)
    silent.hang_up()


def test_the_site_learns_the_result_and_how_the_run_ended(sites: Sites) -> None:
    play(sites.clients, rounds=1)
    tasks = [client.task() for client in sites.clients]  # the relays' sums of the first round have arrived
    RemoteRun(sites.top.channel()).stop()
    for client, task in zip(sites.clients, tasks, strict=True):
        assert client.submit(task) is Receipt.COUNTED
    assert all(client.finished() for client in sites.clients)
    for relay in sites.relays:
        below = RemoteRun(connect(f"127.0.0.1:{relay.port}"))
        assert below.status().state is RunState.STOPPED
        assert below.result().z.tobytes() == sites.top.result().z.tobytes()


def test_an_asynchronous_run_takes_sums_as_they_come(data: Path, tmp_path: Path, server_loop: AdvancingLoop) -> None:
    """One site answers each round; the other one answers its first task after two rounds, and is counted then."""
    sections = splits_of(data, "fedavg-bbt").job.model_dump()
    sections["cohort"] |= {"mode": "async", "buffer": 1, "quorum": 0.5, "max_staleness": 8}
    sites = Sites(prepare(Job.model_validate(sections)), tmp_path, server_loop)
    north, south = sites.clients[:2], sites.clients[2:]
    slow = [client.task() for client in south]
    play(north, rounds=2)
    for client, task in zip(south, slow, strict=True):
        assert client.submit(task) is Receipt.COUNTED
    sites.top.until(lambda status: status.round == 3)
    found = RemoteRun(sites.top.channel()).status()
    assert found.last is not None and found.last.staleness == 2.0
    sites.close()


def test_a_relay_that_lacks_clients_says_so(data: Path, tmp_path: Path, server_loop: AdvancingLoop) -> None:
    splits = splits_of(data)
    top = OverGrpc(above(splits, 1), tmp_path / "run.db", server_loop)
    relay = SiteOverGrpc(server_loop, top.port, "north", 2)
    hello = assemble.hello("anna", "key", 4)
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(relay.link(patience_seconds=0.0).join, hello)
        relay.until_come(1)
        top.advance(HOLD_SECONDS)
        with pytest.raises(CoordinatorUnavailable, match="the relay waits for 1 more of 2 clients"):
            joining.result()
    assert not RemoteRun(top.channel()).status().members, "it joins when enough have come"
    relay.close()
    top.close()


def test_a_relay_below_a_relay_sends_the_sum_of_sums(data: Path, tmp_path: Path, server_loop: AdvancingLoop) -> None:
    splits = splits_of(data)
    top = OverGrpc(above(splits, 1), tmp_path / "run.db", server_loop)
    region = SiteOverGrpc(server_loop, top.port, "region", len(SITES))
    relays = [SiteOverGrpc(server_loop, region.port, name, len(own)) for name, own in SITES.items()]
    try:
        with ThreadPoolExecutor(4) as pool:
            joining = [
                pool.submit(relay.join, splits, index)
                for relay, own in zip(relays, SITES.values(), strict=True)
                for index in own
            ]
            clients = [each.result() for each in joining]
        first = clients[0].task()
        assert first.id.client_id == "region/north/client-0000"
        assert clients[0].submit(first) is Receipt.COUNTED
        play(clients[1:], rounds=1)
        play(clients, rounds=ROUNDS)
        assert all(client.finished() for client in clients)
        expected, apart = flat(splits, tmp_path, server_loop)
        assert top.result().z.tobytes() == expected.tobytes()
        assert [each.dev_examples for each in reports(top)] == [each.dev_examples for each in apart]
    finally:
        for relay in (*relays, region):
            relay.close()
        top.close()


def test_a_method_that_does_not_add_is_refused_to_the_site_with_the_reason(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop
) -> None:
    splits = splits_of(data, "fed-bpt")
    top = OverGrpc(above(splits, 2), tmp_path / "run.db", server_loop)
    relay = SiteOverGrpc(server_loop, top.port, "north", 1)
    with pytest.raises(InvalidJob, match="a relay sums its clients' updates, and those of fed-bpt"):
        relay.join(splits, 0)
    assert not top.until(lambda status: not status.members).members, "the relay has left"
    relay.close()
    top.close()


def test_clients_replay_the_search_behind_a_relay(data: Path, tmp_path: Path, server_loop: AdvancingLoop) -> None:
    """Kills: a relay that sends its site every broadcast whole."""
    splits = splits_of(data)
    top = OverGrpc(above(splits, 1), tmp_path / "run.db", server_loop)
    relay = SiteOverGrpc(server_loop, top.port, "north", 1)
    link = RecordingLink(connect(f"127.0.0.1:{relay.port}"))
    client = Client(link, assemble.hello("anna", "key", len(splits.train[0])), splits, 0, fake_ptm())
    play([client], rounds=ROUNDS + 1)
    assert client.finished()
    assert link.kinds == "s" + "n" * ROUNDS
    relay.close()
    top.close()


def test_the_line_to_the_coordinator_carries_one_update_for_a_site(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop
) -> None:
    """Kills: a relay that forwards each update. The site has four clients, and framing differs a little."""
    splits = splits_of(data)
    top = OverGrpc(above(splits, 1), tmp_path / "run.db", server_loop)
    with CountingProxy(top.port) as proxy:
        relay = SiteOverGrpc(server_loop, proxy.port, "north", 4)
        relayed = counted(relay.join_all(splits, range(4)), proxy)
        relay.close()
    top.close()
    top = OverGrpc(splits, tmp_path / "flat.db", server_loop)
    with CountingProxy(top.port) as proxy:
        links = [RemoteCoordinator(top.channel(proxy.port)) for _ in range(4)]
        apart = counted([top.client(index, link=link) for index, link in enumerate(links)], proxy)
    top.close()
    assert relayed.up < apart.up / 2 and relayed.down < apart.down / 2, (relayed, apart)

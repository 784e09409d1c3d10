"""Relays between a coordinator and the clients of its sites, over gRPC in this process."""

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.federation import assemble
from fedbbpt.federation.relay.names import SiteNames
from fedbbpt.federation.relay.relay import Relay
from fedbbpt.federation.splits import Splits
from fedbbpt.server.remote import RemoteRun
from fedbbpt.server.service import serve
from fedbbpt.wire.channel import connect
from tests.federation import AdvancingLoop, Client
from tests.tiny_run import fake_ptm

T = TypeVar("T")


def above(splits: Splits, sites: int) -> Splits:
    """Returns the splits with the job of a coordinator that waits for so many sites."""
    cohort = splits.job.cohort.model_copy(update={"clients": sites})
    return replace(splits, job=splits.job.model_copy(update={"cohort": cohort}))


class SiteOverGrpc:
    """A relay on a loopback port, in the event loop of another thread, and clients that a test moves by hand."""

    def __init__(self, loop: AdvancingLoop, port: int, name: str, clients: int, *, own_port: int = 0) -> None:
        """`port` is the coordinator's above; `own_port` is the relay's, 0 for a free one."""
        self._loop, self._above, self.name, self._clients = loop, port, name, clients
        self._start(own_port)

    def _start(self, port: int) -> None:
        async def start() -> Any:
            self.channel = connect(f"127.0.0.1:{self._above}")
            self.link_above = RemoteCoordinator(self.channel, submits_apart=True, patience_seconds=20.0)
            relay = Relay(
                self.link_above,
                lambda run: RemoteRun(self.channel, run),
                self.name,
                "key of the site",
                self._clients,
                SiteNames(),
            )
            return relay, await serve(relay.runs, port=port, before_join=relay.admit)

        self.relay, self._serving = self._run(start())
        self.port = self._serving.port

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def link(self, patience_seconds: float = 600.0) -> RemoteCoordinator:
        """Returns a new link of a client to the relay."""
        return RemoteCoordinator(connect(f"127.0.0.1:{self.port}"), patience_seconds=patience_seconds)

    def join(self, splits: Splits, index: int, name: str = "") -> Client:
        """Returns a client that has joined; the relay may let it wait for others."""
        name = name or assemble.client_name(index)
        return Client(self.link(), assemble.hello(name, "key", len(splits.train[index])), splits, index, fake_ptm())

    def join_all(self, splits: Splits, indices: Sequence[int]) -> list[Client]:
        """Returns clients that join at the same time."""
        with ThreadPoolExecutor(len(indices)) as pool:
            return list(pool.map(lambda index: self.join(splits, index), indices))

    def until_come(self, number: int) -> None:
        """Waits until so many clients have come to a relay that still waits for others."""

        async def waiting() -> None:
            while len(self.relay.hellos) < number:
                await asyncio.sleep(0.01)

        self._run(waiting())

    def restart(self) -> None:
        """Ends the relay without a word to anybody, as its death does, and starts another one on the same port."""
        self.close()
        self._start(self.port)

    def close(self) -> None:
        """Ends the relay, and closes its connection to the coordinator above."""
        self._run(self._serving.stop(grace_seconds=0.0))
        self.channel.close()

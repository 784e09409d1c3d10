"""The least that gRPC needs for a round: a barrier with one bidirectional stream for each client, over TLS.

In a round, the server sends each client 2 KB and waits for 100 bytes from each. There are no messages to parse, no
checks, no state and no disk.
"""

import asyncio
import time
from multiprocessing.connection import Connection
from typing import Any

import grpc

from fedbbpt.bench.rounds.measuring import WARM_ROUNDS, Certificate, Crew, told
from fedbbpt.wire.tls import ServerCertificates, channel_credentials

DOWN, UP = bytes(2000), bytes(100)
METHOD = "/barrier/Round"
CHANNEL_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
"""Each client has a connection of its own, as on a machine of its own."""


def measure(crew: Crew, certificate: Certificate, clients: int, rounds: int) -> list[float]:
    """Returns the seconds of each round after the first few."""
    server = crew.start(_serve, certificate, clients, rounds + WARM_ROUNDS)
    crew.start(_take_part, certificate, told(server, "the barrier"), clients, rounds + WARM_ROUNDS)
    times: list[float] = told(server, "the barrier")
    crew.close()
    return [after - before for before, after in zip(times[WARM_ROUNDS:], times[WARM_ROUNDS + 1 :], strict=False)]


class _Barrier:
    """The server's rounds."""

    def __init__(self, clients: int, rounds: int) -> None:
        self._clients, self._rounds = clients, rounds
        self._ready = self._arrived = 0
        self._next = asyncio.Event()
        self.times: list[float] = []
        self.done = asyncio.Event()

    async def take_part(self, requests: Any, context: Any) -> None:
        self._ready += 1
        if self._ready == self._clients:
            self._open_next()
        else:
            await self._next.wait()
        for _ in range(self._rounds):
            following = self._next
            await context.write(DOWN)
            await context.read()
            self._arrived += 1
            if self._arrived == self._clients:
                self._arrived = 0
                self._open_next()
            else:
                await following.wait()

    def _open_next(self) -> None:
        self.times.append(time.perf_counter())
        before, self._next = self._next, asyncio.Event()
        before.set()
        if len(self.times) > self._rounds:
            self.done.set()


def _serve(connection: Connection, certificate: Certificate, clients: int, rounds: int) -> None:
    async def serve() -> None:
        barrier = _Barrier(clients, rounds)
        handler: Any = grpc.stream_stream_rpc_method_handler(barrier.take_part)
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("barrier", {"Round": handler}),))
        connection.send(server.add_secure_port("127.0.0.1:0", ServerCertificates(certificate.server).credentials()))
        await server.start()
        await barrier.done.wait()
        connection.send(barrier.times)
        await server.stop(None)

    asyncio.run(serve())


def _take_part(connection: Connection, certificate: Certificate, port: int, clients: int, rounds: int) -> None:
    credentials = channel_credentials(certificate.client)

    async def take_part() -> None:
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials, CHANNEL_OPTIONS) as channel:
            call: Any = channel.stream_stream(METHOD)()
            for _ in range(rounds):
                await call.read()
                await call.write(UP)
            await call.done_writing()
            await call.read()

    async def all_take_part() -> None:
        await asyncio.gather(*(take_part() for _ in range(clients)), return_exceptions=True)

    asyncio.run(all_take_part())

"""Thousands of lean clients in one process: each with a connection, a session and a stream of its own."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import grpc

from fedbbpt.bench.rounds.barrier import CHANNEL_OPTIONS
from fedbbpt.bench.rounds.lean_clients import answer_to, templates
from fedbbpt.bench.rounds.measuring import Certificate
from fedbbpt.federation import assemble
from fedbbpt.job.config import Job
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from fedbbpt.wire.messages import coordinator_messages
from fedbbpt.wire.tls import channel_credentials

AT_A_TIME = 64
"""Clients of one process that connect, or join, at a time."""
LONGEST_REASON = 120
"""Characters."""


@dataclass(slots=True)
class Tally:
    """What the clients of one process saw."""

    joined: tuple[float, float] = (0.0, 0.0)
    """When the first client began to join, and when the last one had joined: seconds of the machine's clock."""
    tasks: list[int] = field(default_factory=list)
    """The number of tasks that each client received."""
    receipts: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    """Calls that ended with an error, by its code and reason. Their clients open another stream."""


def take_part(
    connection: Connection, certificate: Certificate, address: str, job: Job, first: int, clients: int
) -> None:
    """Runs clients number `first` to `first + clients` - 1 to the end of the run.

    Sends "connected", waits for a message, joins, sends "joined", and at the end the `Tally`.
    """
    credentials = channel_credentials(certificate.client)
    target = address.replace("127.0.0.1", "localhost")
    updates = templates(job)

    async def run() -> Tally:
        gate, tally = asyncio.Semaphore(AT_A_TIME), Tally(tasks=[0] * clients)
        channels = [grpc.aio.secure_channel(target, credentials, CHANNEL_OPTIONS) for _ in range(clients)]

        async def connect(channel: grpc.aio.Channel) -> None:
            async with gate:
                await channel.channel_ready()

        async def join(index: int, stub: Any) -> str:
            hello = assemble.hello(assemble.client_name(first + index), "key", 8)
            async with gate:
                session: str = (await stub.Join(coordinator_messages.join_request(hello))).session
                return session

        async def stay(index: int, stub: Any, session: str) -> None:
            while True:
                try:
                    return await answer(index, stub, session)
                except grpc.aio.AioRpcError as error:
                    tally.lost[f"{error.code().name}: {error.details()}"[:LONGEST_REASON]] += 1
                    await asyncio.sleep(1.0)

        async def answer(index: int, stub: Any, session: str) -> None:
            call = stub.TakePart()
            await call.write(pb.TakePartRequest(opening=pb.Opening(session=session)))
            async for response in call:
                if response.receipt:
                    tally.receipts[pb.Receipt.Name(response.receipt).removeprefix("RECEIPT_")] += 1
                if response.WhichOneof("event") == "task":
                    tally.tasks[index] += 1
                    await call.write(answer_to(response.task.id, updates))

        await asyncio.gather(*map(connect, channels))
        connection.send("connected")
        connection.recv()
        stubs = [CoordinatorServiceStub(channel) for channel in channels]
        begun = time.monotonic()
        sessions = await asyncio.gather(*(join(index, stub) for index, stub in enumerate(stubs)))
        tally.joined = begun, time.monotonic()
        connection.send("joined")
        await asyncio.gather(*(stay(i, *each) for i, each in enumerate(zip(stubs, sessions, strict=True))))
        for channel in channels:
            await channel.close(None)
        return tally

    connection.send(asyncio.run(run()))
    connection.poll(None)

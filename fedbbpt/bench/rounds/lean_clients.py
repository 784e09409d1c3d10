"""Clients that do as little as the protocol permits, all in one process, to measure the coordinator alone."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import grpc
import numpy as np

from fedbbpt.bench.rounds.barrier import CHANNEL_OPTIONS
from fedbbpt.bench.rounds.measuring import WARM_ROUNDS, Certificate
from fedbbpt.bench.rounds.zero_compute import MEASURED, arrays, weight_of
from fedbbpt.codecs import CODECS
from fedbbpt.codecs.travelling import packed
from fedbbpt.federation import assemble
from fedbbpt.job.config import Job
from fedbbpt.job.settings import run_settings
from fedbbpt.secure.client import SecureClient
from fedbbpt.secure.fixed_point import encoded
from fedbbpt.secure.messages import FromClient
from fedbbpt.types import Arrays, Phase, TaskId, Update
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from fedbbpt.wire.messages import coordinator_messages
from fedbbpt.wire.messages.secure_messages import from_server, secure_request
from fedbbpt.wire.tensors import bundle
from fedbbpt.wire.tls import channel_credentials

JOINS = 64
"""How many clients join at a time."""


def take_part(connection: Connection, certificate: Certificate, address: str, job: Job, clients: int) -> None:
    """Runs the clients: tells when they are warm, and at the end their CPU seconds and their rounds since then."""
    credentials = channel_credentials(certificate.client)
    target = address.replace("127.0.0.1", "localhost")
    updates = templates(job)
    found = {pb.PHASE_UPDATE: arrays(job), pb.PHASE_EVALUATE: {}}
    vectors = {phase: encoded(Update(each, weight_of(job), MEASURED)) for phase, each in found.items()}

    async def run() -> tuple[float, int]:
        begun, rounds = 0.0, 0
        channels = [grpc.aio.secure_channel(target, credentials, CHANNEL_OPTIONS) for _ in range(clients)]
        stubs: list[Any] = [CoordinatorServiceStub(channel) for channel in channels]
        gate = asyncio.Semaphore(JOINS)

        async def join(index: int, stub: Any) -> pb.JoinResponse:
            hello = assemble.hello(assemble.client_name(index), "key", 8)
            async with gate:
                told: pb.JoinResponse = await stub.Join(coordinator_messages.join_request(hello))
                return told

        joined = await asyncio.gather(*(join(index, stub) for index, stub in enumerate(stubs)))

        async def say(call: Any, messages: Iterable[FromClient]) -> None:
            for message in messages:
                await call.write(pb.TakePartRequest(secure=secure_request(message)))

        async def answer(stub: Any, told: pb.JoinResponse, index: int) -> None:
            nonlocal begun, rounds
            session, first, secure = told.session, index == 0, None
            call = stub.TakePart()
            await call.write(pb.TakePartRequest(opening=pb.Opening(session=session)))
            if told.HasField("secure"):
                secure = SecureClient(assemble.client_name(index), told.secure.threshold)
                await say(call, [secure.keys])
            async for response in call:
                assert response.receipt in (0, pb.RECEIPT_COUNTED), f"a client's receipt is {response.receipt}"
                if secure is not None and response.HasField("secure"):
                    await say(call, secure.take(from_server(response.secure)))
                if response.WhichOneof("event") != "task":
                    continue
                task = response.task.id
                if first and task.round == WARM_ROUNDS:
                    connection.send("warm")
                    begun = time.process_time()
                if secure is None:
                    await call.write(answer_to(task, updates))
                else:
                    await say(call, secure.answer(task.round, vectors[task.phase]))
                rounds += first and task.round >= WARM_ROUNDS

        async with asyncio.TaskGroup() as group:
            for index, (stub, told) in enumerate(zip(stubs, joined, strict=True)):
                group.create_task(answer(stub, told, index))
        used = time.process_time() - begun
        for channel in channels:
            await channel.close(None)
        return used / clients, rounds

    connection.send(asyncio.run(run()))
    connection.poll(None)


def templates(job: Job) -> Mapping[int, pb.TakePartRequest]:
    """Returns the updates of a job's clients by phase, in which only the id of the task is missing."""
    return {pb.PHASE_UPDATE: _template(job, arrays(job)), pb.PHASE_EVALUATE: _template(job, {})}


def answer_to(task: pb.TaskId, updates: Mapping[int, pb.TakePartRequest]) -> pb.TakePartRequest:
    """Returns a client's update to a task, from the updates by phase."""
    request = pb.TakePartRequest()
    request.CopyFrom(updates[task.phase])
    request.update.id.CopyFrom(task)
    return request


def _template(job: Job, found: Arrays) -> pb.TakePartRequest:
    codec = CODECS[run_settings(job, "").codec]
    weight = weight_of(job)
    update = Update(codec.encode(packed(found, weight, {}), np.random.default_rng(0)), weight, MEASURED)
    task_id = TaskId("", 0, "", Phase.UPDATE)
    return pb.TakePartRequest(update=coordinator_messages.update_header("", task_id, update, bundle(update.arrays)[0]))

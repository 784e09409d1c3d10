"""Clients of this project in processes of their own, with all that a client does, except for queries to a PTM."""

import itertools
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from fedbbpt.bench.rounds.measuring import WARM_ROUNDS, Certificate
from fedbbpt.bench.rounds.zero_compute import ZeroCompute, arrays, weight_of
from fedbbpt.client.agent import Agent
from fedbbpt.client.keepsake import Keepsake
from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.codecs import CODECS
from fedbbpt.federation import assemble
from fedbbpt.job.config import Job
from fedbbpt.types import Task
from fedbbpt.wire.channel import connect


def take_part(connection: Connection, certificate: Certificate, address: str, job: Job, index: int, at: Path) -> None:
    """Runs client number `index`: tells when it is warm, and at the end its CPU seconds and its rounds since then."""
    name = assemble.client_name(index)
    keepsake = Keepsake(at / name)
    begun = 0.0

    class Observed(RemoteCoordinator):
        """Notes the beginning of the first round that counts."""

        def tasks(self) -> Iterator[Task]:
            nonlocal begun
            for number, task in enumerate(super().tasks()):
                if number == WARM_ROUNDS:
                    connection.send("warm")
                    begun = time.process_time()
                yield task

    with connect(address, certificate.client) as channel:
        link = Observed(channel)
        settings = assemble.join(link, assemble.hello(name, keepsake.client_key(), 8))
        client = ZeroCompute(arrays(job), job.space().dim, weight_of(job))
        secure = settings.secure_threshold is not None
        agent = Agent(client, client, CODECS[settings.codec], keepsake, settings.sampling, secure=secure)
        rounds = agent.run(link, lambda: None)
    connection.send((time.process_time() - begun, rounds - WARM_ROUNDS))
    next(itertools.repeat(connection.poll(None)))

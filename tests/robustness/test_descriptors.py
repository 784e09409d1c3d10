"""Callers that open as many connections as a service can have: it goes on, and takes others when they have left."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fedbbpt.data.examples import write_jsonl
from fedbbpt.federation.assemble import client_name
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.federation.run_folder import PROMPT
from fedbbpt.federation.splits import Splits
from fedbbpt.job.job_file import job_text
from fedbbpt.server.remote import RemoteRun
from fedbbpt.wire.channel import connect
from tests.processes import Machine
from tests.tiny_run import CLIENTS, undisturbed

DESCRIPTORS = 128
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as machine:
        yield machine


def crowd(address: str, connections: int = 2 * DESCRIPTORS) -> tuple[ExitStack, int]:
    """Opens connections, and returns them with the number of those that the service keeps open."""
    host, _, port = address.rpartition(":")
    opened, kept = ExitStack(), 0
    lines = [
        opened.enter_context(socket.create_connection((host, int(port)), timeout=60.0)) for _ in range(connections)
    ]
    for line in lines:
        try:
            line.sendall(PREFACE)
            kept += bool(line.recv(1))
        except ConnectionError:
            pass
    return opened, kept


@pytest.mark.slow
def test_a_run_goes_on_while_strangers_take_all_connections(machine: Machine, splits: Splits) -> None:
    (machine.folder / "job.toml").write_text(job_text(splits.job))
    machine.start("ptm", "ptm", "serve", "--model", "fake", descriptors=DESCRIPTORS)
    ptm = machine.address("ptm")
    machine.start("coordinator", "coordinator", "serve", "job.toml", "--ptm", ptm, descriptors=DESCRIPTORS)
    coordinator = machine.address("coordinator")
    operator = RemoteRun(connect(coordinator))
    assert operator.status().members == ()
    for address in (coordinator, ptm):
        strangers, kept = crowd(address)
        with strangers:
            assert DESCRIPTORS // 4 < kept < DESCRIPTORS
            # Who was there before is still served, and the rest is refused at once.
            assert operator.status().members == ()
            if address == coordinator:
                machine.until_log("coordinator", "at most 64 connections are accepted")
    for index, (train, dev) in enumerate(zip(splits.train, splits.dev, strict=True)):
        name = client_name(index)
        write_jsonl(machine.folder / f"{name}.jsonl", train, splits.job.task.labels)
        write_jsonl(machine.folder / f"{name}.dev.jsonl", dev, splits.job.task.labels)
        files = ("--data", f"{name}.jsonl", "--dev", f"{name}.dev.jsonl", "--one-class")
        machine.start(name, "client", "join", "--coordinator", coordinator, *files)
    operator_sees_the_end = [status for status, _ in operator.watch()]
    assert operator_sees_the_end[-1].state.ended
    strangers, _ = crowd(coordinator)
    with strangers:
        for index in range(CLIENTS):
            assert machine.wait(client_name(index)) == 0, machine.log(client_name(index))
        assert machine.end("coordinator") == 0, machine.log("coordinator")
    assert read_prompt(machine.folder / PROMPT)[0].tobytes() == undisturbed(splits).z

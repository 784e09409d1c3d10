"""A coordinator, two relays and four clients as real processes. A relay is killed with signal 9 in the middle."""

import signal
from pathlib import Path

import pytest

from fedbbpt.data.examples import write_jsonl
from fedbbpt.federation.assemble import client_name
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.federation.splits import prepare
from fedbbpt.job.job_file import job_text
from fedbbpt.server.remote import RemoteRun
from fedbbpt.types import Report
from fedbbpt.wire.channel import connect
from tests.processes import Machine, free_port
from tests.sites import above
from tests.tiny_run import job, undisturbed

SITES = {"north": (0, 1), "south": (2, 3)}
ROUNDS = 40


@pytest.mark.slow
def test_a_killed_relay_continues_and_its_site_counts_once(data: Path, tmp_path: Path) -> None:
    splits = prepare(job(data, rounds=ROUNDS, clients=4))
    expected = undisturbed(splits)
    with Machine(tmp_path) as machine:
        machine.start("ptm", "ptm", "serve", "--model", "fake")
        ptm = machine.address("ptm")
        (tmp_path / "job.toml").write_text(job_text(above(splits, len(SITES)).job))
        machine.start("coordinator", "coordinator", "serve", "job.toml", "--ptm", ptm)
        hub = machine.address("coordinator")
        port = str(free_port())
        addresses = {"north": f"127.0.0.1:{port}"}
        command = ("relay", "serve", "--coordinator", hub, "--min-clients", "2", "--name")
        machine.start("north", *command, "north", "--port", port)
        machine.start("south", *command, "south")
        addresses["south"] = machine.address("south")
        machine.address("north")
        for site, indices in SITES.items():
            for index in indices:
                name = client_name(index)
                write_jsonl(tmp_path / f"{name}.jsonl", splits.train[index], splits.job.task.labels)
                write_jsonl(tmp_path / f"{name}.dev.jsonl", splits.dev[index], splits.job.task.labels)
                files = ("--data", f"{name}.jsonl", "--dev", f"{name}.dev.jsonl", "--out", f"{name}.safetensors")
                own = ("--coordinator", addresses[site], "--name", name, "--state", f"{name}.state", "--one-class")
                machine.start(name, "client", "join", *own, *files)
        operator = RemoteRun(connect(hub))
        assert any(status.round >= 3 for status, _ in operator.watch())
        machine.send(client_name(3), signal.SIGSTOP)  # a round stays open while the relay is away
        machine.kill("north")
        machine.start("north", *command, "north", "--port", port)
        machine.until_log("north", "clients with", times=2)
        machine.send(client_name(3), signal.SIGCONT)
        reports: list[Report] = [report for _, news in operator.watch() for report in news]
        for process in (*map(client_name, range(4)), *SITES, "coordinator"):
            assert machine.wait(process) == 0, machine.log(process)
        results = [read_prompt(tmp_path / f"{client_name(index)}.safetensors")[0].tobytes() for index in range(4)]
    assert results == [expected.z] * 4
    assert [each.queries for each in reports] == [each.queries for each in expected.reports]

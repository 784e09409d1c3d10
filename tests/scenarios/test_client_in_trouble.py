"""A client whose PTM service has gone is reported, and holds no round. Real processes, and a minute of patience."""

import json
from pathlib import Path

import pytest

from fedbbpt.data.examples import write_jsonl
from fedbbpt.federation.splits import prepare
from fedbbpt.job.job_file import job_text
from tests.command_line import CommandLine
from tests.processes import Machine, free_port
from tests.tiny_run import CLIENTS, job

pytestmark = pytest.mark.slow


def test_a_client_without_its_ptm_is_reported_and_returns(
    tmp_path: Path, data: Path, command_line: CommandLine
) -> None:
    made = job(data, rounds=100_000)
    splits = prepare(made.model_copy(update={"cohort": made.cohort.model_copy(update={"deadline_seconds": 604_800.0})}))
    with Machine(tmp_path) as machine:
        machine.start("ptm", "ptm", "serve", "--model", "fake")
        own_port = str(free_port())
        machine.start("own", "ptm", "serve", "--model", "fake", "--port", own_port)
        (tmp_path / "job.toml").write_text(job_text(splits.job))
        machine.start("coordinator", "coordinator", "serve", "job.toml", "--ptm", machine.address("ptm"))
        own, coordinator = machine.address("own"), machine.address("coordinator")
        for index in range(CLIENTS):
            write_jsonl(tmp_path / f"{index}.jsonl", splits.train[index], splits.job.task.labels)
            places = ("--coordinator", coordinator, "--data", f"{index}.jsonl", "--name", f"client-{index}")
            service = ("--ptm", own) if index == 0 else ()
            machine.start(f"{index}", "client", "join", *places, *service, "--one-class")
        machine.until_log("coordinator", "round 3: closed with 3 clients")
        machine.kill("own")
        # No deadline passes in this test, so a round that closes with two clients did not wait for the third.
        machine.until_log("coordinator", "closed with 2 clients", times=5)
        shown = json.loads(command_line("members", "list", "--coordinator", coordinator, "--json").out)["members"]
        assert [bool(member["trouble"]) for member in shown] == [True, False, False]
        assert shown[0]["connected"] and "PtmUnavailable: " in shown[0]["trouble"]
        ended = command_line("status", "--coordinator", coordinator)
        assert "client-0 cannot work since 20" in ended.out, ended

        machine.start("own", "ptm", "serve", "--model", "fake", "--port", own_port)
        full = machine.log("coordinator").count("closed with 3 clients")
        machine.until_log("coordinator", "closed with 3 clients", times=full + 2)

"""A name belongs to the key that joined with it, after kill -9 of the coordinator or of a relay."""

from pathlib import Path

import pytest

from fedbbpt.data.examples import write_jsonl
from fedbbpt.federation.splits import prepare
from fedbbpt.job.job_file import job_text
from tests.processes import Machine, free_port
from tests.tiny_run import job

ROUNDS = 50_000


@pytest.mark.slow
@pytest.mark.parametrize("clients", [1, 2], ids=["running", "waiting"])
@pytest.mark.parametrize("server", ["coordinator", "relay"])
def test_nobody_takes_the_name_of_a_client_that_is_away_when_the_service_comes_back(
    tmp_path: Path, data: Path, server: str, clients: int
) -> None:
    splits = prepare(job(data, rounds=ROUNDS, clients=clients if server == "coordinator" else 1))
    (tmp_path / "job.toml").write_text(job_text(splits.job))
    write_jsonl(tmp_path / "train.jsonl", splits.train[0], splits.job.task.labels)
    with Machine(tmp_path) as machine:
        machine.start("ptm", "ptm", "serve", "--model", "fake")
        ptm, port = machine.address("ptm"), str(free_port())
        commands: dict[str, tuple[str, ...]] = {"coordinator": ("coordinator", "serve", "job.toml", "--ptm", ptm)}
        if server == "relay":
            machine.start("coordinator", *commands["coordinator"])
            above = ("--coordinator", machine.address("coordinator"))
            commands["relay"] = ("relay", "serve", *above, "--name", "site", "--min-clients", str(clients))
        machine.start(server, *commands[server], "--port", port)
        address = machine.address(server)
        join = ("client", "join", "--coordinator", address, "--data", "train.jsonl", "--one-class", "--name", "north")
        machine.start("north", *join)
        if clients == 1:
            machine.until_log("north", "joined ")
        elif server == "coordinator":
            machine.until_log("north", "joined ")
        else:
            machine.until_log("north", "the relay waits for 1 more of 2 clients")
        machine.kill("north")
        machine.kill(server)
        machine.start(server, *commands[server], "--port", port)
        machine.address(server)
        machine.start("stranger", *join, "--state", "elsewhere")
        assert machine.wait("stranger") == 8, machine.log("stranger")
        assert "a client with another key has this name" in machine.log("stranger")
        machine.start("north", *join)
        machine.until_log("north", "joined " if clients == 1 or server == "coordinator" else "the relay waits", times=2)

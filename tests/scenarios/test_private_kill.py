"""A coordinator with a privacy budget and an audit log that is killed with kill -9, as real processes over gRPC."""

from pathlib import Path

import pytest

from fedbbpt.data.examples import write_jsonl
from fedbbpt.federation.splits import prepare
from fedbbpt.host.audit import read_audit
from fedbbpt.job.config import Job
from fedbbpt.job.job_file import job_text
from fedbbpt.privacy import accountant
from tests.processes import Machine, free_port
from tests.tiny_run import CLIENTS, job

ROUNDS, EPSILON, DELTA = 200, 50.0, 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["plain", "secure"])
def test_no_round_is_spent_twice_or_forgotten_and_the_audit_log_stays_whole(
    tmp_path: Path, data: Path, aggregation: str
) -> None:
    """Kills: an account in memory, one that is committed apart from its round, and a log with half a record."""
    sections = job(data, rounds=ROUNDS).model_dump()
    sections["privacy"] = {"epsilon": EPSILON, "delta": DELTA, "clip_norm": 4.0, "aggregation": aggregation}
    splits = prepare(Job.model_validate(sections))
    (tmp_path / "job.toml").write_text(job_text(splits.job))
    audit = tmp_path / "audit.jsonl"
    with Machine(tmp_path) as machine:
        machine.start("ptm", "ptm", "serve", "--model", "fake")
        serve = ("coordinator", "serve", "job.toml", "--ptm", machine.address("ptm"), "--audit", str(audit))
        port, hub = str(free_port()), "hub"
        machine.start(hub, *serve, "--port", port)
        address = machine.address(hub)
        for index, part in enumerate(splits.train):
            file, name = f"train-{index}.jsonl", f"client-{index}"
            write_jsonl(tmp_path / file, part, splits.job.task.labels)
            machine.start(name, "client", "join", "--coordinator", address, "--data", file, "--name", name)
        machine.until_log(hub, "closed with")
        machine.kill(hub)
        list(read_audit(audit))  # every record is whole, and follows from the one before
        hub = "hub again"
        machine.start(hub, *serve, "--port", port)
        machine.address(hub)
        assert machine.wait(hub) == 0, machine.log(hub)
        for index in range(CLIENTS):
            assert machine.wait(f"client-{index}") == 0, machine.log(f"client-{index}")
    spent: dict[int, set[float]] = {}
    for record in read_audit(audit):
        if record["kind"] == "privacy":
            spent.setdefault(record["round"], set()).add(record["epsilon"])
    shares = aggregation == "secure"
    multiplier = accountant.noise_multiplier(EPSILON, DELTA, ROUNDS, shares=shares)
    assert sorted(spent) == list(range(ROUNDS))
    for round, epsilons in spent.items():
        # A round that was killed before its commit is in the log twice, with the same account.
        assert epsilons == {accountant.spent(multiplier, round + 1, DELTA, shares=shares)}

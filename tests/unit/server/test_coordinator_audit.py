"""The audit log of a coordinator: what it records, and that a damaged or torn one is noticed."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedbbpt.codecs import CODECS
from fedbbpt.errors import AuditBroken, ClientIdTaken, InvalidHello, InvalidUpdate, StoreFull
from fedbbpt.host.audit import AuditLog, read_audit
from fedbbpt.server.audit import Audit, of_run
from fedbbpt.server.cohort import CohortRules
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.types import RunState
from tests.coordinators import DEADLINE, SETTINGS, Bench


class Audited(Bench):
    """A bench whose coordinator records what happens."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        super().__init__(clients=2)

    def restart(self) -> None:
        self.coordinator = Coordinator(
            method_name="mean",
            method=self.method,
            codec=CODECS["float32"],
            settings=SETTINGS,
            seed=5,
            cohort=CohortRules(self.clients, self.quorum, DEADLINE),
            store=self.store,
            audit=self.audit,
        )
        self.coordinator.tick(self.now)


def kinds(path: Path) -> list[tuple[str, str]]:
    return [(record["kind"], record["client"]) for record in read_audit(path)]


def test_what_happens_to_clients_and_to_the_run_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, about="client")
    bench = Audited(of_run(log.append, "run-1"))
    bench.join("anna", "berta")
    bench.join("anna")
    with pytest.raises(ClientIdTaken):
        bench.join("berta", key="another")
    task = bench.task("berta")
    assert task is not None
    with pytest.raises(InvalidUpdate):
        bench.submit("berta", task, dev_loss_sum=1e300)
    bench.answer("anna", "berta")
    bench.coordinator.leave(bench.sessions["anna"], bench.now)
    bench.coordinator.remove("berta", bench.now)
    bench.coordinator.stop(bench.now)
    bench.coordinator.stop(bench.now)
    log.close()
    assert kinds(path) == [
        ("join", "anna"),
        ("join", "berta"),
        ("eviction", "anna"),
        ("join", "anna"),
        ("refusal", "berta"),
        ("refusal", "berta"),
        ("leave", "anna"),
        ("removal", "berta"),
        ("stop", ""),
    ]
    records = list(read_audit(path))
    assert {record["run"] for record in records} == {"run-1"}
    assert [record["status"] for record in records if record["kind"] == "refusal"] == ["ClientIdTaken", "InvalidUpdate"]
    assert records[0]["examples"] == 4


def test_a_name_of_a_stranger_is_recorded_as_text_of_limited_length(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, about="client")
    bench = Audited(log.append)
    with pytest.raises(InvalidHello):
        bench.join("\x1b[2J" + "x" * 5000)
    log.close()
    (line,) = path.read_bytes().splitlines()
    assert b"\x1b" not in line and len(line) < 1000


def test_a_coordinator_whose_log_is_full_lets_nobody_in_unrecorded() -> None:
    full = True

    def audit(kind: str, client: str, **fields: Any) -> None:
        if full:
            raise StoreFull("the disk is full")

    bench = Audited(audit)
    with pytest.raises(StoreFull):
        bench.join("anna")
    assert not bench.coordinator.members()
    full = False
    bench.join("anna", "berta")
    full = True
    task = bench.task("anna")
    assert task is not None
    with pytest.raises(InvalidUpdate, match="dev_loss_sum"):
        bench.submit("anna", task, dev_loss_sum=1e300)
    with pytest.raises(StoreFull):
        bench.coordinator.stop(bench.now)
    assert bench.coordinator.state is RunState.RUNNING
    bench.answer("anna", "berta")
    assert bench.round == 1, "rounds go on"


def test_a_torn_line_of_a_killed_coordinator_is_dropped_and_a_changed_record_is_not(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, about="client")
    Audited(log.append).join("anna", "berta")
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind":"join","cli')
    again = AuditLog(path, about="client")
    again.append("leave", "anna")
    again.close()
    assert [kind for kind, _ in kinds(path)] == ["join", "join", "leave"]
    path.write_bytes(whole.replace(b'"examples":4', b'"examples":9', 1))
    with pytest.raises(AuditBroken, match="the record was changed"):
        AuditLog(path, about="client")
    assert json.loads(whole.splitlines()[0])["examples"] == 4

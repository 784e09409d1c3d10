"""`coordinator audit`: what a coordinator has recorded, and the logs that it refuses."""

import json
import re
from pathlib import Path

from fedbbpt.errors import InvalidUpdate
from fedbbpt.host.audit import AuditLog, record_refusal
from fedbbpt.server.audit import of_run
from tests.command_line import CommandLine


def write_log(path: Path) -> None:
    log = AuditLog(path, about="client")
    record = of_run(log.append, "run-1")
    record("join", "anna", examples=4)
    record("join", "bert", examples=5)
    record_refusal(record, "bert", InvalidUpdate("1e+300", where="weight", fix="4"))
    record("privacy", "", epsilon=0.5)
    record("privacy", "", epsilon=1.25)
    record("stop", "")
    log.close()


def test_records_are_counted_by_client_and_kind(command_line: CommandLine) -> None:
    write_log(Path("audit.jsonl"))
    ended = command_line("coordinator", "audit", "audit.jsonl", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert (found["records"], found["stops"], found["epsilon"]) == (6, 1, {"run-1": 1.25})
    assert {name: (counts["join"], counts["refusal"]) for name, counts in found["clients"].items()} == {
        "anna": (1, 0),
        "bert": (1, 1),
    }
    shown = command_line("coordinator", "audit", "audit.jsonl", "--anchor", found["anchor"]).out
    assert "6 records, none changed or missing" in shown and "the anchor's record is among them" in shown
    assert "epsilon 1.25 spent by run-1" in shown and "bert" in shown


def test_a_changed_record_is_found(command_line: CommandLine) -> None:
    write_log(Path("audit.jsonl"))
    changed = re.sub(r'("examples": ?)5', r"\g<1>6", Path("audit.jsonl").read_text())
    Path("audit.jsonl").write_text(changed)
    ended = command_line("coordinator", "audit", "audit.jsonl")
    assert ended.code != 0 and "audit.jsonl" in ended.err


def test_logs_of_the_other_service_are_refused(command_line: CommandLine) -> None:
    write_log(Path("audit.jsonl"))
    ended = command_line("ptm", "audit", "audit.jsonl")
    assert ended.code == 3 and "`fedbbpt coordinator audit` reads this one" in ended.err
    log = AuditLog(Path("ptm.jsonl"))
    log.append("task", "a tenant", label_tokens=[])
    log.close()
    ended = command_line("coordinator", "audit", "ptm.jsonl")
    assert ended.code == 3 and "`fedbbpt ptm audit` reads this one" in ended.err


def test_a_log_may_be_empty(command_line: CommandLine) -> None:
    Path("audit.jsonl").touch()
    assert "no records" in command_line("coordinator", "audit", "audit.jsonl").out

"""A service that is killed leaves a log of complete records."""

import subprocess
import sys
from pathlib import Path

from fedbbpt.host.audit import AuditLog, read_audit


def test_killed_service_loses_no_acknowledged_record(tmp_path: Path) -> None:
    """SIGKILL may come between any two instructions. All acknowledged records are kept, and the next service starts."""
    file = tmp_path / "audit.jsonl"
    code = f"""
from pathlib import Path
from fedbbpt.host.audit import AuditLog
log = AuditLog(Path({str(file)!r}))
for n in range(10**9):
    log.append("score", "anna", queries=n)
    print(n, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(30)]
    process.kill()
    acknowledged += [int(line) for line in process.stdout.read().split()]
    process.stdout.close()
    process.wait()
    log = AuditLog(file)
    log.append("score", "anna", queries=-1)
    log.close()
    *found, last = (record["queries"] for record in read_audit(file))
    assert last == -1
    assert found[: len(acknowledged)] == acknowledged and len(found) <= len(acknowledged) + 1

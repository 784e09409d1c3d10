"""What the coordinator records about its clients, in an audit log that nobody can change without detection.

Most records are written before what they are about is stored, so that nothing happens without one. After a crash, or
if the disk was full in between, the same thing may be recorded twice.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

Audit: TypeAlias = Callable[..., None]
"""Appends a record, `(kind, client, **fields)`, which is durable when it returns: `host.audit.AuditLog.append`.

The client is "" if the record is about the run. Raises StoreError.
"""


def no_audit(kind: str, client: str, **fields: Any) -> None:
    """Records nothing: the coordinator keeps no log."""


def of_run(audit: Audit, run_id: str) -> Audit:
    """Returns the audit of one run: each of its records names the run."""

    def record(kind: str, client: str, **fields: Any) -> None:
        audit(kind, client, run=run_id, **fields)

    return record

"""What the audit commands of both services tell of a log as a whole."""

from dataclasses import dataclass, field
from typing import Any

from fedbbpt.cli.terminal.console import out
from fedbbpt.host.audit import Anchor, Record


@dataclass(slots=True)
class AuditSummary:
    """The number of records, the times of the first and the last one, and the anchor of the last."""

    head: Anchor = field(default_factory=Anchor)
    first: str = ""
    last: str = ""

    def add(self, record: Record) -> None:
        """Adds the next record."""
        self.head, self.last = Anchor(record["n"], record["hash"]), record["time"]
        self.first = self.first or self.last

    def shown(self) -> dict[str, Any]:
        """Returns the summary as the commands print it for scripts."""
        return {
            "records": self.head.count,
            "first": self.first or None,
            "last": self.last or None,
            "anchor": str(self.head) if self.head.count else None,
        }

    def show(self, *, anchored: bool) -> bool:
        """Prints the summary, and returns whether there are records. `anchored` says that an anchor was checked."""
        if not self.head.count:
            out.print("no records")
            return False
        out.print(f"{self.head.count:,} records, none changed or missing")
        out.print(
            "the anchor's record is among them" if anchored else "only an anchor detects that the last were cut off"
        )
        out.print(f"from {self.first} to {self.last}")
        # On one line, so that it can be copied.
        out.print(f"anchor {self.head}", soft_wrap=True)
        return True

"""What happened in a run and to its clients since the coordinator started, with the time of day, for people.

No decision of the coordinator depends on it, and a restart forgets it: what must last is in the store, or in the audit
log.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from fedbbpt.limits import MAX_EVENTS, MAX_STATUS_CHARACTERS
from fedbbpt.server.audit import Audit
from fedbbpt.types import EventKind, RunEvent

_NAMED = 5
"""How many clients a text names."""


def names(clients: Iterable[str]) -> str:
    """Returns the first names in alphabetical order, and how many others there are."""
    known = sorted(clients)
    others = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return ", ".join(known[:_NAMED]) + others


class RunEvents:
    """The last events of a run, when each client was last heard, and since when it is late."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` returns the time of day in seconds since 1970."""
        self._clock, self._count = clock, 0
        self._events = deque[RunEvent](maxlen=MAX_EVENTS)
        self._heard, self._late = dict[str, float](), dict[str, float]()
        self.round_since = 0.0
        """When the open round was opened, or opened again, in seconds since 1970."""

    def add(self, kind: EventKind, client_id: str = "", *, round: int, text: str = "") -> None:
        """Adds an event of now. The oldest one is forgotten if there are too many."""
        self._count += 1
        self._events.append(RunEvent(self._count, self._clock(), kind, client_id, round, text[:MAX_STATUS_CHARACTERS]))

    def since(self, number: int) -> tuple[RunEvent, ...]:
        """Returns the events after that of this number, oldest first."""
        if number >= self._count:
            return ()
        return tuple(event for event in self._events if event.number > number)

    def audited(self, audit: Audit) -> Audit:
        """Returns an audit that adds each record's event after the record."""

        def record(kind: str, client: str, **fields: Any) -> None:
            audit(kind, client, **fields)
            self.add(EventKind(kind), client, round=fields.get("round", 0), text=_text(kind, fields))

        return record

    def heard(self, client_id: str) -> None:
        """Notes that the client has said something now."""
        self._heard[client_id] = self._clock()

    def answered(self, client_id: str) -> None:
        """Notes that the client has answered a task, and so is not late any more."""
        self.heard(client_id)
        self._late.pop(client_id, None)

    def missed(self, clients: Iterable[str], round: int) -> None:
        """Notes that a deadline passed without an answer of these clients."""
        now, late = self._clock(), list(clients)
        for client_id in late:
            self._late.setdefault(client_id, now)
        if late:
            self.add(EventKind.LATE, late[0] if len(late) == 1 else "", round=round, text=f"no answer of {names(late)}")

    def opened(self) -> None:
        """Notes that a round was opened, or opened again, now."""
        self.round_since = self._clock()

    def forget(self, client_id: str) -> None:
        """Forgets a client that has left, or whose name is free again."""
        self._heard.pop(client_id, None)
        self._late.pop(client_id, None)

    @property
    def late(self) -> Iterable[str]:
        """The clients that missed a deadline and have not answered since, the first one first."""
        return self._late

    def times_of(self, client_id: str) -> tuple[float, float]:
        """Returns when the client was last heard, and since when it is late; 0 if never, and if it is not."""
        return self._heard.get(client_id, 0.0), self._late.get(client_id, 0.0)


def _text(kind: str, fields: dict[str, Any]) -> str:
    """Returns what an event says of an audit record."""
    match kind:
        case EventKind.JOIN:
            return f"{fields['examples']:,} training examples" + (", a relay" if fields["relay"] else "")
        case EventKind.REFUSAL:
            return str(fields.get("reason", ""))
        case EventKind.PRIVACY:
            return f"epsilon {fields['epsilon']:.3g} spent"
        case _:
            return ""

"""A run as its services see it: a coordinator's own, or one that a relay passes on to a site."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fedbbpt.methods.replay import Told
from fedbbpt.secure.messages import FromClient
from fedbbpt.server.events import RunEvents
from fedbbpt.types import (
    Forms,
    Hello,
    MemberStatus,
    PtmIdentity,
    Receipt,
    Report,
    Result,
    RunSettings,
    RunState,
    RunStatus,
    Task,
    TaskId,
    Update,
)

if TYPE_CHECKING:  # few runs need `cryptography`
    from fedbbpt.server.secure_rounds import SecureRounds


@dataclass(frozen=True, slots=True)
class Submission:
    """An update of a client, encoded as it came."""

    session: str
    task_id: TaskId
    update: Update


class HostedRun(Protocol):
    """The run that clients join and that gives them tasks, as `server.coordinator.Coordinator` describes it.

    Synchronous: time comes in as `now`, in seconds.
    """

    @property
    def settings(self) -> RunSettings:
        """What clients are told when they join."""
        ...

    @property
    def status_version(self) -> int:
        """Grows with every change of `status`."""
        ...

    @property
    def tasks_version(self) -> int:
        """Grows with every change of a client's `task_for`, except the change that its own update makes."""
        ...

    @property
    def events(self) -> RunEvents:
        """What happened since the process started, for people."""
        ...

    @property
    def told(self) -> Told | None:
        """The open round's broadcast for clients that replay; None if all clients get it whole."""
        ...

    @property
    def secure(self) -> "SecureRounds | None":
        """The sums of a run with secure aggregation; None if updates come in the clear."""
        ...

    def take_secure(self, session: str, message: FromClient, now: float) -> None:
        """Takes what a client says in secure aggregation."""
        ...

    def receipt(self, client_id: str, round: int) -> Receipt | None:
        """Returns what became of a client's masked answer to a round; None while the round is open."""
        ...

    @property
    def round(self) -> int:
        """The open round, counted from 0."""
        ...

    def counts(self, round: int) -> bool:
        """Returns whether an update to the tasks of a round can count in the open one."""
        ...

    @property
    def forms(self) -> Forms:
        """The types and the shapes of the encoded arrays of an update of the open round."""
        ...

    @property
    def missing(self) -> int:
        """The number of updates that the open round still waits for before its deadline; 0 if no round is open."""
        ...

    @property
    def state(self) -> RunState:
        """Whether the run waits for clients, is running, or has ended."""
        ...

    def join(self, hello: Hello, now: float) -> tuple[str, RunSettings]:
        """Returns a new session's token and the settings of the run, and evicts the client's session before."""
        ...

    def join_all(self, hellos: Sequence[Hello], now: float) -> list[tuple[str, RunSettings] | Exception]:
        """Returns for each client what `join` returns, or the error that concerns it alone."""
        ...

    def client_of(self, session: str) -> str:
        """Returns the id of the client that has this session."""
        ...

    def connected(self, session: str) -> None:
        """Records that a stream of tasks began."""
        ...

    def disconnected(self, session: str) -> None:
        """Records that a stream of tasks ended."""
        ...

    def task_for(self, session: str) -> Task | None:
        """Returns the client's open task; None if it has answered it, or has none."""
        ...

    def submit_all(self, submissions: Sequence[Submission], now: float) -> list[Receipt | Exception]:
        """Returns the answer to each update: a receipt, or the error that concerns it alone."""
        ...

    def leave(self, session: str, now: float) -> None:
        """Ends the client's membership."""
        ...

    def report_trouble(self, session: str, text: str, since: float, now: float) -> None:
        """Records what keeps a client from its task; an empty text says that the trouble is over."""
        ...

    def report_ptm(self, session: str, ptm: PtmIdentity) -> None:
        """Records which PTM a client asks."""
        ...

    def tick(self, now: float) -> None:
        """Closes the round or extends it, if that is due."""
        ...

    def draw_ahead(self) -> None:
        """Computes what the next step needs besides the updates, while its clients work."""
        ...

    def next_deadline(self) -> float | None:
        """Returns the time of the next tick, if nobody calls before; None if no tick is due."""
        ...

    def remove(self, client_id: str, now: float) -> None:
        """Takes a client out of the run and frees its name."""
        ...

    def members(self) -> tuple[MemberStatus, ...]:
        """Returns all clients whose names are taken."""
        ...

    def stop(self, now: float) -> None:
        """Ends the run after the open round."""
        ...

    def backup(self, path: Path) -> None:
        """Writes the run, as it is now, into a new file."""
        ...

    def status(self) -> RunStatus:
        """Returns the progress of the run, and its clients."""
        ...

    def reports(self, since_round: int) -> tuple[Report, ...]:
        """Returns the reports of the closed rounds, from round `since_round` on."""
        ...

    def result(self) -> Result:
        """Returns the best prompt so far."""
        ...

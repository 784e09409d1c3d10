"""A site's part of a run: the rounds of its clients, each of which ends with the sum of their updates.

A site is synchronous and keeps nothing on disk. Its clients keep their last updates, and the coordinator above counts
one update of the site in each round. So a relay that was killed asks again for what it had, and nothing counts twice.

Above 300 lines, because clients, rounds and the operator meet here, as in `server.coordinator`.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fedbbpt.codecs import CODECS
from fedbbpt.errors import (
    Conflict,
    FedbbptError,
    InvalidRequest,
    InvalidTensor,
    InvalidUpdate,
    NoResultYet,
    NotFound,
    RunFinished,
    SessionEvicted,
    SessionUnknown,
    UnknownRound,
)
from fedbbpt.federation.relay.names import SiteNames
from fedbbpt.limits import MAX_STATUS_CHARACTERS
from fedbbpt.methods import ClientMethod, readout_rounds
from fedbbpt.methods.replay import Told
from fedbbpt.secure.messages import FromClient
from fedbbpt.server.checks import check_hello, decode_update, keeps_ranges
from fedbbpt.server.claims import check_claims, known
from fedbbpt.server.events import RunEvents
from fedbbpt.server.hosted_run import Submission
from fedbbpt.server.round import (
    ClientsExcused,
    CloseRound,
    CohortChanged,
    ExtendRound,
    Round,
    TimePassed,
    UpdateSubmitted,
    receipt_for,
    step,
    with_received,
)
from fedbbpt.server.sessions import SessionTable
from fedbbpt.types import (
    FINALISTS,
    Forms,
    Hello,
    MemberStatus,
    Phase,
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
    merge,
)

if TYPE_CHECKING:  # few runs need `cryptography`
    from fedbbpt.server.secure_rounds import SecureRounds

log = logging.getLogger(__name__)

DEADLINE_SHARE = 0.8
"""The share of a round's time after which a site sends what it has."""
SEPARATOR = "/"
"""Between a site's name and its client's in the id with which the client draws."""


@dataclass(slots=True)
class _Client:
    hello: Hello
    lapsed: bool = False
    """Whether it missed a round, or sent an invalid update, and has not answered since. The site asks it, but does not
    wait for it."""
    trouble: str = ""
    trouble_since: float = 0.0
    dev_examples: int | None = None
    """The number of dev examples that it has measured since it joined."""


class Above(Protocol):
    """The coordinator above, for what a site sends to it. No call waits for the network."""

    def submit(self, task: Task, total: Update) -> None:
        """Answers the task with the sum of the site's updates, which is not encoded yet."""
        ...

    def report_trouble(self, text: str) -> None:
        """Says why the site has no answer."""
        ...

    def report_ptm(self, ptm: PtmIdentity) -> None:
        """Says which PTM the site's clients ask."""
        ...


class Site:
    """The clients of one site: an implementation of `server.hosted_run.HostedRun`.

    A round asks all clients and closes when all have answered, or at its deadline with those that have. Clients draw
    with the site's name before their own, so that clients of two sites with the same name draw differently.
    """

    def __init__(
        self, settings: RunSettings, method: ClientMethod, hellos: Iterable[Hello], above: Above, names: SiteNames
    ) -> None:
        """
        Args:
            settings: The settings of the run, as the coordinator above told them.
            method: The run's method, which is linear.
            hellos: The clients that the first round waits for.
            above: The coordinator above.
            names: The names of the clients, which belong to their keys.
        """
        self.settings, self._method, self._above, self._names = settings, method, above, names
        self._codec = CODECS[settings.codec]
        self.status_version, self.tasks_version = 0, 0
        self.events = RunEvents()
        self.told: Told | None = None
        self.state = RunState.RUNNING
        self._clients = {hello.client_id: _Client(hello) for hello in hellos}
        self.examples = self._examples()
        """The most training examples that the site's clients have had together."""
        self._sessions = SessionTable()
        self._ptms: dict[str, PtmIdentity] = {}
        self._task: Task | None = None
        self._round = Round(0, Phase.UPDATE, frozenset(), 1, 1.0, closed=True)
        self._updates: dict[str, Update] = {}
        self._total: Update | None = None
        self._result: Result | None = None

    # The coordinator above

    def open(self, task: Task, told: Told | None, now: float) -> None:
        """Asks the clients for a task of the site, in place of the one before.

        If it is the same as before, the coordinator above has not got the answer: it is sent again.
        """
        if self._task is not None and task.id == self._task.id:
            if self._total is not None:
                self._above.submit(self._task, self._total)
            return
        self._task, self.told, self._updates, self._total = task, told, {}, None
        seconds = DEADLINE_SHARE * task.deadline_seconds
        self._round = Round(task.id.round, task.id.phase, self._cohort(), 1, seconds, excused=self._excused())
        self._changed(tasks=True)
        self.tick(now)

    def end(self, state: RunState, result: Result | None) -> None:
        """Ends the run for the site's clients."""
        self.state, self._result = state, result
        self._round = replace(self._round, closed=True)
        self._changed(tasks=True)

    # Clients

    secure: "SecureRounds | None" = None
    """Runs with secure aggregation have no relays."""

    def take_secure(self, session: str, message: FromClient, now: float) -> None:
        """Refuses what belongs to secure aggregation. Raises InvalidRequest."""
        raise InvalidRequest("this run has no secure aggregation", where="secure", fix="an update in the clear")

    def receipt(self, client_id: str, round: int) -> Receipt | None:
        """Returns None: nobody sends masked answers."""
        return None

    def join(self, hello: Hello, now: float) -> tuple[str, RunSettings]:
        """Returns a new session's token and the settings of the run, and evicts the client's session before.

        Raises InvalidHello, ClientIdTaken, RunFinished, StoreError.
        """
        check_hello(hello, self.settings.codec)
        if self.state.ended:
            raise RunFinished("the run has ended", where=self.settings.run_id, fix="a new run")
        self._names.take(hello)
        self._clients[hello.client_id] = _Client(hello)
        self.examples = max(self.examples, self._examples())
        session = self._sessions.open(hello.client_id)
        self._enrol(now)
        return session, self.settings

    def _examples(self) -> int:
        return sum(client.hello.examples for client in self._clients.values())

    def join_all(self, hellos: Sequence[Hello], now: float) -> list[tuple[str, RunSettings] | Exception]:
        """Returns for each client what `join` returns or raises."""
        answers: list[tuple[str, RunSettings] | Exception] = []
        for hello in hellos:
            try:
                answers.append(self.join(hello, now))
            except Exception as error:
                answers.append(error)
        return answers

    def client_of(self, session: str) -> str:
        """Returns the id of the client that has this session. Raises SessionUnknown, SessionEvicted."""
        return self._sessions.client(session)

    def connected(self, session: str) -> None:
        """Records that a stream of tasks began. Raises SessionUnknown, SessionEvicted."""
        self._sessions.client(session)
        self._sessions.connected(session)
        self._round, _ = step(self._round, CohortChanged(self._cohort()))
        self._changed()

    def disconnected(self, session: str) -> None:
        """Records that a stream of tasks ended."""
        self._sessions.disconnected(session)
        self._changed()

    def task_for(self, session: str) -> Task | None:
        """Returns the client's open task; None if it has answered it, or has none.

        Raises SessionUnknown, SessionEvicted.
        """
        name, round = self._sessions.client(session), self._round
        if self._task is None or round.closed or name in round.received or name not in round.cohort:
            return None
        return replace(self._task, id=self._id(self._task, name), deadline_seconds=round.deadline_seconds)

    def _id(self, task: Task, name: str) -> TaskId:
        return replace(task.id, client_id=f"{task.id.client_id}{SEPARATOR}{name}")

    @property
    def round(self) -> int:
        """The open round, counted from 0."""
        return self._round.number

    def counts(self, round: int) -> bool:
        """Returns whether an update to the tasks of a round can count in the open one."""
        return round == self._round.number

    @property
    def forms(self) -> Forms:
        """The types and the shapes of the encoded arrays of an update of the open round."""
        if self._task is None or self._round.closed or self._round.phase is Phase.EVALUATE:
            return {}
        return self._codec.forms(self._method.sums(self._task.arrays))

    def submit_all(self, submissions: Sequence[Submission], now: float) -> list[Receipt | Exception]:
        """Takes updates, which the site forgets if it is killed before it has sent their sum."""
        answers: list[Receipt | Exception] = []
        for submission in submissions:
            try:
                answers.append(self._submit(submission))
            except Exception as error:
                answers.append(error)
        self._changed()
        self.tick(now)
        return answers

    def _submit(self, submission: Submission) -> Receipt:
        name, task_id = self._sessions.client(submission.session), submission.task_id
        if self._task is None or task_id.round > self._round.number:
            fix = "wait for the next task, which may be this one again"
            raise UnknownRound(f"{task_id.round}: the relay has not got this task", where="id.round", fix=fix)
        own = self._id(self._task, name)
        if task_id.client_id == name:  # left out, because the session names the client
            task_id = replace(task_id, client_id=own.client_id)
        if task_id.round == own.round and task_id != own:
            raise InvalidUpdate(f"{task_id}", where="id", fix=f"{own}")
        receipt = receipt_for(self._round, UpdateSubmitted(name, task_id.round))
        if receipt is Receipt.COUNTED:
            try:
                self._updates[name] = self._decode(self._task, self._clients[name], submission.update)
            except (InvalidUpdate, InvalidTensor) as error:
                self._refused(name, error)
                raise
        self._answers(name)
        if receipt is Receipt.COUNTED:
            self._round = with_received(self._round, [(name, task_id.round)])
        return receipt

    def _refused(self, name: str, error: FedbbptError) -> None:
        """Lets the round go on without a client whose update is invalid, until it sends another one."""
        log.warning("round %d: an update of client %s is refused: %s", self._round.number, name, error)
        self._clients[name].lapsed = True
        self._round, _ = step(self._round, ClientsExcused(self._excused()))

    def _decode(self, task: Task, client: _Client, update: Update) -> Update:
        measures = task.id.phase is Phase.EVALUATE
        expected = {} if measures else self._method.sums(task.arrays)
        finalists = len(task.arrays.get(FINALISTS, ())) if measures else 0
        decoded = decode_update(update, self._codec, expected, task.arrays, finalists)
        claimed = known(
            task.id,
            self._method.rules(task.arrays),
            self.settings.sampling,
            fits=readout_rounds.fits(task.arrays),
            examples=client.hello.examples,
            relay=client.hello.relay,
            dev_examples=client.dev_examples,
        )
        check_claims(decoded, claimed, in_ranges=keeps_ranges(self.settings))
        if claimed.measures:
            client.dev_examples = decoded.measurement.dev_examples
        return decoded

    def leave(self, session: str, now: float) -> None:
        """Ends the client's membership. Does nothing if the session is not valid."""
        try:
            del self._clients[self._sessions.client(session)]
        except (SessionUnknown, SessionEvicted):
            return
        self._sessions.close(session)
        self._enrol(now)

    def report_trouble(self, session: str, text: str, since: float, now: float) -> None:
        """Records what keeps a client from its task; an empty text says that the trouble is over.

        Raises SessionUnknown, SessionEvicted.
        """
        name = self._sessions.client(session)
        if not text:
            self._answers(name)
            return
        client = self._clients[name]
        client.trouble, client.trouble_since = text[:MAX_STATUS_CHARACTERS], client.trouble_since or since
        log.warning("client %s cannot work: %s", name, client.trouble)
        self._round, _ = step(self._round, ClientsExcused(self._excused()))
        if not self._round.closed and not self._round.received and self._round.missing <= self._round.excused:
            self._above.report_trouble(f"no client of the site can work; {name}: {client.trouble}")
        self._changed()
        self.tick(now)

    def report_ptm(self, session: str, ptm: PtmIdentity) -> None:
        """Passes on which PTM the clients ask, if it is the same one. Raises SessionUnknown, SessionEvicted."""
        name = self._sessions.client(session)
        self._ptms[name] = ptm
        found = set(self._ptms.values())
        if len(found) == 1:
            self._above.report_ptm(ptm)
        else:
            log.warning("the site's clients ask different PTMs: %s", ", ".join(sorted(map(str, found))))

    def _answers(self, name: str) -> None:
        client = self._clients[name]
        if client.lapsed or client.trouble:
            client.lapsed, client.trouble, client.trouble_since = False, "", 0.0
            self._round, _ = step(self._round, ClientsExcused(self._excused()))

    # Rounds

    def _cohort(self) -> frozenset[str]:
        return frozenset(n for n, client in self._clients.items() if not client.lapsed or self._sessions.live(n))

    def _excused(self) -> frozenset[str]:
        return frozenset(name for name, client in self._clients.items() if client.lapsed or client.trouble)

    def _enrol(self, now: float) -> None:
        self._round, _ = step(self._round, CohortChanged(self._cohort()))
        self._round, _ = step(self._round, ClientsExcused(self._excused()))
        self._changed(tasks=True)
        self.tick(now)

    def _changed(self, *, tasks: bool = False) -> None:
        self.status_version += 1
        self.tasks_version += tasks

    @property
    def missing(self) -> int:
        """The number of updates that the open round still waits for before its deadline; 0 if no round is open."""
        return 0 if self._round.closed else len(self._round.missing - self._round.excused)

    def draw_ahead(self) -> None:
        """Does nothing: the coordinator above makes the step."""

    def next_deadline(self) -> float | None:
        """Returns the time of the next tick, if nobody calls before; None if no tick is due."""
        return None if self._round.closed else self._round.deadline

    def tick(self, now: float) -> None:
        """Closes the round if it is due, and sends its sum; or says above that nobody has answered."""
        self._round, effects = step(self._round, TimePassed(now))
        match effects:
            case (CloseRound(clients, missing),):
                self._close(clients, missing)
            case (ExtendRound(missing),):
                waiting = ", ".join(missing) or "clients to join"
                self._above.report_trouble(f"no client of the site has answered; it waits for {waiting}")

    def _close(self, clients: Sequence[str], missing: Sequence[str]) -> None:
        assert self._task is not None, "a round is open"
        for name in missing:
            if name in self._clients:
                self._clients[name].lapsed = True
        # In the order of ids, as a coordinator adds them, so that the bits do not depend on the order of arrival.
        self._total = merge([self._updates[name] for name in clients])
        log.info("round %d: %d clients; missing: %s", self._round.number, len(clients), ", ".join(missing) or "none")
        self._above.submit(self._task, self._total)
        self._changed()

    # The operator of the site

    def remove(self, client_id: str, now: float) -> None:
        """Takes a client out of the run and frees its name. Raises NotFound."""
        known = self._clients.pop(client_id, None) is not None
        if not self._names.free(client_id) and not known:
            raise NotFound("no client has this name", where=client_id, fix="a name that `fedbbpt members list` shows")
        self._sessions.close_client(client_id)
        self._ptms.pop(client_id, None)
        self._enrol(now)

    def members(self) -> tuple[MemberStatus, ...]:
        return tuple(
            MemberStatus(
                name,
                self._sessions.live(name),
                name in self._round.received,
                client.hello.examples,
                client.trouble,
                client.trouble_since,
                not client.lapsed,
            )
            for name, client in sorted(self._clients.items())
        )

    def stop(self, now: float) -> None:
        """Raises Conflict: the run is not the relay's."""
        raise Conflict("a relay cannot stop the run", where=self.settings.run_id, fix="the coordinator above it")

    def backup(self, path: Path) -> None:
        """Raises Conflict: there is nothing to keep."""
        raise Conflict("a relay has no store", where=self.settings.run_id, fix="the coordinator above it")

    def status(self) -> RunStatus:
        """Returns the progress of the run, and its clients."""
        return RunStatus(
            run_id=self.settings.run_id,
            method=self._method.method.name,
            state=self.state,
            round=min(self._round.number, self.settings.rounds),
            rounds=self.settings.rounds,
            members=self.members(),
            last=None,
            best=self._result.measured if self._result is not None else None,
            queries=0,
            bytes_up=None,
            bytes_down=None,
        )

    def reports(self, since_round: int) -> tuple[Report, ...]:
        """Returns none: the coordinator above has them."""
        return ()

    def result(self) -> Result:
        """Raises NoResultYet before the end of the run."""
        if self._result is None:
            fix = "wait for the end of the run, or ask the coordinator above"
            raise NoResultYet("the relay has no result", where=self.settings.run_id, fix=fix)
        return self._result

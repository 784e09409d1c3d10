"""The coordinator of one run: the only writer of the run's state, and synchronous.

It knows no socket and no clock: time comes in as `now`, in seconds on any clock that does not run backwards. Its memory
follows from the store. Each change is written to the store first, then made in memory, and only then acknowledged. So a
StoreError leaves everything as it was and the same call works again later, and a coordinator that was killed continues
the same round. Not thread-safe: one caller at a time.

Above 300 lines, because clients, rounds and the operator meet here. The rules that each follows are in files of their
own: `round`, `cohort`, `reading`, `absences`, `aggregate`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.errors import (
    FedbbptError,
    InvalidHello,
    InvalidJob,
    InvalidPlugin,
    InvalidRequest,
    InvalidTensor,
    InvalidUpdate,
    NoResultYet,
    NotFound,
    RunFinished,
    SessionEvicted,
    SessionUnknown,
    StoreError,
    UnknownRound,
    UnknownRun,
)
from fedbbpt.host.audit import record_refusal
from fedbbpt.host.printable import printable
from fedbbpt.interfaces import Codec, Replay, ServerHalf, Store
from fedbbpt.limits import MAX_CLIENT_ID_CHARACTERS, MAX_LATE, MAX_STATUS_CHARACTERS
from fedbbpt.methods.replay import Told, learnt, opened
from fedbbpt.methods.stale_updates import check_moves_updates
from fedbbpt.methods.starting import started
from fedbbpt.methods.update_rules import UpdateRules
from fedbbpt.secure import fixed_point
from fedbbpt.secure.messages import FromClient, Keys, Masked, Waiting
from fedbbpt.server.absences import Absences
from fedbbpt.server.aggregate import aggregate, apply_owner_update
from fedbbpt.server.answers import Answers
from fedbbpt.server.audit import Audit, no_audit
from fedbbpt.server.cached_store import CachedStore
from fedbbpt.server.checks import check_hello, check_name, updates_add
from fedbbpt.server.cohort import CohortRules, Eligible
from fedbbpt.server.events import RunEvents, names
from fedbbpt.server.finalists import prompt_entries
from fedbbpt.server.hosted_run import Submission
from fedbbpt.server.private_rounds import PrivateRounds
from fedbbpt.server.reading import Asked, Reader, numbers
from fedbbpt.server.robust.defence import Defence
from fedbbpt.server.round import (
    ClientsExcused,
    CloseRound,
    CohortChanged,
    ExtendRound,
    Key,
    Round,
    TimePassed,
    UpdateSubmitted,
    closed_by_sum,
    receipt_for,
    step,
    with_received,
)
from fedbbpt.server.sessions import SessionTable
from fedbbpt.server.staleness import Begun, measured
from fedbbpt.types import (
    FINALISTS,
    OWNER,
    Arrays,
    EventKind,
    Forms,
    Hello,
    Measurement,
    Member,
    MemberStatus,
    Phase,
    PrivacySpent,
    PtmIdentity,
    Receipt,
    Report,
    Result,
    RunSettings,
    RunState,
    RunStatus,
    Snapshot,
    Task,
    TaskId,
    Update,
    pack,
    state_of,
)

if TYPE_CHECKING:
    from fedbbpt.server.secure_rounds import SecureRounds

log = logging.getLogger(__name__)

MAX_REASON_CHARACTERS = 300
"""What the audit log keeps of the reason of a refusal."""

STORE_RETRY_SECONDS = 1.0

Traffic = Callable[[], tuple[int, int] | None]
"""Returns the bytes up and down since the process started; None if they are not metered."""


class Coordinator:
    """Runs the rounds of one run: rounds 0 to `rounds` - 1 search, and round `rounds` measures the final prompt.

    If rounds measure their prompts on samples of the dev examples, that last round asks all clients, and measures the
    best prompts so far as well (`finalists`).

    If the model's owner takes part, it has a turn at the beginning of each round except the first. A turn is a round
    with one member, hidden from the clients, that ends with a commit of its own; the owner's `Member.counted` then says
    that the turn of this round is over.

    Each stored update is decoded once, when it arrives or when the process starts, and the method's state is restored
    once, when its round opens.
    """

    def __init__(
        self,
        *,
        method_name: str,
        method: ServerHalf[Any],
        codec: Codec,
        settings: RunSettings,
        seed: int,
        cohort: CohortRules,
        store: Store,
        traffic: Traffic = lambda: None,
        replay: Replay[Any] | None = None,
        start: npt.NDArray[np.float32] | None = None,
        privacy: PrivateRounds | None = None,
        rules: Callable[[Arrays], UpdateRules] = lambda broadcast: UpdateRules(),
        defence: Defence | None = None,
        audit: Audit = no_audit,
    ) -> None:
        """Begins a run, or continues the run in the store. A new run begins at the prompt `start` `[n]`, if any.

        With `privacy`, only noisy sums of updates are released, and the run has no more rounds than its budget pays.
        `rules` returns what every honest update to a broadcast satisfies, and `defence` combines the updates of clients
        that may lie. `audit` records joins, refusals, removals, stops, and what is spent of a privacy budget.

        Raises:
            InvalidInput: the method cannot begin at `start`, or the privacy accountant is not installed.
            StoreError: the store cannot be read.
            InvalidTensor, InvalidUpdate: an update in the store does not fit the method.
            InvalidPlugin: the method contradicts itself.
            InvalidJob: the method's updates cannot be summed by secure aggregation, or the clip norm does not suit it.
        """
        self.settings = settings
        self.status_version = 0
        """Grows with every change of `status`."""
        self.tasks_version = 0
        """Grows with every change of a client's `task_for`, except the change that the client's own update makes."""
        added = "can" if updates_add(method, codec) else "cannot"
        log.info("%s with codec %s: updates %s be summed before they are decoded", method_name, codec.name, added)
        self._method_name, self._method, self._seed = method_name, method, seed
        self._cohort, self._traffic, self._traffic_before = cohort, traffic, (0, 0)
        self._store, self._sessions = CachedStore(store), SessionTable()
        self._replay, self._start, self._privacy, self._rules = replay, start, privacy, rules
        self.events = RunEvents()
        self._defence, self._audit = defence, self.events.audited(audit)
        if start is not None:  # refused here, and not when the clients have come
            started(method, method_name, method.init(0), start)
        self.told: Told | None = None
        """The open round's broadcast for clients that replay; None if all clients get it whole."""
        self._retry_at: float | None = None
        self._absences = Absences()
        self._ptms: dict[str, PtmIdentity] = {}
        self._at_work: dict[str, int] = {}
        """The round of the last task of each client whose stream has brought it one, in an asynchronous run."""
        self._begun: dict[int, Begun] = {}
        """The earlier rounds whose tasks can still be answered."""
        threshold = settings.secure_threshold
        if threshold is not None and not method.linear:
            what = f"{method_name} cannot use secure aggregation: its server needs more than the sum of the updates"
            raise InvalidJob(what, where="privacy.aggregation", fix='"plain", or a linear method')
        self.secure = None if threshold is None else self._secure_rounds(threshold)
        """The sums of a run with secure aggregation; None if updates come in the clear."""
        if cohort.buffer:
            check_moves_updates(method, method_name)
        snapshot = self._store.snapshot
        if privacy is not None:
            account = snapshot.privacy if snapshot and snapshot.privacy else privacy.opened(settings.rounds)
            rounds, size = min(settings.rounds, privacy.most_rounds(account)), numbers(method.expected(method.init(0)))
            self.settings = replace(settings, rounds=rounds, noise=privacy.share(account, size))
            log.info(
                "differential privacy: %s; dev examples and the choice of the best round are not covered",
                privacy.spent(account),
            )
        self._reader = Reader(
            method, codec, self.settings, lambda name: self._store.members[name], rules=rules, privacy=privacy
        )
        self._round: Round
        self._state: Any
        """The method's state before the open round."""
        self._eligible: Eligible
        """The members that the open round may ask."""
        self._decoded: Answers[Key]
        """The decoded updates of the open round; the store holds the same ones, encoded."""
        self._opened: float | None
        self._begin(self._store.updates(self._answerable(snapshot)) if snapshot else {})

    def _secure_rounds(self, threshold: float) -> "SecureRounds":
        from fedbbpt.server.secure_rounds import SecureRounds  # few runs need `cryptography`

        return SecureRounds(threshold, self._cohort.quorum, self._blame)

    # Clients

    def join(self, hello: Hello, now: float) -> tuple[str, RunSettings]:
        """Returns a new session's token and the settings of the run, and evicts the client's session before.

        Raises InvalidHello, ClientIdTaken, RunFinished, StoreError.
        """
        (answer,) = self.join_all([hello], now)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def join_all(self, hellos: Sequence[Hello], now: float) -> list[tuple[str, RunSettings] | Exception]:
        """Lets clients join that arrived together, in one transaction. Returns what `join` returns or raises for each.

        An error concerns its own client only, except that a StoreError concerns all.
        """
        joining, answers = dict[str, Member](), list[Exception | None]()
        rejoined = entering = 0
        for hello in hellos:
            known = joining.get(hello.client_id) or self._store.members.get(hello.client_id)
            try:
                member = self._joining(hello, known, entering)
            except Exception as error:
                self._record_refusal(hello.client_id[:MAX_CLIENT_ID_CHARACTERS], error)
                answers.append(error)
            else:
                joining[hello.client_id] = member
                rejoined += known is not None
                entering += member.since == self._round.number and hello.client_id not in self._round.cohort
                answers.append(None)
        admitted = [hello for hello, answer in zip(hellos, answers, strict=True) if answer is None]
        try:
            for hello in admitted:
                self._record_join(hello)
            self._admit(list(joining.values()))
        except StoreError as error:
            return [answer or error for answer in answers]
        for hello in admitted:
            self._introduced(hello)
            self.events.heard(hello.client_id)
        sessions = [
            answer or (self._sessions.open(hello.client_id), self.settings)
            for hello, answer in zip(hellos, answers, strict=True)
        ]
        self.status_version += 1
        self.tasks_version += rejoined  # a stream of an evicted session may be waiting
        self.tick(now)
        return sessions

    def _joining(self, hello: Hello, known: Member | None, entering: int) -> Member:
        """Returns the member that a client becomes, `known` before, after others of which so many enter the round."""
        noise = self.settings.noise is not None
        check_hello(hello, self.settings.codec, clips_examples=self.settings.clip_norm > 0, adds_noise=noise)
        if self.state.ended:
            raise RunFinished("the run has ended", where=self.settings.run_id, fix="a new run")
        check_name(hello, known.client_key if known is not None else "")
        entry = self._entry_round(entering)
        since = min(known.since, entry) if known is not None and self._takes_part(known) else entry
        counted = known.counted if known is not None else None
        if hello.relay and self._defence is not None:
            what, fix = "a sum hides whose update is a lie", 'clients without a relay, or cohort.robust = "none"'
            raise InvalidHello(what, where="relay", fix=fix)
        return Member(hello.client_id, hello.client_key, hello.examples, since, counted=counted)

    def _record_join(self, hello: Hello) -> None:
        if self._sessions.has(hello.client_id):
            self._audit("eviction", hello.client_id, round=self._round.number)
        self._audit("join", hello.client_id, round=self._round.number, examples=hello.examples, relay=hello.relay)

    def _introduced(self, hello: Hello) -> None:
        """Remembers what a client that has joined says of itself. It may have other dev examples than before."""
        self._reader.introduced(hello)
        self._answers(hello.client_id)

    def client_of(self, session: str) -> str:
        """Returns the id of the client that has this session. Raises SessionUnknown, SessionEvicted."""
        return self._sessions.client(session)

    def connected(self, session: str) -> None:
        """Records that a stream of tasks began. Raises SessionUnknown, SessionEvicted."""
        client_id = self._sessions.client(session)
        self._at_work.pop(client_id, None)
        self._sessions.connected(session)
        self.events.heard(client_id)
        self.status_version += 1

    def disconnected(self, session: str) -> None:
        """Records that a stream of tasks ended; `connected` has recorded its beginning."""
        self._sessions.disconnected(session)
        client_id = self._sessions.client_or_none(session)
        if client_id is not None and not self.state.ended and not self._sessions.live(client_id):
            self.events.heard(client_id)
            self.events.add(EventKind.DISCONNECTION, client_id, round=self._round.number)
        self.status_version += 1

    def task_for(self, session: str) -> Task | None:
        """Returns the client's open task; None if it has answered it, or has none.

        In an asynchronous run, a client that is at work on an earlier task gets another one only when it has answered
        that, or opened another stream.

        Raises SessionUnknown, SessionEvicted.
        """
        client_id = self._sessions.client(session)
        if self._round.closed or client_id in self._round.received or client_id not in self._round.cohort:
            return None
        if self._cohort.buffer and self._at_work.setdefault(client_id, self._round.number) != self._round.number:
            return None
        task_id = TaskId(self.settings.run_id, self._round.number, client_id, self._round.phase)
        return Task(task_id, self._task_seed, self._broadcast, self._cohort.deadline_seconds)

    @property
    def round(self) -> int:
        """The open round, counted from 0."""
        return self._round.number

    def counts(self, round: int) -> bool:
        """Returns whether an update to the tasks of a round can count in the open one."""
        return self._round.number - self._round.staleness <= round <= self._round.number

    @property
    def forms(self) -> Forms:
        """The types and the shapes of the encoded arrays of an update of the open round."""
        return {} if self._round.closed else self._reader.forms

    def submit(self, session: str, task_id: TaskId, update: Update, now: float) -> Receipt:
        """Takes a client's update, encoded as it came. A receipt COUNTED survives a crash of this process.

        Raises SessionUnknown, SessionEvicted, UnknownRun, UnknownRound, InvalidUpdate, InvalidTensor, StoreError.
        """
        (answer,) = self.submit_all([Submission(session, task_id, update)], now)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit_all(self, submissions: Sequence[Submission], now: float) -> list[Receipt | Exception]:
        """Takes updates that arrived together, in one transaction: group commit.

        Returns the answer to each: a receipt, or the error that `submit` would raise. An error, even that of a bug in a
        method or a codec, concerns its own update only, except that a StoreError concerns all.
        """
        stored, decoded = list[tuple[TaskId, Update]](), dict[Key, Update]()
        answers: list[Receipt | Exception] = []
        for submission in submissions:
            try:
                client_id, task_id = self._sessions.client(submission.session), submission.task_id
                self._check_task_id(task_id, client_id)
                counted = self._store.members[client_id].counted
                receipt = receipt_for(self._round, UpdateSubmitted(client_id, task_id.round, counted), decoded)
                if receipt is Receipt.COUNTED:
                    key = client_id, task_id.round
                    decoded[key] = self._reader.read(key, submission.update, checked=task_id)
                    stored.append((task_id, submission.update))
                answers.append(receipt)
            except (InvalidUpdate, InvalidTensor) as error:
                self._refused(submission.session, error, now)
                answers.append(error)
            except Exception as error:
                answers.append(error)
        try:
            if stored:
                self._keep(with_received(self._round, decoded), stored, decoded, now)
            for submission, answer in zip(submissions, answers, strict=True):
                if not isinstance(answer, Exception):
                    self.events.answered(submission.task_id.client_id)
                    self._answers(submission.task_id.client_id)
                    self._readmit(submission.task_id.client_id)
                    self._is_free(submission.task_id)
        except StoreError as error:
            return [answer if isinstance(answer, Exception) else error for answer in answers]
        self.status_version += 1
        self.tick(now)
        return answers

    def take_secure(self, session: str, message: FromClient, now: float) -> None:
        """Takes what a client says in secure aggregation. The sum of a round is stored before anybody has a receipt.

        Raises SessionUnknown, SessionEvicted, InvalidRequest.
        """
        client_id = self._sessions.client(session)
        if self.secure is None:
            raise InvalidRequest("this run has no secure aggregation", where="secure", fix="an update in the clear")
        version = self.secure.version
        self.events.heard(client_id)
        if isinstance(message, Masked | Waiting):
            self.events.answered(client_id)
            self._answers(client_id)
            if message.round < self._round.number:
                self._readmit(client_id)
        self.secure.take(client_id, message)
        self.tasks_version += self.secure.version != version
        if isinstance(message, Keys) or self.secure.version != version:
            self.tick(now)

    def _blame(self, client_id: str) -> None:
        """Records that a client has revealed wrong shares, which it changed, or others sealed wrongly for it."""
        what = "wrong shares in secure aggregation, changed by it or sealed so for it"
        error = InvalidRequest(what, where="reveal.shares", fix="those in its inbox")
        self._record_refusal(client_id, error, round=self._round.number)

    def _record_refusal(self, client_id: str, error: Exception, **fields: int) -> None:
        """Records that a client was refused, and why."""
        record_refusal(self._audit, client_id, error, reason=str(error)[:MAX_REASON_CHARACTERS], **fields)

    def receipt(self, client_id: str, round: int) -> Receipt | None:
        """Returns what became of a client's masked answer to a round; None while the round is open."""
        if not self.state.ended and round >= self._round.number:
            return None
        member = self._store.members.get(client_id)
        counted = member is not None and member.counted is not None and member.counted >= round
        return Receipt.COUNTED if counted else Receipt.TOO_LATE

    def _keep(
        self, following: Round, stored: Sequence[tuple[TaskId, Update]], decoded: Mapping[Key, Update], now: float
    ) -> None:
        """Adopts a round with further updates, and makes them durable.

        If they complete the round, it is closed. Then the state that follows from them is stored instead of them, which
        saves a commit, and most rounds with few clients have no other.
        """
        before, snapshot = self._round, self._store.snapshot
        self._round = following
        self._decoded.add(decoded)
        try:
            if not self._closes(now):
                self._store.put_updates(stored)
                self._decoded.trim(decoded)
        except BaseException:
            if self._store.snapshot is snapshot:
                self._round = before
                self._decoded.remove(decoded)
            raise

    def _closes(self, now: float) -> bool:
        """Closes the round if it is due. Returns whether it was due, and the store did not fail."""
        _, effects = step(self._round, TimePassed(now))
        if not any(isinstance(effect, CloseRound) for effect in effects):
            return False
        try:
            self._advance(now)
        except StoreError as error:
            log.error("%s; storing the updates alone", error)
            return False
        return True

    def _readmit(self, client_id: str) -> None:
        """Lets a client take part again that lapsed because it was slow: its late answer shows that it is alive."""
        member = self._store.members[client_id]
        if not self._takes_part(member):
            self._admit([replace(member, since=self._entry_round(), until=None)])

    def _is_free(self, answered: TaskId) -> None:
        """Lets a client that answered an earlier task of an asynchronous run have the open one at once."""
        if self._at_work.get(answered.client_id) == answered.round:
            del self._at_work[answered.client_id]
            self.tasks_version += answered.round < self._round.number

    def leave(self, session: str, now: float) -> None:
        """Ends the client's membership. Does nothing if the session is not valid. Raises StoreError."""
        try:
            client_id = self._sessions.client(session)
        except (SessionUnknown, SessionEvicted):
            return
        until = self._round.number + (client_id in self._round.received)
        self._audit("leave", client_id, round=self._round.number)
        self.events.forget(client_id)
        self._admit([replace(self._store.members[client_id], until=until)])
        self._sessions.close(session)
        self.tasks_version += 1
        self.tick(now)

    def report_trouble(self, session: str, text: str, since: float, now: float) -> None:
        """Records what keeps a client from its task; an empty text says that the trouble is over.

        Args:
            session: the client's session.
            text: what the client's log says.
            since: the time now, in seconds since 1970, for people to read.
            now: the time now, on the clock of the other methods.

        Raises:
            SessionUnknown, SessionEvicted: the session is not valid.
        """
        client_id = self._sessions.client(session)
        self.events.heard(client_id)
        if not text:
            if self._absences.in_trouble(client_id):
                self.events.add(EventKind.RECOVERY, client_id, round=self._round.number)
            self._answers(client_id)
            return
        if not self._absences.in_trouble(client_id):
            self.events.add(EventKind.TROUBLE, client_id, round=self._round.number, text=printable(text))
        self._absences.report(client_id, printable(text[:MAX_STATUS_CHARACTERS]), since)
        log.warning("client %s cannot work: %s", client_id, text[:MAX_STATUS_CHARACTERS])
        self._excuse()
        self.status_version += 1
        self.tick(now)

    def report_ptm(self, session: str, ptm: PtmIdentity) -> None:
        """Records which PTM a client asks. Raises SessionUnknown, SessionEvicted."""
        client_id = self._sessions.client(session)
        others = {each for each in self._ptms.values() if each.revision != ptm.revision}
        if others and self._ptms.get(client_id) != ptm:
            log.warning("client %s asks %s, and others ask %s", client_id, ptm, ", ".join(map(str, sorted(others))))
        self._ptms[client_id] = ptm

    @property
    def ptm(self) -> PtmIdentity | None:
        """The PTM that all clients ask; None if they ask different ones, or if none has said so since the start."""
        found = set(self._ptms.values())
        return found.pop() if len(found) == 1 else None

    def _answers(self, client_id: str) -> None:
        """Waits for the client again: it has answered, or joined."""
        if self._absences.back(client_id):
            self._excuse()
            self.status_version += 1

    def _excuse(self) -> None:
        self._round, _ = step(self._round, ClientsExcused(self._absences.excused))

    def _ask_again(self, now: float) -> None:
        """Lets clients that lapsed but have a stream take part again, each once in the time that a round may take."""
        number, asked = self._entry_round(), list[Member]()
        for client_id in self._absences.due(now):
            member = self._store.members[client_id]
            if self._sessions.live(client_id) and not self._takes_part(member):
                asked.append(replace(member, since=number, until=None))
        if asked:
            self._store.put_members(asked)
            self._enrol(asked)

    def _summed(self, keys: Sequence[Key]) -> Update:
        """Returns the sum of the open round in secure aggregation: that of masked answers, or that of a simulation."""
        assert self.secure is not None, "secure aggregation"
        if (total := self.secure.total) is not None:
            return fixed_point.decoded(total.values, self._reader.layout)[0]
        number = self._round.number
        counted = self._decoded.counted(keys, lambda: self._store.updates(range(number, number + 1)))
        vectors = [each.arrays[fixed_point.VALUES].view(np.uint64) for each in counted]
        return fixed_point.decoded(fixed_point.summed(vectors), self._reader.layout)[0]

    def _refused(self, session: str, error: FedbbptError, now: float) -> None:
        """Lets the round go on without a client whose update is invalid, until it sends another one."""
        client_id = self._sessions.client(session)
        log.warning("round %d: an update of client %s is refused: %s", self._round.number, client_id, error)
        self._record_refusal(client_id, error, round=self._round.number)
        self._absences.miss([client_id], now + self._cohort.deadline_seconds)
        self._excuse()

    def _check_task_id(self, task_id: TaskId, client_id: str) -> None:
        if task_id.run_id != self.settings.run_id:
            raise UnknownRun(f"{task_id.run_id!r}", where="id.run_id", fix=f"{self.settings.run_id!r}")
        last = self._round.number - self._round.closed
        if not 0 <= task_id.round <= last:
            raise UnknownRound(f"{task_id.round}", where="id.round", fix=f"up to {last}")
        if task_id.client_id != client_id:
            raise InvalidUpdate(f"{task_id.client_id!r}", where="id.client_id", fix=f"the session's own, {client_id!r}")
        phase = self._phase(task_id.round, self._is_owner(client_id))
        if task_id.phase is not phase:
            raise InvalidUpdate(f"{task_id.phase}", where="id.phase", fix=f"{phase}")

    # Membership

    def _takes_part(self, member: Member) -> bool:
        return member.until is None or member.until > self._round.number

    def _entry_round(self, entering: int = 0) -> int:
        """Returns the next round, or the open one if it is asynchronous, or short of a quorum.

        `entering` clients enter the open round as well, besides those of its cohort.
        """
        number, there = self._round.number, len(self._round.cohort) + entering
        if self._cohort.buffer:
            return number
        return number + (self.state is RunState.RUNNING and there >= self._round.quorum)

    def _admit(self, members: Sequence[Member]) -> None:
        self._store.put_members(members)
        self._enrol(members)

    def _enrol(self, changed: Sequence[Member]) -> None:
        """Asks the changed members as well if they take part in the open round, and others in place of those that left.

        It looks at the changed members only, since thousands may join one after the other.
        """
        before, owners_turn = self._round, self._round.phase is Phase.TUNE
        asked = [member for member in changed if self._is_owner(member.client_id) == owners_turn]
        if any([self._eligible.put(member) for member in asked]) and not before.closed:
            self._round, _ = step(before, CohortChanged(self._eligible.cohort()))
            self.tasks_version += self._round.cohort != before.cohort
        self.status_version += 1

    def _eligible_in(self, number: int, owners_turn: bool) -> Eligible:
        members = [m for m in self._store.members.values() if self._is_owner(m.client_id) == owners_turn]
        return Eligible(
            members, self._seed, number, None if self._asks_all(number, owners_turn) else self._cohort.asked
        )

    def _asks_all(self, number: int, owners_turn: bool) -> bool:
        """Returns whether a round needs everybody: the final choice on all dev examples does."""
        return self._samples and not self._cohort.buffer and self._phase(number, owners_turn) is Phase.EVALUATE

    def _is_owner(self, client_id: str) -> bool:
        return self._cohort.owner and client_id == OWNER

    def _owners_turn(self, number: int) -> bool:
        owner = self._store.members.get(OWNER)
        return self._cohort.owner and number > 0 and (owner is None or owner.counted != number)

    # Rounds

    def tick(self, now: float) -> None:
        """Starts the run, closes the round or extends it, if that is due. Call it at the start and at `next_deadline`.

        If the store fails, the next tick tries again: the round waits, and its clients have their receipts.
        """
        self._retry_at = None
        try:
            self._start_when_enough()
            self._advance(now)
            self._ask_again(now)
            if self.secure is not None:
                self._see_secure()
        except StoreError as error:
            log.error("%s; trying again in %g s", error, STORE_RETRY_SECONDS)
            self._retry_at = now + STORE_RETRY_SECONDS

    def _see_secure(self) -> None:
        """Lets secure aggregation go on with the clients of the open round."""
        assert self.secure is not None, "secure aggregation"
        version = self.secure.version
        self.secure.see(self._round.cohort, self._round.excused)
        self.tasks_version += self.secure.version != version

    @property
    def missing(self) -> int:
        """The number of updates that the open round still waits for before its deadline; 0 if no round is open."""
        if self._round.closed:
            return 0
        if self._round.excused:
            clients = len(self._round.missing - self._round.excused)
        else:
            clients = len(self._round.cohort) - len(self._round.received)
        return clients if self._round.enough is None else min(clients, self._round.enough - self._round.updates)

    def draw_ahead(self) -> None:
        """Computes what the next step needs besides the updates, while its clients work."""
        if self._replay is not None and self.told is not None:
            self._replay.draw_ahead(self._broadcast, self._task_seed)

    def next_deadline(self) -> float | None:
        """Returns the time of the next tick, if no client or operator calls before; None if no tick is due."""
        if self._retry_at is not None:
            return self._retry_at
        return None if self._round.closed else self._round.deadline

    def _start_when_enough(self) -> None:
        if self._store.snapshot is not None or len(self._eligible) < self._cohort.clients:
            return
        owner = self._store.members.get(OWNER)
        if self._cohort.owner and (owner is None or not self._takes_part(owner)):
            return
        self._store.commit(self._first_snapshot())
        self.events.add(EventKind.START, round=0, text=f"{len(self._eligible)} clients have joined")
        self._begin({})

    def _first_snapshot(self) -> Snapshot:
        state = self._method.init(seeds.derive(self._seed, "server"))
        if self._start is not None:
            state = started(self._method, self._method_name, state, self._start)
        account = None if self._privacy is None else self._privacy.opened(self.settings.rounds)
        return Snapshot(0, pack(state), privacy=account)

    def _answerable(self, snapshot: Snapshot) -> range:
        """Returns the rounds whose tasks can be answered in the open one."""
        return range(snapshot.round - len(snapshot.earlier), snapshot.round + 1)

    def _reopened(self, snapshot: Snapshot) -> dict[int, Begun]:
        """Returns the earlier rounds whose tasks can still be answered."""
        found = dict[int, Begun]()
        for number, earlier in zip(self._answerable(snapshot), snapshot.earlier, strict=False):
            if number not in self._begun:
                state, seed = self._method.restore(earlier.state), seeds.derive(self._seed, "task", number)
                self._begun[number] = Begun(state, self._method.broadcast(state, seed), seed)
            found[number] = self._begun[number]
        return found

    def _begin(self, stored: Mapping[Key, Update]) -> None:
        """Opens the round that follows from the store, with the updates that the store holds of it.

        If the run is not running, the round is a closed one, which takes no updates.
        """
        snapshot, running = self._store.snapshot, self.state is RunState.RUNNING
        number = snapshot.round if snapshot else 0
        owners_turn = self._owners_turn(number)
        answered = [key for key in stored if self._is_owner(key[0]) == owners_turn]
        received = frozenset(client_id for client_id, round in answered if round == number)
        self._begun = self._reopened(snapshot) if snapshot and running else {}
        self._task_seed = seeds.derive(self._seed, "task", number)
        self._state = None
        self._broadcast: Arrays = {}
        if snapshot and running:
            self._state = self._method.restore(snapshot.state)
            self._broadcast = self._method.broadcast(self._state, self._task_seed)
        phase = self._phase(number, owners_turn)
        if snapshot and running and phase is Phase.EVALUATE:
            self._broadcast = {**self._broadcast, **self._finalists(snapshot)}
        self._eligible = self._eligible_in(number, owners_turn)
        self._round = Round(
            number=number,
            phase=phase,
            cohort=self._eligible.cohort() | received,
            quorum=1 if owners_turn else self._cohort.quorum,
            deadline_seconds=self._cohort.deadline_seconds,
            received=received,
            closed=not running,
            enough=None if owners_turn or self._asks_all(number, owners_turn) else self._cohort.enough,
            staleness=len(self._begun),
            stale=frozenset(key for key in answered if key[1] < number),
        )
        self.told = None
        if self._replay is not None and self._state is not None and FINALISTS not in self._broadcast:
            self.told = opened(self._replay, self._state, self._broadcast, self._task_seed)
        self._reader.open(Asked(number, phase, self._state, self._broadcast, self._begun))
        counted = ((key, stored[key]) for key in answered if running)
        summed = self._method.linear and self._defence is None
        self._decoded = Answers(counted, self._reader.read, linear=summed)
        self._opened = None
        self.events.opened()
        if self.secure is not None:
            self.secure.open(number if running and snapshot else None, self._reader.layout.length)
        self.status_version += 1
        self.tasks_version += 1

    def _phase(self, number: int, owner: bool) -> Phase:
        if owner:
            return Phase.TUNE
        snapshot = self._store.snapshot
        stopped_after = snapshot.stopped_after if snapshot and self._samples else None
        last = self.settings.rounds if stopped_after is None else stopped_after
        return Phase.UPDATE if number < last else Phase.EVALUATE

    @property
    def _samples(self) -> bool:
        """Whether rounds measure prompts on a sample of the dev examples, so that a last round has to choose."""
        return self.settings.sampling.batch_examples > 0

    def _finalists(self, snapshot: Snapshot) -> Arrays:
        """Returns the array of the prompts that the last round compares with the broadcast one, if there are any."""
        if not (self._samples and snapshot.finalists):
            return {}
        if FINALISTS in self._broadcast:
            what, fix = f"the method broadcasts {FINALISTS!r}, the name of a run's best prompts", "another name"
            raise InvalidPlugin(what, where=self._method_name, fix=fix)
        return {FINALISTS: np.stack([result.z for result in snapshot.finalists])}

    def _advance(self, now: float) -> None:
        while True:
            self._opened = now if self._opened is None else self._opened
            if self.secure is not None and (total := self.secure.total) is not None:
                following, effects = closed_by_sum(self._round, total.clients)
            else:
                following, effects = step(self._round, TimePassed(now))
            match effects:
                case (CloseRound() as close,):
                    self._close(close, now - self._opened)
                    self._absences.miss(close.missing, now + self._cohort.deadline_seconds)
                    self._excuse()
                case (ExtendRound(missing),):
                    if self.secure is not None and self.secure.time_is_up():
                        self._round = following
                    else:
                        self._extend(missing, following)
                case _:
                    self._round = following
                    return

    def _close(self, close: CloseRound, seconds: float) -> None:
        stored, members, number = self._store.snapshot, self._store.members, self._round.number
        assert stored is not None, "a round is open"
        snapshot = stored
        keys = sorted([*((client_id, number) for client_id in close.clients), *close.stale])
        updates: Sequence[Update]
        if self.secure is not None:
            updates = [self._summed(keys)]
        else:
            updates = self._decoded.counted(keys, lambda: self._store.updates(self._answerable(snapshot)))
        # Sorted, so that the last round of a client is the one that stays.
        counted = [replace(members[client_id], counted=round) for client_id, round in dict(keys).items()]
        if self._round.phase is Phase.TUNE:
            tuned = apply_owner_update(self._method, self._state, snapshot, updates, self._task_seed)
            self._store.commit(tuned, counted)
            log.info("round %d: the owner has tuned the prompt", number)
            opened_at = self._opened
            self._begin_after(updates)
            self._opened = opened_at  # the round's time and bytes include the owner's turn
            return
        if self._privacy is not None and snapshot.privacy is not None and self._round.phase is Phase.UPDATE:
            released, account = self._privacy.released(snapshot.privacy, updates)
            updates, snapshot = [released], replace(snapshot, privacy=account)
            self._audit("privacy", "", round=number, epsilon=self._privacy.spent(account).epsilon)
        if self._defence is not None:
            updates = self._defence.applied(
                updates, self._broadcast, self._rules(self._broadcast), self._round.phase, linear=self._method.linear
            )
        traffic = self._traffic()
        following = aggregate(
            self._method,
            self._state,
            snapshot,
            updates,
            clients=len(keys),
            staleness=sum(number - round for _, round in keys) / len(keys),
            phase=self._round.phase,
            seed=self._task_seed,
            seconds=seconds,
            traffic=traffic and (traffic[0] - self._traffic_before[0], traffic[1] - self._traffic_before[1]),
            window=self._cohort.window,
            sampling=self.settings.sampling,
            entries=prompt_entries(self.settings.space),
            spent=self._spent(snapshot),
        )
        if self._cohort.buffer and self._round.phase is Phase.UPDATE:
            following = self._with_earlier(snapshot, following, keys)
        # A client that is at work on an earlier task of an asynchronous run has missed nothing.
        gone = [each for each in close.missing if not (self._cohort.buffer and self._sessions.live(each))]
        lapsed = [replace(members[client_id], until=number + 1) for client_id in gone]
        self._store.commit(following, counted + lapsed)
        self._traffic_before = traffic or (0, 0)
        self.events.add(
            EventKind.ROUND, round=number, text=f"closed with {len(counted)} answer{'s' * (len(counted) != 1)}"
        )
        self.events.missed(close.missing, number)
        if (spent := self._spent(following)) is not None:
            log.info("round %d: %s", number, spent)
        log.info(
            "round %d: closed with %d clients; missing: %s", number, len(counted), ", ".join(close.missing) or "none"
        )
        self._begin_after(updates)
        if self.state.ended:
            self.events.add(EventKind.END, round=number, text=str(self.state))

    def _spent(self, snapshot: Snapshot | None) -> PrivacySpent | None:
        """Returns what a run with a privacy budget has spent until a snapshot."""
        if self._privacy is None or snapshot is None or snapshot.privacy is None:
            return None
        return self._privacy.spent(snapshot.privacy)

    def _with_earlier(self, before: Snapshot, after: Snapshot, keys: Sequence[Key]) -> Snapshot:
        """Returns the snapshot after a round of an asynchronous run, with the rounds that it leaves open."""
        found: dict[int, list[Measurement]] = {}
        for key in keys:
            found.setdefault(key[1], []).append(self._reader.measured[key])
        searches = self._phase(after.round, owner=False) is Phase.UPDATE
        ended = state_of(after, self.settings.rounds).ended
        return measured(
            before,
            after,
            found,
            lambda round: self._method.prompt(self._begun[round].state if round in self._begun else self._state),
            kept=self._cohort.max_staleness if searches and not ended else 0,
            needed=self._cohort.quorum,
            sampling=self.settings.sampling,
            entries=prompt_entries(self.settings.space),
        )

    def _begin_after(self, updates: Sequence[Update]) -> None:
        """Opens the round after the one that these updates closed, and finds the news for clients that replay."""
        told = self.told
        self._begin({})
        if self._replay is not None and told is not None and self.told is not None:
            self.told = learnt(self._replay, told, self.told, self._state, self._broadcast, updates)

    def _extend(self, missing: tuple[str, ...], following: Round) -> None:
        """Opens the round again for all clients that have a stream, also for those that joined after it was opened.

        Clients without a stream lose their places. A round that was to be the last of a stopped run is given up
        instead.
        """
        snapshot, members, number = self._store.snapshot, self._store.members, self._round.number
        assert snapshot is not None, "a round is open"
        received, quorum = self._round.updates, self._round.quorum
        answers = f"{received} of {quorum} answers by its deadline; missing: {', '.join(missing) or 'none'}"
        if snapshot.stopped_after is not None:
            log.warning("round %d: %s; given up, since the run was stopped", number, answers)
            self._store.commit(replace(snapshot, stopped_after=number - 1))
            self._begin({})
            return
        gone = [replace(members[m], until=number) for m in missing if not self._sessions.live(m)]
        waiting = [m for m in members.values() if m.since > number or not self._takes_part(m)]
        there = [replace(m, since=number, until=None) for m in waiting if self._sessions.live(m.client_id)]
        self._store.commit(snapshot, gone + there)
        self._round = following
        self.events.missed(missing, number)
        self.events.opened()
        self._enrol(gone + there)
        asked = ", ".join(sorted(self._round.missing)) or "nobody; it waits for clients to join"
        log.warning("round %d: %s; opened again for: %s", number, answers, asked)
        again = f"{received} of {quorum} answers by the deadline; waiting for {names(self._round.missing) or 'clients'}"
        self.events.add(EventKind.EXTENSION, round=number, text=again)

    # The operator

    def remove(self, client_id: str, now: float) -> None:
        """Takes a client out of the run and frees its name for another one. Its counted updates stay counted.

        Raises NotFound, StoreError.
        """
        known = self._store.members.get(client_id)
        if known is None or not known.client_key:
            raise NotFound("no client has this name", where=client_id, fix="a name that `fedbbpt members list` shows")
        until = self._round.number + (client_id in self._round.received)
        self._audit("removal", client_id, round=self._round.number)
        self._admit([replace(known, client_key="", until=min(until, known.until or until))])
        self._sessions.close_client(client_id)
        self._answers(client_id)
        self._ptms.pop(client_id, None)
        self.events.forget(client_id)
        if self.secure is not None:
            self.secure.forget(client_id)
        self.tasks_version += 1  # its stream ends
        self.tick(now)

    def members(self) -> tuple[MemberStatus, ...]:
        """Returns all clients whose names are taken, also those that no longer take part."""
        named = sorted(self._store.members.items())
        return tuple(self._member_status(member) for _, member in named if member.client_key)

    def _member_status(self, member: Member) -> MemberStatus:
        name = member.client_id
        trouble, since = self._absences.trouble(name)
        live, submitted = self._sessions.live(name), name in self._round.received
        takes_part, (heard, late) = self._takes_part(member), self.events.times_of(name)
        return MemberStatus(name, live, submitted, member.examples, trouble, since, takes_part, heard, late)

    @property
    def state(self) -> RunState:
        """Whether the run waits for clients, is running, or has ended."""
        return state_of(self._store.snapshot, self.settings.rounds)

    def stop(self, now: float) -> None:
        """Ends the run after the open round, or at once if none is open. Idempotent. Raises StoreError.

        If rounds measure on samples, one more follows, which chooses among the best prompts.
        """
        snapshot = self._store.snapshot
        if snapshot is None:
            self._audit("stop", "", round=self._round.number)
            self._store.commit(replace(self._first_snapshot(), stopped_after=-1))
            self._begin({})
        elif snapshot.stopped_after is None and snapshot.round < self.settings.rounds:
            self._audit("stop", "", round=self._round.number)
            self._store.commit(replace(snapshot, stopped_after=snapshot.round + self._samples))
            self.status_version += 1
        self.tick(now)

    def backup(self, path: Path) -> None:
        """Writes the run, as it is now, into a new file. Raises FileExistsError, StoreError."""
        self._store.backup(path)

    def status(self) -> RunStatus:
        """Returns the progress of the run, and the clients that take part, or would if they were not in trouble."""
        snapshot, traffic = self._store.snapshot, self._traffic()
        members = sorted(
            (m for m in self._store.members.values() if self._takes_part(m) or self._absences.in_trouble(m.client_id)),
            key=lambda member: member.client_id,
        )
        return RunStatus(
            run_id=self.settings.run_id,
            method=self._method_name,
            state=self.state,
            round=min(self._round.number, self.settings.rounds),
            rounds=self.settings.rounds,
            members=tuple(map(self._member_status, members)),
            last=snapshot.reports[-1] if snapshot and snapshot.reports else None,
            best=snapshot.finalists[0].measured if snapshot and snapshot.finalists else None,
            queries=snapshot.queries if snapshot else 0,
            bytes_up=traffic[0] if traffic else None,
            bytes_down=traffic[1] if traffic else None,
            privacy=self._spent(snapshot),
            clients=self._cohort.clients,
            quorum=self._round.quorum,
            round_since=0.0 if self._round.closed else self.events.round_since,
            deadline_seconds=self._round.deadline_seconds,
            late=tuple(islice(self._late(), MAX_LATE)),
        )

    def _late(self) -> Iterator[MemberStatus]:
        """Yields the clients that lapsed because they missed a deadline, the first one first."""
        for client_id in self.events.late:
            member = self._store.members.get(client_id)
            if member is not None and not self._takes_part(member) and not self._absences.in_trouble(client_id):
                yield self._member_status(member)

    @property
    def enough(self) -> int | None:
        """The number of answers with which the open round closes at once; None if it waits for all."""
        return self._round.enough

    @property
    def prompt(self) -> npt.NDArray[np.float32]:
        """The prompt z `[n]` that the open round began with."""
        return self._method.prompt(self._state)

    def reports(self, since_round: int) -> tuple[Report, ...]:
        """Returns the reports of the closed rounds, from round `since_round` on."""
        snapshot = self._store.snapshot
        return snapshot.reports[max(0, since_round) :] if snapshot else ()

    def result(self) -> Result:
        """Returns the best prompt so far. Raises NoResultYet before the first round has closed."""
        if not self.finalists:
            raise NoResultYet("no round has been measured", where=self.settings.run_id, fix="wait for the first round")
        return self.finalists[0]

    @property
    def finalists(self) -> tuple[Result, ...]:
        """The best prompts so far, best first: one, or several if rounds measure on samples of the dev examples."""
        return self._store.snapshot.finalists if self._store.snapshot else ()

"""The coordinator of one run: the one synchronous writer of its truth.

It knows no socket and no clock: time comes in as `now`, in seconds on any clock that does not run backwards. Whatever
it holds in memory follows from what the store holds; the store is written first, memory is changed when that succeeded,
and only then is anybody told. So a StoreError leaves everything as it was, and the same call works again later; and a
coordinator that was killed goes on with the same round. Not thread-safe: one caller at a time.

Above 300 lines: the one place where clients, rounds and the operator meet. What each decides lies in its own file.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fedbbpt import seeds
from fedbbpt.errors import (
    ClientIdTaken,
    InvalidUpdate,
    NoResultYet,
    RunFinished,
    SessionEvicted,
    SessionUnknown,
    StoreError,
    UnknownRound,
    UnknownRun,
)
from fedbbpt.interfaces import Codec, RunSettings, ServerHalf, Store
from fedbbpt.server.aggregate import aggregate, tuned
from fedbbpt.server.checks import check_hello, check_update
from fedbbpt.server.cohort import CohortSettings, sample
from fedbbpt.server.ledger import Ledger
from fedbbpt.server.round import Acknowledge, Close, Enrolled, Extend, Keep, Round, Submitted, Tick, step
from fedbbpt.server.sessions import Sessions
from fedbbpt.types import (
    OWNER,
    Arrays,
    Hello,
    Member,
    MemberStatus,
    Phase,
    Receipt,
    Report,
    Result,
    RunState,
    RunStatus,
    Snapshot,
    Task,
    TaskId,
    Update,
    pack,
    state_of,
)

log = logging.getLogger(__name__)

STORE_RETRY_SECONDS = 1.0

Traffic = Callable[[], tuple[int, int] | None]
"""Bytes up and down since the process started; None where nobody counts."""


class Coordinator:
    """Rounds 0 to rounds - 1 search, round `rounds` measures what the search ended with, then the run is finished.

    Where the model's owner takes part, it has a turn at the beginning of each round but the first: a round of one, of
    which the clients hear nothing, and which ends with a commit of its own. That the turn is over shows in `counted`.
    """

    def __init__(
        self,
        *,
        method_name: str,
        method: ServerHalf[Any],
        codec: Codec,
        settings: RunSettings,
        seed: int,
        cohort: CohortSettings,
        store: Store,
        traffic: Traffic = lambda: None,
    ) -> None:
        """Begins the run, or goes on with the one that the store holds. Raises StoreError."""
        self.settings = settings
        self.version = 0
        """Grows whenever `status` changed."""
        self.turn = 0
        """Grows whenever `task_for` answers somebody differently, but for having submitted."""
        self._method_name, self._method, self._codec, self._seed = method_name, method, codec, seed
        self._cohort, self._traffic, self._traffic_before = cohort, traffic, (0, 0)
        self._ledger, self._sessions = Ledger(store), Sessions()
        self._retry_at: float | None = None
        snapshot = self._ledger.snapshot
        self._round: Round
        self._opened: float | None
        self._begin(frozenset(self._ledger.updates(snapshot.round)) if snapshot else frozenset())

    # Clients

    def join(self, hello: Hello, now: float) -> tuple[str, RunSettings]:
        """A new session's token, and what the client must know; the client's session before is evicted.

        Raises InvalidHello, ClientIdTaken, RunFinished, StoreError.
        """
        check_hello(hello, self.settings.codec)
        if self.state.ended:
            raise RunFinished("the run has ended", where=self.settings.run_id, fix="a new run")
        known = self._ledger.members.get(hello.client_id)
        if known is not None and not secrets.compare_digest(known.client_key.encode(), hello.client_key.encode()):
            # Nobody is shut out of a name whose owner is gone: its key may have been lost with its disk.
            if self._sessions.live(hello.client_id):
                fix = "another id, or stop the other client"
                raise ClientIdTaken("a live client has this id", where=hello.client_id, fix=fix)
            log.warning("client %s comes back with another key", hello.client_id)
        since = known.since if known is not None and self._takes_part(known) else self._entry_round()
        counted = known.counted if known is not None else None
        self._admit(Member(hello.client_id, hello.client_key, hello.examples, since, counted=counted))
        session = self._sessions.open(hello.client_id)
        self.version += 1
        self.turn += known is not None  # whose session before may be waiting
        self.tick(now)
        return session, self.settings

    def client_of(self, session: str) -> str:
        """Whose session it is. Raises SessionUnknown, SessionEvicted."""
        return self._sessions.client(session)

    def connected(self, session: str) -> None:
        """A stream of tasks begins. Raises SessionUnknown, SessionEvicted."""
        self._sessions.client(session)
        self._sessions.connected(session)
        self.version += 1

    def disconnected(self, session: str) -> None:
        """A stream of tasks that was `connected` is over."""
        self._sessions.disconnected(session)
        self.version += 1

    def task_for(self, session: str) -> Task | None:
        """The client's open task, until it is answered. Raises SessionUnknown, SessionEvicted."""
        client_id = self._sessions.client(session)
        if self._round.closed or client_id not in self._round.missing:
            return None
        task_id = TaskId(self.settings.run_id, self._round.number, client_id, self._round.phase)
        return Task(task_id, self._task_seed, self._broadcast, self._cohort.deadline_seconds)

    def submit(self, session: str, task_id: TaskId, update: Update, now: float) -> Receipt:
        """Takes a client's answer, encoded as it came. The receipt holds, whatever happens to this process after.

        Raises SessionUnknown, SessionEvicted, UnknownRun, UnknownRound, InvalidUpdate, InvalidTensor, StoreError.
        """
        client_id = self._sessions.client(session)
        self._check_task_id(task_id, client_id)
        member = self._ledger.members[client_id]
        following, effects = step(self._round, Submitted(client_id, task_id.round, member.counted))
        if Keep(client_id) in effects:
            check_update(update, self._codec, {} if task_id.phase is Phase.EVALUATE else self._method.expected())
            self._ledger.put_update(task_id, update)
        (receipt,) = (effect.receipt for effect in effects if isinstance(effect, Acknowledge))
        self._round = following
        if not self._takes_part(member):
            # It lapsed, but here it is: slow is not dead.
            self._admit(replace(member, since=self._entry_round(), until=None))
        self.version += 1
        self.tick(now)
        return receipt

    def leave(self, session: str, now: float) -> None:
        """The client answers no more tasks. A session that is not valid has nothing to leave. Raises StoreError."""
        try:
            client_id = self._sessions.client(session)
        except (SessionUnknown, SessionEvicted):
            return
        until = self._round.number + (client_id in self._round.received)
        self._admit(replace(self._ledger.members[client_id], until=until))
        self._sessions.close(session)
        self.turn += 1
        self.tick(now)

    def _check_task_id(self, task_id: TaskId, client_id: str) -> None:
        if task_id.run_id != self.settings.run_id:
            raise UnknownRun(f"{task_id.run_id!r}", where="id.run_id", fix=f"{self.settings.run_id!r}; join again")
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

    def _entry_round(self) -> int:
        """Whoever comes in the midst of a round takes part from the next, unless this one cannot have a quorum else."""
        number = self._round.number
        return number + (self.state is RunState.RUNNING and len(self._round.cohort) >= self._round.quorum)

    def _admit(self, member: Member) -> None:
        self._ledger.put_member(member)
        self._enrol()

    def _enrol(self) -> None:
        before = self._round
        self._round, _ = step(before, Enrolled(self._sample(before.number)))
        self.version += 1
        self.turn += self._round.cohort != before.cohort

    def _sample(self, number: int) -> tuple[str, ...]:
        turn = self._owners_turn(number)
        asked = [m for m in self._ledger.members.values() if self._is_owner(m.client_id) == turn]
        return sample(asked, self._seed, number, self._cohort.size)

    def _is_owner(self, client_id: str) -> bool:
        return self._cohort.owner and client_id == OWNER

    def _owners_turn(self, number: int) -> bool:
        owner = self._ledger.members.get(OWNER)
        return self._cohort.owner and number > 0 and (owner is None or owner.counted != number)

    # Rounds

    def tick(self, now: float) -> None:
        """Does what is due. Call it once at the start, and at `next_deadline`.

        A store that fails is tried again: whoever submitted has its receipt, and the round waits.
        """
        self._retry_at = None
        try:
            self._start_when_enough()
            self._advance(now)
        except StoreError as error:
            log.error("%s; trying again in %g s", error, STORE_RETRY_SECONDS)
            self._retry_at = now + STORE_RETRY_SECONDS

    def next_deadline(self) -> float | None:
        """When `tick` will have something to do, if nothing else happens before."""
        if self._retry_at is not None:
            return self._retry_at
        return None if self._round.closed else self._round.deadline

    def _start_when_enough(self) -> None:
        present = [self._is_owner(m.client_id) for m in self._ledger.members.values() if self._takes_part(m)]
        enough = present.count(False) >= self._cohort.clients and present.count(True) == self._cohort.owner
        if self._ledger.snapshot is None and enough:
            self._ledger.commit(self._first_snapshot())
            self._begin()

    def _first_snapshot(self) -> Snapshot:
        return Snapshot(0, pack(self._method.init(seeds.derive(self._seed, "server"))))

    def _begin(self, received: frozenset[str] = frozenset()) -> None:
        """The round that the ledger says stands open; one that takes nothing where none does."""
        snapshot, running = self._ledger.snapshot, self.state is RunState.RUNNING
        number = snapshot.round if snapshot else 0
        owners_turn = self._owners_turn(number)
        received = frozenset(client_id for client_id in received if self._is_owner(client_id) == owners_turn)
        self._task_seed = seeds.derive(self._seed, "task", number)
        self._broadcast: Arrays = {}
        if snapshot and running:
            self._broadcast = self._method.broadcast(self._method.restore(snapshot.state), self._task_seed)
        self._round = Round(
            number=number,
            phase=self._phase(number, owners_turn),
            cohort=frozenset(self._sample(number)) | received,
            quorum=1 if owners_turn else self._cohort.quorum,
            deadline_seconds=self._cohort.deadline_seconds,
            received=received,
            closed=not running,
        )
        self._opened = None
        self.version += 1
        self.turn += 1

    def _phase(self, number: int, owner: bool) -> Phase:
        if owner:
            return Phase.TUNE
        return Phase.UPDATE if number < self.settings.rounds else Phase.EVALUATE

    def _advance(self, now: float) -> None:
        while True:
            self._opened = now if self._opened is None else self._opened
            following, effects = step(self._round, Tick(now))
            match effects:
                case (Close() as close,):
                    self._close(close, now - self._opened)
                case (Extend(missing),):
                    self._extend(missing, following)
                case _:
                    self._round = following
                    return

    def _close(self, close: Close, seconds: float) -> None:
        snapshot, members, number = self._ledger.snapshot, self._ledger.members, self._round.number
        assert snapshot is not None, "a round stands open"
        stored = self._ledger.updates(number)
        updates = [
            replace(stored[client_id], arrays=self._codec.decode(stored[client_id].arrays), client_id=client_id)
            for client_id in close.clients
        ]
        counted = [replace(members[client_id], counted=number) for client_id in close.clients]
        if self._round.phase is Phase.TUNE:
            self._ledger.commit(tuned(self._method, snapshot, updates, self._task_seed), counted)
            log.info("round %d: the owner has tuned the prompt", number)
            opened = self._opened
            self._begin()
            self._opened = opened  # time and bytes of the turn belong to the round
            return
        traffic = self._traffic()
        spent = traffic and (traffic[0] - self._traffic_before[0], traffic[1] - self._traffic_before[1])
        following = aggregate(
            self._method,
            snapshot,
            self._round.phase,
            updates,
            self._task_seed,
            seconds,
            spent,
            self._cohort.window,
        )
        lapsed = [replace(members[client_id], until=number + 1) for client_id in close.missing]
        self._ledger.commit(following, counted + lapsed)
        self._traffic_before = traffic or (0, 0)
        log.info(
            "round %d: closed with %d clients; missing: %s", number, len(counted), ", ".join(close.missing) or "none"
        )
        self._begin()

    def _extend(self, missing: tuple[str, ...], following: Round) -> None:
        """Whoever is gone gives its place to others, and the round waits; one that was to be the last is given up."""
        snapshot, members, number = self._ledger.snapshot, self._ledger.members, self._round.number
        assert snapshot is not None, "a round stands open"
        log.warning("round %d: no quorum by its deadline; missing: %s", number, ", ".join(missing) or "none")
        if snapshot.stopped_after is not None:
            self._ledger.commit(replace(snapshot, stopped_after=number - 1))
            self._begin()
            return
        gone = [replace(members[m], until=number) for m in missing if not self._sessions.live(m)]
        self._ledger.commit(snapshot, gone)
        self._round = following
        self._enrol()

    # The operator

    @property
    def state(self) -> RunState:
        return state_of(self._ledger.snapshot, self.settings.rounds)

    def stop(self, now: float) -> None:
        """Ends the run after the round that stands open, at once if none does. Idempotent. Raises StoreError."""
        snapshot = self._ledger.snapshot
        if snapshot is None:
            self._ledger.commit(replace(self._first_snapshot(), stopped_after=-1))
            self._begin()
        elif snapshot.stopped_after is None and snapshot.round < self.settings.rounds:
            self._ledger.commit(replace(snapshot, stopped_after=snapshot.round))
            self.version += 1
        self.tick(now)

    def status(self) -> RunStatus:
        snapshot, traffic = self._ledger.snapshot, self._traffic()
        members = sorted(filter(self._takes_part, self._ledger.members.values()), key=lambda member: member.client_id)
        return RunStatus(
            run_id=self.settings.run_id,
            method=self._method_name,
            state=self.state,
            round=min(self._round.number, self.settings.rounds),
            rounds=self.settings.rounds,
            members=tuple(
                MemberStatus(
                    m.client_id, self._sessions.live(m.client_id), m.client_id in self._round.received, m.examples
                )
                for m in members
            ),
            last=snapshot.reports[-1] if snapshot and snapshot.reports else None,
            best=snapshot.best if snapshot else None,
            queries=snapshot.queries if snapshot else 0,
            bytes_up=traffic[0] if traffic else None,
            bytes_down=traffic[1] if traffic else None,
        )

    def reports(self, since_round: int) -> tuple[Report, ...]:
        """What the closed rounds from `since_round` on measured."""
        snapshot = self._ledger.snapshot
        return snapshot.reports[max(0, since_round) :] if snapshot else ()

    def result(self) -> Result:
        """Raises NoResultYet."""
        snapshot = self._ledger.snapshot
        if snapshot is None or snapshot.best is None or snapshot.best_z is None:
            raise NoResultYet("no round has been measured", where=self.settings.run_id, fix="wait for the first round")
        return Result(snapshot.best_z, snapshot.best)

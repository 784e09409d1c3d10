"""A run on an event loop: its clock, its waiting clients and watchers, and the group commit of its updates."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from fedbbpt.identity.tokens_file import Token
from fedbbpt.methods.replay import News, Told
from fedbbpt.secure.messages import FromClient
from fedbbpt.server.backup_folder import BackupFolder
from fedbbpt.server.group_commit import GroupCommit
from fedbbpt.server.hosted_run import HostedRun, Submission
from fedbbpt.server.timed_store import Durations
from fedbbpt.types import Arrays, Hello, Receipt, RunSettings, Task
from fedbbpt.wire.messages.coordinator_messages import Replayed, SharedTask
from fedbbpt.wire.tracing import RoundSpan, recording
from fedbbpt.wire.traffic import TrafficMeter

log = logging.getLogger(__name__)

_FOLLOW_SECONDS = 0.01
"""The files of a run are written after its next tasks have been sent, since nobody waits for them."""
_DRAW_SECONDS = 0.0005
"""How long after a round has opened the draws of its step begin: its tasks are on their way by then."""


def no_card() -> str:
    """Returns the card of a run whose coordinator knows no job, as in a test."""
    return ""


class LiveRun:
    """A coordinator on this event loop, with events for the coroutines that wait for it to change."""

    def __init__(
        self,
        coordinator: HostedRun,
        traffic: TrafficMeter,
        *,
        name: str = "",
        auxiliary: Path | None = None,
        backups: BackupFolder | None = None,
        tokens: Collection[Token] = (),
        card: Callable[[], str] = no_card,
        follow: Callable[[], None] = lambda: None,
        writes: Mapping[str, Durations] = MappingProxyType({}),
    ) -> None:
        """
        Args:
            coordinator: the run, a coordinator's own or one that a relay passes on.
            traffic: the meter that the coordinator reads.
            name: the run's name among those of its process.
            auxiliary: the file of the auxiliary model that the run's settings announce.
            backups: the folder for the backups of its store.
            tokens: the tokens that admit its clients; none: those of the process do.
            card: returns the card of the best prompt so far, as JSON.
            writes: how long writes to its store took, by their kind.
            follow: called at the start, soon after each round, and at the end of the run, and must not raise.
        """
        self.coordinator, self.traffic = coordinator, traffic
        self.name, self.auxiliary, self.card = name, auxiliary, card
        self.tokens = {token.sha256: token for token in tokens}
        """The run's own tokens, by their SHA-256."""
        self._follow, self.backups, self.writes = follow, backups, writes
        self.answers = Counter[str]()
        """The number of updates since the start by their receipts, or by the names of their errors."""
        self.status_changed = asyncio.Event()
        """Set at the next change of the status, and then replaced. Take it before you read the status."""
        self.ended = asyncio.Event()
        """Set when the run has ended."""
        self._status_version, self._tasks_version = coordinator.status_version, coordinator.tasks_version
        self._updates = GroupCommit(self._submit_all, lambda: self.coordinator.missing)
        self._joins = GroupCommit(self._join_all)
        self._awaiting_tasks: dict[Callable[[], None], None] = {}
        self._broadcast: Arrays = {}
        self._tasks: dict[bytes | None, SharedTask] = {}
        self._span = RoundSpan(coordinator.settings.run_id)
        self._time: asyncio.Task[None] | None = None
        self._following: asyncio.TimerHandle | None = None
        self._drawn = -1
        """The last round whose step has its draws."""
        self._sooner = asyncio.Event()
        """Set when a tick is due before the planned one, and when the run has ended."""
        self._planned: float | None = None
        """When the next tick is planned; None if none is."""

    @staticmethod
    def now() -> float:
        """Returns the time on the event loop's clock, in seconds."""
        return asyncio.get_running_loop().time()

    @contextmanager
    def notifying(self) -> Iterator[HostedRun]:
        """Gives the coordinator to call, and then sets the events of everything that the calls have changed."""
        try:
            yield self.coordinator
        finally:
            if self._tasks_version != self.coordinator.tasks_version:
                self._tasks_version = self.coordinator.tasks_version
                for wake in self._awaiting_tasks:
                    wake()
                ended = self.coordinator.state.ended
                if ended or self._time is None:  # nobody waits, or there is no event loop yet
                    self._follow_now()
                else:
                    self._follow_soon()
                if ended:
                    self._span.end()
                    self.ended.set()
                    self._sooner.set()
            due = self.coordinator.next_deadline()
            if due is not None and (self._planned is None or due < self._planned):
                self._sooner.set()
            if self._status_version != self.coordinator.status_version:
                self._status_version = self.coordinator.status_version
                self.status_changed.set()
                self.status_changed = asyncio.Event()

    def _follow_soon(self) -> None:
        loop = asyncio.get_running_loop()
        if self._following is None:
            self._following = loop.call_later(_FOLLOW_SECONDS, self._follow_now)
        if self._drawn != self.coordinator.round:
            self._drawn = self.coordinator.round
            loop.call_later(_DRAW_SECONDS, self.coordinator.draw_ahead)

    def _follow_now(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._following = None
        self._follow()

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Calls `wake` after each change of a client's task, inside the block."""
        self._awaiting_tasks[wake] = None
        try:
            yield
        finally:
            del self._awaiting_tasks[wake]

    async def submit(self, submission: Submission) -> Receipt:
        """Submits an update together with others that arrive within a moment, or at once if the round has all.

        Raises what `Coordinator.submit` raises.
        """
        return await self._updates.put(submission)

    def take_secure(self, session: str, message: FromClient) -> None:
        """Takes what a client says in secure aggregation. Raises what `Coordinator.take_secure` raises."""
        with self.notifying() as coordinator:
            coordinator.take_secure(session, message, self.now())

    def submit_then(self, submission: Submission, answer: Callable[[Receipt | Exception], None]) -> None:
        """Submits an update as `submit` does, and calls `answer` with the receipt or the error."""
        self._updates.add(submission, answer)

    def _submit_all(self, submissions: Sequence[Submission]) -> Sequence[Receipt | Exception]:
        answers: Sequence[Receipt | Exception]
        try:
            with self._span.inside("count", updates=len(submissions)), self.notifying() as coordinator:
                answers = coordinator.submit_all(submissions, self.now())
        except Exception as error:
            answers = [error] * len(submissions)
        self.answers.update(str(a) if isinstance(a, Receipt) else type(a).__name__ for a in answers)
        return answers

    async def join(self, hello: Hello) -> tuple[str, RunSettings]:
        """Lets a client join together with others that arrive within a moment. Raises what `Coordinator.join` does."""
        return await self._joins.put(hello)

    def _join_all(self, hellos: Sequence[Hello]) -> Sequence[tuple[str, RunSettings] | Exception]:
        with self.notifying() as coordinator:
            return coordinator.join_all(hellos, self.now())

    def task_messages(self, task: Task, held: bytes | None, own: bytes) -> list[bytes]:
        """Returns the messages of a client's task, of which all but its id is serialised once for all clients.

        Args:
            task: the client's task.
            held: the digest of the state that the client holds, empty if it has none, or None if it does not replay.
            own: what is the client's own in its task, `coordinator_messages.own_part`.
        """
        if self._broadcast is not task.arrays:
            self._broadcast, self._tasks = task.arrays, {}
        told = self.coordinator.told
        if told is None:
            held = None
        elif held not in (None, told.after) and held not in told.steps:
            held = b""
        if held not in self._tasks:
            traced = replace(task, traceparent=self._span.traceparent(task.id.round)) if recording() else task
            self._tasks[held] = shared_task(traced, told, held)
        return self._tasks[held].messages(own)

    def start(self) -> None:
        """Begins to keep time, unless it has begun already."""
        if self._time is None:
            self._follow()
            self._time = asyncio.create_task(self._keep_time())
            self._time.add_done_callback(self._report_failure)

    @property
    def time_kept(self) -> "asyncio.Task[None]":
        """Done when the run has ended. Raises the error of a coordinator that failed."""
        assert self._time is not None, "the run has been started"
        return self._time

    def _report_failure(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("run %s has failed, and other runs go on", self.name, exc_info=error)

    async def _keep_time(self) -> None:
        """Ticks at each deadline of the coordinator, until the run has ended."""
        with self.notifying() as coordinator:
            coordinator.tick(self.now())
        while not self.coordinator.state.ended:
            self._sooner.clear()
            self._planned = due = self.coordinator.next_deadline()
            if due is not None and due <= self.now():
                with self.notifying() as coordinator:
                    coordinator.tick(self.now())
            else:
                # A later deadline is seen when the planned one has come: most rounds end long before theirs.
                await set_within(self._sooner, None if due is None else due - self.now())


def shared_task(task: Task, told: Told | None, held: bytes | None) -> SharedTask:
    """Returns the task of all clients that hold the same.

    Args:
        task: the task of any of these clients.
        told: what clients that replay are told of the round; None if the run has none.
        held: the digest of the state that they hold, empty if they have none, or None if they do not replay.
    """
    if told is None or held is None:
        return SharedTask(task)
    if held == told.after:
        return SharedTask(task, {}, Replayed(held, told.after))
    news = told.since(held) if held else News(told.held)
    return SharedTask(task, news.arrays, Replayed(held, told.after, news.seeds))


async def set_within(event: asyncio.Event, seconds: float | None) -> bool:
    """Waits for the event, at most so many seconds, and returns whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True

"""Watches runs of a coordinator, each once, and lets any number of pages follow them.

A watched run is a state that changes. A page reads what has changed since it last read, so a slow page misses
intermediate states and nothing is queued for it.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Protocol

from fedbbpt.errors import Exhausted, FedbbptError, NotPermitted, Overloaded, Unavailable
from fedbbpt.limits import MAX_EVENTS
from fedbbpt.server.remote import RunNews
from fedbbpt.types import FREE, MemberStatus, Price, RunEvent, RunStatus
from fedbbpt.web.dashboard.records import (
    Record,
    event_record,
    member_records,
    round_records,
    status_record,
)

log = logging.getLogger(__name__)

RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0)
"""How long to wait before each further attempt to reach the coordinator; the last one repeats."""
LIST_SECONDS = 2.0
"""The interval at which the list of runs is asked for, while a page shows it."""
MAX_WATCHED = 64
"""Runs that are watched at the same time."""


class Interrupted(Exception):
    """The dashboard ends before what a page follows does."""


class Watching(Protocol):
    """A run to watch: `server.remote.RemoteRun`."""

    def status(self) -> RunStatus:
        """Returns the state of the run."""
        ...

    def watch_events(self, since_round: int = 0) -> Iterator[RunNews]:
        """Yields the state of the run and what has happened since, until it ends."""
        ...


class Coordinator(Protocol):
    """The coordinator to watch: `server.remote.RemoteRuns`."""

    def list(self) -> Sequence[RunStatus]:
        """Returns the status of every run."""
        ...

    def run(self, name: str) -> Watching:
        """Returns the run of this name; "": the only run."""
        ...


class LiveRun:
    """The state of one run, kept up to date by a thread. Everything else happens on the event loop."""

    def __init__(
        self,
        run: Watching,
        price: Price = FREE,
        retry_seconds: Sequence[float] = RETRY_SECONDS,
        *,
        measured_later: bool = False,
    ) -> None:
        """
        Args:
            run: The run to watch.
            price: What a query costs.
            retry_seconds: How long to wait before each further attempt to reach the coordinator.
            measured_later: Whether `conclude` will follow the end of the run.
        """
        self._run, self._price, self._retry_seconds = run, price, retry_seconds
        self._measured_later = measured_later
        self._status: RunStatus | None = None
        self._rounds = list[Record]()
        self._events = deque[Record](maxlen=MAX_EVENTS)
        self._known = deque[tuple[int, float]](maxlen=MAX_EVENTS)
        self._told = 0
        self._problem: Record | None = None
        self._controls = list[Record]()
        self._changed = asyncio.Event()
        self._stopped = threading.Event()
        self.over = False
        """Whether nothing more will change."""

    def start(self) -> None:
        """Begins to watch."""
        loop = asyncio.get_running_loop()

        def call(function: Callable[..., None], *arguments: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(function, *arguments)

        threading.Thread(target=self._watch, args=(call,), daemon=True, name="watch-run").start()

    def _watch(self, call: Callable[..., None]) -> None:
        attempt, seen = 0, 0
        while not self._stopped.is_set():
            try:
                for news in self._run.watch_events(seen):
                    attempt, seen = 0, seen + len(news.reports)
                    call(self.take, news)
                    if self._stopped.is_set():
                        return
                    if news.status.state.ended:
                        call(self.end)
                        return
                raise Overloaded("the stream of the run ended early")
            except FedbbptError as error:
                again = isinstance(error, Unavailable | Exhausted)
                call(self.fail, error, again)
                if not again:
                    return
                self._stopped.wait(self._retry_seconds[min(attempt, len(self._retry_seconds) - 1)])
                attempt += 1

    def take(self, news: RunNews) -> None:
        """Adopts news of the run."""
        self._status, self._problem = news.status, None
        before = self._rounds[-1] if self._rounds else None
        self._rounds += round_records(news.reports, before, self._price)
        for event in news.events:
            self._add_event(event)
        self._notify()

    def _add_event(self, event: RunEvent) -> None:
        key = event.number, event.time
        if key not in self._known:  # after a lost connection the coordinator tells all of them again
            self._told += 1
            self._known.append(key)
            self._events.append(event_record(event, self._told))

    def fail(self, error: FedbbptError, again: bool) -> None:
        """Notes that the coordinator does not answer, or refuses."""
        since = self._problem["since"] if self._problem else time.time()
        self._problem = {"what": error.what, "where": error.where, "fix": error.fix, "since": since, "again": again}
        self.over = not again
        self._notify()

    def end(self) -> None:
        """Notes that the run has ended."""
        self.over = not self._measured_later
        self._notify()

    def conclude(self, controls: Sequence[Record]) -> None:
        """Adopts the accuracies on test examples, which are known after the end of a run."""
        self._controls, self._measured_later, self.over = list(controls), False, True
        self._notify()

    def stop(self) -> None:
        """Ends the watching, and lets the pages that follow come to their end."""
        self._stopped.set()
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def status(self) -> RunStatus | None:
        """The last status; None before the first."""
        return self._status

    @property
    def awaits_measurement(self) -> bool:
        """Whether the run has ended, and `conclude` is still to come."""
        return self._measured_later and self._status is not None and self._status.state.ended

    async def follow(self) -> AsyncIterator[Record]:
        """Yields the whole state of the run, and then what has changed since the item before.

        Each item has the `run` and the `problem` with the coordinator; of `rounds` and `events` those that are new, and
        of `members` those that have changed. The first item is `complete`.

        Raises Interrupted if the dashboard ends before the run.
        """
        cursor, complete = _Cursor(), True
        while True:
            changed, over = self._changed, self.over
            if self._status is not None or self._problem is not None:
                yield self._item(cursor, complete=complete)
                complete = False
            if self._stopped.is_set() and not over:
                raise Interrupted
            if over:
                return
            await changed.wait()

    def _item(self, cursor: "_Cursor", *, complete: bool) -> Record:
        members = () if self._status is None else (*self._status.members, *self._status.late)
        item: Record = {
            "complete": complete,
            "live": True,
            "run": self._status and status_record(self._status, self._price),
            "problem": self._problem,
            "over": self.over,
            "rounds": self._rounds[cursor.rounds :],
            "events": [event for event in self._events if event["number"] > cursor.event],
            "controls": self._controls,
            "measured_later": self._measured_later,
            "now": time.time(),
            **cursor.changes(members),
        }
        cursor.rounds, cursor.event = len(self._rounds), self._told
        return item


class _Cursor:
    """What one page has been told."""

    def __init__(self) -> None:
        self.rounds = self.event = 0
        self._members = dict[str, Record]()

    def changes(self, members: Sequence[MemberStatus]) -> Record:
        """Returns the listed members that have changed, and the names of those that are not listed any more."""
        before, self._members = self._members, {one["client_id"]: one for one in member_records(members)}
        return {
            "members": [one for name, one in self._members.items() if before.get(name) != one],
            "left": [name for name in before if name not in self._members],
        }


class LiveRuns:
    """The runs of one coordinator."""

    def __init__(
        self,
        coordinator: Coordinator,
        price: Price = FREE,
        retry_seconds: Sequence[float] = RETRY_SECONDS,
        *,
        measured_later: bool = False,
    ) -> None:
        """The arguments are those of LiveRun."""
        self._coordinator, self._price, self._retry_seconds = coordinator, price, retry_seconds
        self._measured_later = measured_later
        self._watched = dict[str, LiveRun]()
        self._stopping = asyncio.Event()

    def run(self, name: str) -> LiveRun:
        """Returns the run of this name, watched from now on. Raises Overloaded if too many are watched."""
        found = self._watched.get(name) or next(
            (run for run in self._watched.values() if run.status is not None and run.status.name == name), None
        )
        if found is not None and found.over and found.status is None:
            found = None  # it was refused, and may be asked for again
        if found is None:
            if len(self._watched) >= MAX_WATCHED:
                over = next((name for name, run in self._watched.items() if run.over), None)
                if over is None:
                    fix = "another dashboard for the other runs"
                    raise Overloaded(f"{MAX_WATCHED} runs are watched already", where="run", fix=fix)
                del self._watched[over]
            found = self._watched[name] = LiveRun(
                self._coordinator.run(name), self._price, self._retry_seconds, measured_later=self._measured_later
            )
            found.start()
        return found

    async def all(self) -> list[Record]:
        """Returns the runs that the caller may see: all, or the only one. Raises what the coordinator answers."""
        found = await asyncio.to_thread(self._list)
        for status in found:
            known = self._watched.get(status.name)
            if known is not None and known.over and not status.state.ended:
                del self._watched[status.name]  # it was continued
        return [status_record(status, self._price) for status in found]

    def _list(self) -> Sequence[RunStatus]:
        try:
            return self._coordinator.list()
        except NotPermitted:  # clients see the run that they take part in
            return [self._coordinator.run("").status()]

    async def follow_list(self) -> AsyncIterator[Record]:
        """Yields the list of the runs whenever it has changed, or the problem with the coordinator.

        Raises Interrupted at the end of the dashboard.
        """
        told: Record | None = None
        while not self._stopping.is_set():
            try:
                item: Record = {"runs": await self.all(), "problem": None}
            except FedbbptError as error:
                known = [status_record(run.status, self._price) for run in self._watched.values() if run.status]
                problem = {"what": error.what, "where": error.where, "fix": error.fix}
                item = {"runs": known or None, "problem": problem}
            if item != told:
                told = item
                yield item
            try:
                await asyncio.wait_for(self._stopping.wait(), LIST_SECONDS)
            except TimeoutError:
                continue
        raise Interrupted

    def conclude(self, controls: Sequence[Record]) -> None:
        """Adopts the accuracies on test examples for the runs that have ended."""
        for run in self._watched.values():
            if run.awaits_measurement:
                run.conclude(controls)

    @property
    def await_measurement(self) -> bool:
        """Whether a run has ended and its result is still to be measured."""
        return any(run.awaits_measurement for run in self._watched.values())

    def stop(self) -> None:
        """Ends all watching."""
        self._stopping.set()
        for run in self._watched.values():
            run.stop()

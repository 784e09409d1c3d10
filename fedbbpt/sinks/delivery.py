"""Delivery to a sink from a thread of its own, so that a sink that is slow or fails neither slows nor ends a run."""

import logging
import threading
from collections import deque
from collections.abc import Callable

from fedbbpt.errors import first_line
from fedbbpt.sinks.sink import Sink

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Calls that wait for a sink. When there are more, the oldest are dropped, except the one that is being made."""
CLOSE_SECONDS = 10.0
"""How long the end of a process waits for what a sink has not taken yet."""
RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)
"""The pauses after the first failures of a call. The last one repeats."""


class Delivery:
    """Calls a sink in order. A call that fails is repeated until it succeeds or the process ends.

    The first failure is logged as a warning, and what was never delivered as another when the run ends.
    """

    def __init__(
        self,
        open_sink: Callable[[], Sink],
        name: str,
        *,
        close_seconds: float = CLOSE_SECONDS,
        most: int = MAX_WAITING,
        retry_seconds: tuple[float, ...] = RETRY_SECONDS,
    ) -> None:
        self._open, self._name = open_sink, name
        self._sink: Sink | None = None
        self._close_seconds, self._most, self._retry_seconds = close_seconds, most, retry_seconds
        self._waiting: deque[Callable[[Sink], None]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._dropped, self._warned = 0, False
        self._thread = threading.Thread(target=self._deliver, daemon=True, name=name)
        self._thread.start()

    def tell(self, call: Callable[[Sink], None]) -> None:
        """Queues a call of the sink, and returns at once."""
        with self._changed:
            if len(self._waiting) >= self._most:
                del self._waiting[1]
                self._dropped += 1
            self._waiting.append(call)
            self._changed.notify_all()

    def close(self) -> None:
        """Closes the sink after everything before, or gives up after CLOSE_SECONDS."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(self._close_seconds)
        with self._changed:
            lost = self._dropped + len(self._waiting)
        if lost or self._thread.is_alive():
            log.warning("%s: records that were not delivered: %d; the run's own files have them", self._name, lost)

    def _deliver(self) -> None:
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                call, last = self._waiting[0] if self._waiting else None, self._closing
            if call is None:
                break
            if self._attempt(call):
                failures = 0
                with self._changed:
                    self._waiting.popleft()
            elif last:
                break
            else:
                pause = self._retry_seconds[min(failures, len(self._retry_seconds) - 1)]
                failures += 1
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, pause)
        if self._sink is not None:
            self._attempt(lambda sink: sink.close())

    def _attempt(self, call: Callable[[Sink], None]) -> bool:
        """Makes a call and returns whether it succeeded."""
        try:
            if self._sink is None:
                self._sink = self._open()
            call(self._sink)
        except Exception as error:  # whatever a library of others raises
            if not self._warned:
                log.warning("%s: %s; trying again, and the run goes on", self._name, first_line(error))
                self._warned = True
            log.debug("%s", self._name, exc_info=error)
            return False
        return True

"""Retries of idempotent calls, with exponential backoff and jitter."""

import logging
import math
import random
import time
from collections.abc import Callable
from typing import TypeVar

import grpc

from fedbbpt.errors import FedbbptError, Unavailable
from fedbbpt.wire.peers import Line
from fedbbpt.wire.status import connection_failed, retry_seconds

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0
FIRST_NOTICE_SECONDS = 30.0
"""How long after the first notice of a wait the second one comes. The time doubles with each further notice."""

T = TypeVar("T")


class Patience:
    """Retries the calls to one service, and says so: at the first failure, then at growing intervals.

    What waiting does not mend, such as a wrong address or certificate, is raised at once if the service has not
    answered before. Later it may be a restart of the service or of something in between, and is retried.

    Time counts from the first error of a call, so a call that fails after running for a long time is still retried. A
    retry never comes sooner than the service asks for; if that would be too late, the error is raised at once.
    """

    def __init__(
        self,
        seconds: float,
        unavailable: type[Unavailable],
        retried: tuple[type[FedbbptError], ...],
        line: Line,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            seconds: Time to go on retrying after the first error.
            unavailable: The error to raise for statuses that no fedbbpt service sent.
            retried: The errors after which a call is retried.
            line: What is known about the service.
            clock: Returns seconds, from any origin.
            pause: Waits for a number of seconds.
        """
        self._seconds, self._unavailable, self._retried, self._line = seconds, unavailable, retried, line
        self._clock, self._pause = clock, pause
        self._known = False
        """Whether the service has answered before: then nothing is wrong with the address and the TLS files."""
        # These outlive a call that fails in the end, since most callers make it again.
        self._next_notice, self._notice_seconds = -math.inf, 0.0

    def call(self, call: Callable[[], T], raised: tuple[type[FedbbptError], ...] = ()) -> T:
        """Returns the result of `call`. Raises the last error once it is not retried.

        `raised`: errors that `call` itself raises about what it read, after which it is retried, too.
        """
        deadline, pause_seconds = None, FIRST_PAUSE_SECONDS
        while True:
            try:
                answer = call()
            except grpc.RpcError as error:
                problem, asked_seconds = self._line.problem(error, self._unavailable), retry_seconds(error)
                again = isinstance(problem, self._retried) or (self._known and connection_failed(error))
            except raised as error:
                problem, asked_seconds, again = error, 0.0, True
            else:
                self._answered()
                return answer
            now = self._clock()
            deadline = now + self._seconds if deadline is None else deadline
            if not again or now + asked_seconds >= deadline:
                raise problem
            self._failed(problem, now, deadline - now)
            self._pause(asked_seconds + random.uniform(0, pause_seconds))
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    def _failed(self, problem: FedbbptError, now: float, seconds_left: float) -> None:
        if now < self._next_notice:
            return
        # A busy service is nothing to worry about.
        level = logging.WARNING if isinstance(problem, Unavailable) else logging.INFO
        log.log(level, "%s: %s; trying again for %s", self._line.name, problem.what, in_words(seconds_left))
        self._notice_seconds = 2 * self._notice_seconds or FIRST_NOTICE_SECONDS
        self._next_notice = now + self._notice_seconds

    def _answered(self) -> None:
        self._known = True
        if self._notice_seconds:
            log.info("%s answers again", self._line.name)
            self._next_notice, self._notice_seconds = -math.inf, 0.0


def in_words(seconds: float) -> str:
    """Returns a time in seconds, or from two minutes on in minutes."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"

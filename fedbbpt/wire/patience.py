"""Retries of idempotent calls, with exponential backoff and jitter."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc

from fedbbpt.errors import FedbbptError, Unavailable
from fedbbpt.wire.status import from_rpc_error, retry_seconds

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """Settings of retries, and the loop that makes them.

    Time counts from the first error of a call, so a call that fails after running for a long time is still retried. A
    retry never comes sooner than the service asks for; if that would be too late, the error is raised at once.
    """

    seconds: float
    """Time to go on retrying after the first error."""
    unavailable: type[Unavailable]
    """The error to raise for statuses that no fedbbpt service sent."""
    retried: tuple[type[FedbbptError], ...]
    """The errors after which a call is retried."""
    clock: Callable[[], float] = time.monotonic
    """Returns seconds, from any origin."""
    pause: Callable[[float], None] = time.sleep
    """Waits for a number of seconds."""

    def call(self, call: Callable[[], T]) -> T:
        """Returns the result of `call`. Raises the last error once it is not retried."""
        deadline, pause_seconds = None, FIRST_PAUSE_SECONDS
        while True:
            try:
                return call()
            except grpc.RpcError as error:
                problem, asked_seconds = from_rpc_error(error, self.unavailable), retry_seconds(error)
            now = self.clock()
            deadline = now + self.seconds if deadline is None else deadline
            if not isinstance(problem, self.retried) or now + asked_seconds > deadline:
                raise problem
            log.info("%s; trying again", problem)
            self.pause(asked_seconds + random.uniform(0, pause_seconds))
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

"""Making an idempotent call again until somebody answers, with growing, jittered pauses."""

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
    """After one of the errors `again` a call is made again, until `seconds` have passed since the first of them.

    So a call that breaks after a long time is made again all the same. Never sooner than the other side asks for, and
    not at all where that is too late. What nobody of ours raised counts as `unavailable`.
    """

    seconds: float
    unavailable: type[Unavailable]
    again: tuple[type[FedbbptError], ...]
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def call(self, call: Callable[[], T]) -> T:
        """Raises the last call's error."""
        give_up, pause_seconds = None, FIRST_PAUSE_SECONDS
        while True:
            try:
                return call()
            except grpc.RpcError as error:
                problem, asked_seconds = from_rpc_error(error, self.unavailable), retry_seconds(error)
            now = self.clock()
            give_up = now + self.seconds if give_up is None else give_up
            if not isinstance(problem, self.again) or now + asked_seconds > give_up:
                raise problem
            log.info("%s; trying again", problem)
            self.pause(asked_seconds + random.uniform(0, pause_seconds))
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

"""Retries: the errors that cause them, their delays, and their end."""

import logging

import grpc
import pytest

from fedbbpt import errors
from fedbbpt.errors import FedbbptError
from fedbbpt.wire import status
from fedbbpt.wire.patience import Patience
from fedbbpt.wire.peers import Line
from tests.rpc_errors import FailedCall


class Impatient:
    """A caller that gives up after 10 s, on a clock that only its pauses advance."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, list[float]()

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)

    def call(self, *failures: FedbbptError) -> str:
        """Returns the answer that comes after these failures."""
        left = list(failures)

        def attempt() -> str:
            if left:
                raise FailedCall(left.pop(0))
            return "answer"

        again = (errors.Overloaded, errors.RateLimited, errors.Unavailable)
        patience = Patience(10.0, errors.PtmUnavailable, again, Line(), lambda: self.now, self.pause)
        return patience.call(attempt)


@pytest.mark.parametrize("error", [errors.Overloaded, errors.RateLimited])
def test_retry_waits_for_the_default_delay(error: type[FedbbptError]) -> None:
    caller = Impatient()
    assert caller.call(error("later"), error("later")) == "answer"
    assert len(caller.pauses) == 2 and min(caller.pauses) >= status.RETRY_SECONDS


def test_call_that_fails_after_a_long_time_is_retried() -> None:
    """Kills: counting the duration of the first attempt as time spent on retries, when calls take minutes."""
    caller, broke = Impatient(), FailedCall(errors.PtmUnavailable("the connection broke"))
    ends = iter([broke, None])

    def attempt() -> str:
        caller.now += 1000.0
        if error := next(ends):
            raise error
        return "answer"

    again = (errors.Unavailable,)
    patience = Patience(10.0, errors.PtmUnavailable, again, Line(), lambda: caller.now, caller.pause)
    assert patience.call(attempt) == "answer"


def test_too_long_delay_is_not_waited_for() -> None:
    caller = Impatient()
    with pytest.raises(errors.RateLimited):
        caller.call(errors.RateLimited("in a while", seconds=11.0))
    assert caller.pauses == []


def test_retry_waits_for_the_delay_of_a_rate_limit() -> None:
    caller = Impatient()
    with pytest.raises(errors.RateLimited):
        caller.call(*[errors.RateLimited("in a while", seconds=4.25)] * 9)
    assert caller.pauses and min(caller.pauses) >= 4.25


def test_spent_budget_is_not_retried() -> None:
    caller = Impatient()
    with pytest.raises(errors.BudgetSpent):
        caller.call(errors.BudgetSpent("spent"))
    assert caller.pauses == []


NO_CONNECTION = FailedCall(None, grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; last error: ...")
HUB = "the coordinator at hub.example.org:7000"


class Service:
    """A service that a client waits for, on a clock that only the client's pauses advance."""

    def __init__(self, cause: FedbbptError, starts_at: float = 1e9, seconds: float = 600.0) -> None:
        self.now, self.starts_at = 0.0, starts_at
        line = Line(HUB, lambda text: cause)
        retried = (errors.Unavailable,)
        self.patience = Patience(seconds, errors.CoordinatorUnavailable, retried, line, lambda: self.now, self._pause)

    def _pause(self, seconds: float) -> None:
        self.now += seconds

    def ask(self) -> str:
        """Returns the answer of a patient client."""
        return self.patience.call(self._answer)

    def _answer(self) -> str:
        if self.now < self.starts_at:
            raise NO_CONNECTION
        return "answer"


def test_a_wait_is_told_once_and_then_rarely(caplog: pytest.LogCaptureFixture) -> None:
    """Kills: a line for each of hundreds of attempts, and one without the address, the cause or the end of the wait."""
    caplog.set_level(logging.INFO)
    service = Service(errors.Unavailable("connection refused"))
    with pytest.raises(errors.CoordinatorUnavailable, match="connection refused"):
        service.ask()
    assert service.now > 600.0
    assert caplog.messages[0] == f"{HUB}: connection refused; trying again for 10 minutes"
    assert len(caplog.messages) == 5
    with pytest.raises(errors.CoordinatorUnavailable):
        service.ask()
    assert len(caplog.messages) <= 7


def test_the_end_of_a_wait_is_told_and_the_next_one_is_told_anew(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    service = Service(errors.Unavailable("connection refused"), starts_at=1.0)
    assert [service.ask(), service.ask()] == ["answer", "answer"]
    assert caplog.messages[1:] == [f"{HUB} answers again"]
    service.starts_at = service.now + 1.0
    assert service.ask() == "answer"
    assert len(caplog.messages) == 4


@pytest.mark.parametrize("cause", [errors.TlsFailed("no TLS", fix="--tls-ca"), errors.WrongService("a web server")])
def test_what_waiting_does_not_mend_is_raised_at_once(cause: FedbbptError) -> None:
    service = Service(cause)
    with pytest.raises(type(cause)):
        service.ask()
    assert service.now == 0.0


def test_a_service_that_has_answered_may_come_back_from_any_failure() -> None:
    """Kills: a proxy whose service restarts, and a certificate that is being renewed, ending a client for good."""
    service = Service(errors.TlsFailed("the server has no TLS"), starts_at=0.0)
    service.ask()
    service.starts_at = 100.0
    assert service.ask() == "answer"

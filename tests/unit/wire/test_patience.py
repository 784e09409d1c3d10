"""Retries: the errors that cause them, their delays, and their end."""

import pytest

from fedbbpt import errors
from fedbbpt.errors import FedbbptError
from fedbbpt.wire import status
from fedbbpt.wire.patience import Patience
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
        return Patience(10.0, errors.PtmUnavailable, again, lambda: self.now, self.pause).call(attempt)


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

    patience = Patience(10.0, errors.PtmUnavailable, (errors.Unavailable,), lambda: caller.now, caller.pause)
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

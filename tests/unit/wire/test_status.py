"""Errors as gRPC statuses, and back."""

import pytest
from google.rpc import error_details_pb2

from fedbbpt import errors
from fedbbpt.errors import FedbbptError
from fedbbpt.wire import status
from tests.rpc_errors import FailedCall


def _all_errors() -> list[type[FedbbptError]]:
    found, waiting = [], [FedbbptError]
    while waiting:
        cls = waiting.pop()
        found.append(cls)
        waiting += cls.__subclasses__()
    return found


@pytest.mark.parametrize("cls", _all_errors())
def test_every_error_survives_the_round_trip(cls: type[FedbbptError]) -> None:
    sent = cls("what", where="field", fix="this instead")
    got = status.from_rpc_error(FailedCall(sent), errors.PtmUnavailable)
    assert type(got) is cls and (got.what, got.fix) == (sent.what, sent.fix)
    # The path of a store does not leave the machine.
    assert got.where == ("" if issubclass(cls, errors.StoreError) else sent.where)


def test_error_that_quotes_its_caller_fits_into_metadata() -> None:
    quoted = errors.InvalidTask("classes " + "x" * 100_000, where="y" * 100_000, fix="z" * 100_000)
    assert status.to_status(quoted).ByteSize() < 4096


def test_text_of_a_service_cannot_control_the_terminal() -> None:
    """Kills: a service whose refusal moves the cursor, or forges lines in its caller's log."""
    call = FailedCall(errors.NotFound("no \x1b[2Jrun\nERROR forged", where="\x9b1m", fix="a\u202eb"))
    found = status.from_rpc_error(call, errors.Unavailable)
    assert (found.what, found.where, found.fix) == (r"no \x1b[2Jrun\nERROR forged", r"\x9b1m", r"a\u202eb")


def test_overload_has_retry_info_and_spent_budget_has_none() -> None:
    def reasons(error: FedbbptError) -> set[str]:
        return {detail.TypeName() for detail in status.to_status(error).details}

    retry = error_details_pb2.RetryInfo.DESCRIPTOR.full_name
    assert retry in reasons(errors.Overloaded("full"))
    assert retry not in reasons(errors.BudgetSpent("spent"))

"""An asynchronous run with three fast clients and a slow one, which nobody waits for. Over gRPC, and as functions."""

from pathlib import Path

import pytest

from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.types import Receipt
from tests.federation import AdvancingLoop, Federation, InProcess, OverGrpc, play
from tests.tiny_run import Course, job

ROUNDS = 4


def splits_of(data: Path, method: str, **options: object) -> Splits:
    made = job(data, method=method, clients=4, rounds=ROUNDS)
    cohort = made.cohort.model_copy(update={"mode": "async", "buffer": 3})
    config = made.method.model_copy(update=options)
    return prepare(made.model_copy(update={"cohort": cohort, "method": config}))


def script(federation: Federation) -> Course:
    """Moves the clients by hand, so that the slow one is as late as a test wants."""
    *fast, slow = (federation.client(index) for index in range(4))
    first = slow.task()
    play(fast, rounds=2)
    assert slow.submit(first) is Receipt.COUNTED, "its task is two rounds old"
    second = slow.task()
    assert second.id.round == 2, "the open round's, and none of those between"
    late = fast[2].task()
    assert late.id.round == 2
    for client in fast[:2]:
        assert client.answer() is Receipt.COUNTED
    overtaken = fast[1].task()
    assert overtaken.id.round == 3
    assert fast[2].submit(late) is Receipt.COUNTED, "the round has closed without it, and it counts in the next one"
    for client in (fast[2], fast[0]):
        assert client.answer() is Receipt.COUNTED
    assert fast[1].submit(overtaken) is Receipt.TOO_LATE, "no step follows"
    play(fast, rounds=1)
    assert all(client.finished() for client in fast), "the run ends while the slow client is at work"
    assert slow.submit(second) is Receipt.TOO_LATE
    return federation.course()


@pytest.mark.parametrize(
    ("method", "options"),
    [("fedavg-bbt", {}), ("fed-bbpt", {}), ("fed-bbpt", {"uplink": "scalars"})],
    ids=["fedavg-bbt", "fed-bbpt", "scalars"],
)
def test_slow_client_holds_nobody_and_counts_late(
    data: Path, method: str, options: dict[str, object], tmp_path: Path, server_loop: AdvancingLoop
) -> None:
    splits, courses = splits_of(data, method, **options), []
    over_grpc = OverGrpc(splits, tmp_path / "grpc.db", server_loop)
    for federation in (over_grpc, InProcess(splits, tmp_path / "functions.db")):
        courses.append(script(federation))
        federation.close()
    assert courses[0] == courses[1]
    assert courses[0].clients == [3] * (ROUNDS + 1)
    assert [report.staleness for report in courses[0].reports] == [0.0, 0.0, 2 / 3, 1 / 3, 0.0]

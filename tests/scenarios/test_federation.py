"""Disturbances of a federation. Each script runs over function calls, over gRPC, and over gRPC with TLS and a token.

If every client's update is counted in the end, the run must end with the bits of an undisturbed one.
The module is long because all scripts share its fixtures.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.errors import (
    ClientIdTaken,
    FedbbptError,
    InvalidTensor,
    InvalidUpdate,
    MessageTooLarge,
    RunFinished,
    SessionEvicted,
    Unauthenticated,
    UnknownRun,
)
from fedbbpt.federation.assemble import client_name
from fedbbpt.federation.splits import Splits
from fedbbpt.types import Receipt, RunState, Task, TaskId, Update
from tests.federation import AdvancingLoop, Client, Federation, InProcess, OverGrpc, Security, play
from tests.reports import dev_losses
from tests.tiny_run import CLIENTS, DEADLINE_SECONDS, ROUNDS, Course, undisturbed

Line: TypeAlias = Callable[[Splits, Path, AdvancingLoop, Security], Federation]

NETWORKED = [
    pytest.param(lambda splits, path, loop, security: OverGrpc(splits, path, loop), id="grpc"),
    pytest.param(lambda splits, path, loop, security: OverGrpc(splits, path, loop, security), id="tls"),
]
LINES = [pytest.param(lambda splits, path, loop, security: InProcess(splits, path), id="in-process"), *NETWORKED]


@pytest.fixture(params=LINES)
def federation(
    request: pytest.FixtureRequest, splits: Splits, tmp_path: Path, server_loop: AdvancingLoop, security: Security
) -> Iterator[Federation]:
    line: Line = request.param
    made = line(splits, tmp_path / "run.db", server_loop, security)
    yield made
    made.close()


@pytest.fixture(params=NETWORKED)
def networked(
    request: pytest.FixtureRequest, splits: Splits, tmp_path: Path, server_loop: AdvancingLoop, security: Security
) -> Iterator[OverGrpc]:
    made = request.param(splits, tmp_path / "run.db", server_loop, security)
    yield made
    made.close()


@pytest.fixture(scope="module")
def expected(splits: Splits) -> Course:
    return undisturbed(splits)


@pytest.fixture
def same_in_process(splits: Splits, tmp_path: Path) -> Iterator[Callable[[Callable[[Federation], Course]], Course]]:
    """Plays a script over function calls. The same script must have the same course over every other connection."""
    made = InProcess(splits, tmp_path / "in-process.db")
    yield lambda script: script(made)
    made.close()


Same: TypeAlias = Callable[[Callable[[Federation], Course]], Course]


def test_the_reference_run_lowers_the_loss(expected: Course) -> None:
    """If the run did not change the prompt, equal bits would prove nothing."""
    assert len({report.dev_loss for report in expected.reports}) == ROUNDS + 1
    assert np.abs(np.frombuffer(expected.z, np.float32)).min() > 0
    assert min(dev_losses(expected.reports)[1:]) < 0.9 * dev_losses(expected.reports)[0]


def test_a_run_over_every_connection_ends_with_the_simulated_bits(federation: Federation, expected: Course) -> None:
    clients = federation.clients()
    play(clients, ROUNDS + 1)
    assert all(client.finished() for client in clients)
    assert federation.course() == expected
    with pytest.raises(RunFinished):
        federation.client(0)


def test_a_late_joiner_takes_part_from_the_next_round(federation: Federation, same_in_process: Same) -> None:
    def script(federation: Federation) -> Course:
        clients = federation.clients()
        assert clients[0].answer() is Receipt.COUNTED
        clients.append(federation.client(CLIENTS))
        play(clients[1:CLIENTS], 1)
        play(clients, ROUNDS)
        return federation.course()

    course = script(federation)
    assert course.clients == [CLIENTS, *[CLIENTS + 1] * ROUNDS]
    assert course == same_in_process(script)


def test_a_round_closes_without_a_straggler_which_takes_part_again_later(
    federation: Federation, same_in_process: Same
) -> None:
    def script(federation: Federation) -> Course:
        anna, berta, clara = clients = federation.clients()
        task = clara.task()
        play([anna, berta], 1)
        federation.advance(DEADLINE_SECONDS)
        assert anna.answer() is Receipt.COUNTED  # of the next round
        assert clara.submit(task) is Receipt.TOO_LATE
        assert berta.answer() is Receipt.COUNTED
        play(clients, ROUNDS - 1)
        return federation.course()

    course = script(federation)
    assert course.clients == [2, 2, *[3] * (ROUNDS - 1)]
    assert course == same_in_process(script)


def test_a_round_without_a_quorum_waits_for_one(federation: Federation, same_in_process: Same) -> None:
    def script(federation: Federation) -> Course:
        anna, berta, clara = federation.clients()
        play([anna, berta, clara], 1)
        assert anna.answer() is Receipt.COUNTED
        for client in (berta, clara):
            client.task()
            client.hang_up()
        federation.until(lambda status: sum(member.connected for member in status.members) == 1)
        federation.advance(DEADLINE_SECONDS)
        alone = federation.until(lambda status: len(status.members) == 1)
        assert (alone.state, alone.round, alone.members[0].submitted) == (RunState.RUNNING, 1, True)
        berta = federation.client(1)
        assert berta.answer() is Receipt.COUNTED
        play([anna, berta], ROUNDS - 1)
        return federation.course()

    course = script(federation)
    assert course.clients == [3, *[2] * ROUNDS]
    assert course == same_in_process(script)


def test_a_round_does_not_wait_for_a_client_that_leaves(federation: Federation, same_in_process: Same) -> None:
    def script(federation: Federation) -> Course:
        anna, berta, clara = clients = federation.clients()
        play(clients, 1)
        clara.link.leave()
        clara.link.leave()
        play([anna, berta], ROUNDS)
        return federation.course()

    course = script(federation)
    assert course.clients == [3, *[2] * ROUNDS]
    assert course == same_in_process(script)


def test_a_client_that_joins_again_evicts_its_old_stream(federation: Federation, expected: Course) -> None:
    anna, berta, clara = federation.clients()
    play([anna, berta, clara], 1)
    task = anna.task()
    again = federation.client(0)
    with pytest.raises(SessionEvicted):
        anna.submit(task)
    with pytest.raises(SessionEvicted):
        anna.task()
    play([again, berta, clara], ROUNDS)
    assert federation.course() == expected


def test_the_id_of_a_connected_client_cannot_be_taken(federation: Federation, expected: Course) -> None:
    clients = federation.clients()
    task = clients[0].task()
    with pytest.raises(ClientIdTaken, match=client_name(0)):
        federation.client(0, key="another")
    assert clients[0].submit(task) is Receipt.COUNTED
    play(clients[1:], 1)
    play(clients, ROUNDS)
    assert federation.course() == expected


def test_a_restarted_coordinator_continues_the_open_round(federation: Federation, expected: Course) -> None:
    anna, berta, clara = clients = federation.clients()
    play(clients, 2)
    assert anna.answer() is Receipt.COUNTED
    task = berta.task()
    federation.restart()
    assert berta.submit(task) is Receipt.COUNTED
    assert clara.answer() is Receipt.COUNTED
    play(clients, ROUNDS - 2)
    assert federation.course() == expected


def test_an_update_counted_before_a_restart_is_a_duplicate_after_it(federation: Federation, expected: Course) -> None:
    anna, berta, clara = clients = federation.clients()
    task = anna.task()
    assert anna.submit(task) is Receipt.COUNTED
    federation.restart()
    assert anna.submit(task) is Receipt.DUPLICATE
    play([berta, clara], 1)
    assert anna.submit(task) is Receipt.DUPLICATE  # the round is closed, and had counted it
    play(clients, ROUNDS)
    assert anna.submit(task) is Receipt.TOO_LATE
    assert federation.course() == expected


def _nan(update: Update) -> Update:
    return replace(update, arrays={name: np.full_like(array, np.nan) for name, array in update.arrays.items()})


def _longer(update: Update) -> Update:
    return replace(update, arrays={name: np.append(array, array[:1]) for name, array in update.arrays.items()})


def _renamed(update: Update) -> Update:
    return replace(update, arrays={f"{name}s": array for name, array in update.arrays.items()})


def _weightless(update: Update) -> Update:
    return replace(update, weight=0.0)


def _infinite_loss(update: Update) -> Update:
    return replace(update, measurement=replace(update.measurement, dev_loss_sum=np.inf))


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (_nan, InvalidTensor),
        (_longer, InvalidTensor),
        (_renamed, InvalidUpdate),
        (_weightless, InvalidUpdate),
        (_infinite_loss, InvalidUpdate),
    ],
)
def test_a_bad_update_is_refused_and_loses_nothing(
    federation: Federation, expected: Course, spoil: Callable[[Update], Update], error: type[FedbbptError]
) -> None:
    def bad(client: Client, task: Task) -> None:
        with pytest.raises(error):
            client.link.submit(task.id, spoil(client.agent.answer(task)))

    _disturb(federation, bad, expected)


@pytest.mark.parametrize(
    ("changes", "error"), [({"run_id": "another"}, UnknownRun), ({"client_id": client_name(2)}, InvalidUpdate)]
)
def test_an_answer_to_another_task_is_refused_and_loses_nothing(
    federation: Federation, expected: Course, changes: dict[str, str], error: type[FedbbptError]
) -> None:
    def bad(client: Client, task: Task) -> None:
        wrong: TaskId = replace(task.id, **changes)  # type: ignore[arg-type]  # all but two fields are texts
        with pytest.raises(error):
            client.link.submit(wrong, client.agent.answer(task))

    _disturb(federation, bad, expected)


@pytest.mark.parametrize("round", [-1, ROUNDS])
def test_an_answer_to_an_unknown_round_is_not_counted(federation: Federation, expected: Course, round: int) -> None:
    """A coordinator whose database was restored from a backup asks for that round again."""

    def bad(client: Client, task: Task) -> None:
        wrong = replace(task.id, round=round)
        assert client.link.submit(wrong, client.agent.answer(task)) is Receipt.TOO_LATE

    _disturb(federation, bad, expected)


def test_an_oversized_update_is_refused_before_it_is_read(networked: OverGrpc, expected: Course) -> None:
    """This needs a connection, because function calls send no bytes."""

    def bad(client: Client, task: Task) -> None:
        update = client.agent.answer(task)
        with pytest.raises(MessageTooLarge, match="10000"):
            client.link.submit(task.id, replace(update, arrays={"losses": np.zeros(2501, np.float32)}))

    _disturb(networked, bad, expected)


def _disturb(federation: Federation, bad: Callable[[Client, Task], None], expected: Course) -> None:
    """Lets one client send something bad in every round of the search, and then the right update."""
    anna, *others = clients = federation.clients()
    for _ in range(ROUNDS):
        task = anna.task()
        bad(anna, task)
        assert anna.submit(task) is Receipt.COUNTED
        play(others, 1)
    play(clients, 1)
    assert federation.course() == expected


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_client_without_the_token_is_rejected(
    splits: Splits, tmp_path: Path, server_loop: AdvancingLoop, security: Security, expected: Course, token: str
) -> None:
    federation = OverGrpc(splits, tmp_path / "run.db", server_loop, security)
    clients = federation.clients()
    stranger = RemoteCoordinator(federation.channel(token=token))
    with pytest.raises(Unauthenticated):
        stranger.join(clients[0].hello)
    play(clients, ROUNDS + 1)
    assert federation.course() == expected
    federation.close()

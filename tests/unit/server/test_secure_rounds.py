"""Rounds with secure aggregation in which clients and the coordinator die after any message, and come back.

Whatever happens, a round ends with exactly the sum of the clients that it counts, and no two sums of one round differ.
"""

import itertools
from dataclasses import replace

import pytest

from fedbbpt.secure.messages import FromClient, FromServer, Reveal
from fedbbpt.types import Receipt
from tests.secure_bench import NEVER, SecureBench
from tests.slow import slow_except

STEPS = {0: "keys", 1: "shares", 2: "the masked answer", 3: "the consent or the reveal", 4: "the reveal after it"}
"""What a client dies before, by the number of messages that it has sent."""


def test_rounds_without_trouble_need_one_attempt_each_and_one_epoch() -> None:
    run = SecureBench(5, rounds=4)
    for round in range(4):
        assert run.play(round, deadlines=1)
        run.check(round)
        assert run.counted(round) == run.names
    assert run.play(4)
    assert run.bench.coordinator.state.ended
    # Keys and shares once; then a masked answer and a reveal in each round. Only the first round needs consents.
    assert max(run.said.values()) == 2 + 2 * 5 + 1
    assert len(run.epochs) == 1


@pytest.mark.parametrize("said", STEPS)
def test_a_client_that_dies_before_any_step_leaves_the_sum_to_the_others(said: int) -> None:
    run = SecureBench(6, lives={"client-2": said})
    assert run.play(0)
    run.check(0)
    # Its masked answer is in the sum if it had consented: the first round of a process needs consents.
    assert ("client-2" in run.counted(0)) == (said >= 4)
    assert run.play(1)
    run.check(1)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(range(1, 5), 2)))
def test_two_clients_that_die_at_different_steps_leave_an_exact_sum(one: int, other: int) -> None:
    run = SecureBench(8, lives={"client-0": one, "client-5": other})
    assert run.play(0)
    run.check(0)
    assert run.play(1)
    run.check(1)


@pytest.mark.parametrize("killed_after", slow_except(range(1, 31), 5, 9, 12, 17, 21, 24, 30))
def test_a_coordinator_killed_after_any_message_ends_with_the_same_sums(killed_after: int) -> None:
    run = SecureBench(5, killed_after=killed_after)
    for round in range(3):
        assert run.play(round)
        run.check(round)
        assert run.counted(round) == run.names


@pytest.mark.parametrize("killed_after", slow_except(range(13, 37), 13, 19, 26, 31, 36))
@pytest.mark.parametrize("said", slow_except([2, 3, 4], 3))
def test_a_coordinator_and_a_client_that_die_in_one_round_end_with_one_sum(killed_after: int, said: int) -> None:
    """If clients had revealed already, the round waits for the client that died, and ends when it is back."""
    run = SecureBench(6, lives={"client-3": said}, killed_after=killed_after)
    if not run.play(0):
        assert run.revealed[0] == {frozenset(run.names)}
        run.check_revealed()
        run.come_back("client-3")
        assert run.play(0)
    run.check(0)


@pytest.mark.parametrize("said", [1, 2, 3])
def test_a_client_that_comes_back_without_its_secrets_takes_part_again(said: int) -> None:
    run = SecureBench(5, lives={"client-4": said})
    run.pump()
    if "client-4" in run.dead:
        run.come_back("client-4")
    assert run.play(0, deadlines=1), "no deadline has to pass"
    run.check(0)
    assert run.counted(0) == run.names
    assert run.play(1)
    run.check(1)
    assert run.counted(1) == run.names


def test_a_late_client_gets_its_receipt_and_the_next_round() -> None:
    run = SecureBench(6)
    run.lives = {"client-1": 2}
    run.said["client-1"] = 2
    assert run.play(0)
    assert run.counted(0) == [name for name in run.names if name != "client-1"]
    coordinator = run.bench.coordinator
    assert coordinator.receipt("client-1", 0) is Receipt.TOO_LATE
    assert coordinator.receipt("client-0", 0) is Receipt.COUNTED
    assert coordinator.receipt("client-0", coordinator.round) is None
    run.come_back("client-1")
    assert run.play(1) and run.play(2)
    run.check(2)
    assert run.counted(2) == run.names


def test_fewer_clients_than_the_quorum_get_no_sum() -> None:
    run = SecureBench(5, quorum=4, lives={"client-0": 2, "client-1": 2})
    assert not run.play(0)
    assert not run.revealed
    run.come_back("client-0")
    assert run.play(0)
    run.check(0)


def test_a_client_that_reports_trouble_is_not_waited_for() -> None:
    run = SecureBench(6)
    run.lives = {"client-1": 2}
    run.said["client-1"] = 2
    run.pump()
    session = run.bench.sessions["client-2"]
    run.lives = {**run.lives, "client-2": NEVER}
    run.bench.coordinator.report_trouble(session, "no PTM", 0.0, run.bench.now)
    assert run.play(0)
    run.check(0)


def test_sixteen_rounds_use_up_an_epoch_and_another_follows() -> None:
    run = SecureBench(4, rounds=20)
    for round in range(20):
        assert run.play(round, deadlines=1)
        run.check(round)
    assert len(run.epochs) == 2


def test_a_client_that_sends_wrong_shares_is_named_and_stalls_no_round(caplog: pytest.LogCaptureFixture) -> None:
    """Kills: a round that is asked for again and again, because each of its sums is wrong."""
    run = SecureBench(6)
    take = run.clients["client-0"].take

    def lie(message: FromServer) -> list[FromClient]:
        return [
            replace(reply, shares=tuple(share and share ^ 1 for share in reply.shares))
            if isinstance(reply, Reveal)
            else reply
            for reply in take(message)
        ]

    run.clients["client-0"].take = lie  # type: ignore[method-assign]  # a client that is not ours
    for round in range(3):
        assert run.play(round, deadlines=1), "no deadline has to pass"
        run.check(round)
        assert run.counted(round) == run.names
        assert f"round {round}: the shares of client-0 are wrong" in caplog.text
    assert len(run.epochs) == 1

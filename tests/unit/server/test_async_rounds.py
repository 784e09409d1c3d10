"""Asynchronous rounds: the first K updates close a round, and late ones count in the round that is open."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedbbpt.codecs import CODECS
from fedbbpt.errors import InvalidPlugin, NoResultYet
from fedbbpt.server.cohort import CohortRules
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.server.staleness import staleness_weight
from fedbbpt.types import Receipt, RunState, Task, Update
from tests.coordinators import DEADLINE, SETTINGS, Bench, Mean, MeanServer, update

CLIENTS = ("a", "b", "c", "slow")


class MovedMean(MeanServer):
    """Moves an update by the difference of the states."""

    def displaced(self, update: Update, before: Mean, after: Mean, seed: int) -> Update:
        return replace(update, arrays={"found": update.arrays["found"] + update.weight * (after.z - before.z)})


class AsyncBench(Bench):
    """A coordinator whose rounds close with `size` updates, and take updates of `max_staleness` rounds before."""

    max_staleness = 2

    def restart(self) -> None:
        self.coordinator = Coordinator(
            method_name="mean",
            method=self.method,
            codec=CODECS["float32"],
            settings=replace(SETTINGS, rounds=self.rounds, sampling=self.sampling),
            seed=5,
            cohort=CohortRules(
                self.clients, self.quorum, DEADLINE, buffer=self.size or 0, max_staleness=self.max_staleness
            ),
            store=self.store,
        )
        self.coordinator.tick(self.now)

    def z(self) -> float:
        return float(self.coordinator.prompt[0])


def bench(**changes: Any) -> tuple[AsyncBench, dict[str, Task]]:
    """Returns a run of three fast clients and a slow one, which has its first task, and closes with three updates."""
    made = AsyncBench(**{"clients": 4, "quorum": 2, "size": 3, "rounds": 9, "method": MovedMean(), **changes})
    made.join(*CLIENTS)
    tasks = {client: made.task(client) for client in CLIENTS}
    return made, {client: task for client, task in tasks.items() if task is not None}


def test_round_closes_with_k_of_n() -> None:
    run, tasks = bench()
    assert sorted(tasks) == sorted(CLIENTS), "everybody is asked"
    run.answer("a", "b")
    assert (run.round, run.coordinator.missing) == (0, 1)
    run.answer("c")
    assert (run.round, run.last.clients, run.last.staleness) == (1, 3, 0.0)


def test_stale_update_counts_in_the_open_round_with_its_weight() -> None:
    run, tasks = bench()
    run.answer("a", "b", "c", z=3.0)
    run.answer("a", "b", "c", z=5.0)
    assert (run.round, run.z()) == (2, 5.0)
    assert run.submit("slow", tasks["slow"], z=7.0, weight=4.0) is Receipt.COUNTED
    run.answer("a", "b", z=6.0)
    # The slow client went from 0 to 7; seen from 5 it is at 12, and counts with 4 / sqrt(3).
    weight = 4 / np.sqrt(3)
    assert run.z() == np.float32((2 * 6.0 + 2 * 6.0 + weight * (7.0 + 5.0)) / (2 + 2 + weight))
    assert run.last.clients == 3
    assert run.last.staleness == pytest.approx(2 / 3)
    assert run.last.queries == 30


def test_weight_falls_with_the_staleness() -> None:
    assert [staleness_weight(tau) for tau in (0, 3, 8)] == [1.0, 0.5, pytest.approx(1 / 3)]


def test_update_beyond_the_most_staleness_is_too_late_and_its_client_goes_on() -> None:
    run, tasks = bench()
    for _ in range(3):
        run.answer("a", "b", "c")
    assert run.round == 3
    before = run.coordinator.tasks_version
    assert run.submit("slow", tasks["slow"]) is Receipt.TOO_LATE
    assert run.coordinator.tasks_version > before, "its stream looks for the next task"
    task = run.task("slow")
    assert task is not None
    assert task.id.round == 3


def test_client_at_work_gets_no_other_task_until_it_has_answered() -> None:
    run, tasks = bench()
    assert run.task("slow") == tasks["slow"]
    run.answer("a", "b", "c")
    assert run.task("slow") is None
    run.submit("slow", tasks["slow"])
    newest = run.task("slow")
    assert newest is not None
    assert newest.id.round == 1


def test_client_with_a_new_stream_gets_the_newest_task() -> None:
    run, _ = bench()
    run.answer("a", "b", "c")
    run.coordinator.connected(run.sessions["slow"])
    task = run.task("slow")
    assert task is not None
    assert task.id.round == 1


def test_client_may_count_twice_in_a_round_but_never_with_the_same_task() -> None:
    run, tasks = bench()
    run.answer("a", "b", "c")
    assert run.submit("slow", tasks["slow"]) is Receipt.COUNTED
    assert run.submit("slow", tasks["slow"]) is Receipt.DUPLICATE
    newest = run.task("slow")
    assert newest is not None
    assert run.submit("slow", newest) is Receipt.COUNTED
    assert run.submit("slow", newest) is Receipt.DUPLICATE
    assert run.task("slow") is None, "it has answered the open round"
    run.answer("a")
    assert (run.round, run.last.clients) == (2, 3)
    assert run.last.staleness == pytest.approx(1 / 3)
    assert run.submit("slow", newest) is Receipt.DUPLICATE
    assert run.submit("slow", tasks["slow"]) is Receipt.TOO_LATE, "no task is answered after a later one"


def test_arrival_within_a_round_does_not_change_the_step() -> None:
    found = set()
    for order in (["slow", "a", "b"], ["b", "a", "slow"], ["a", "slow", "b"]):
        run, tasks = bench()
        run.answer("a", "b", "c", z=0.1)
        told = {"slow": tasks["slow"], "a": run.task("a"), "b": run.task("b")}
        for place, client in enumerate(order):
            task = told[client]
            assert task is not None
            assert place < 3
            assert run.submit(client, task, z={"slow": 0.3, "a": 0.7, "b": 1.1}[client], weight=0.1) is Receipt.COUNTED
        snapshot = run.store.load()
        assert snapshot is not None
        assert snapshot.round == 2
        found.add(snapshot.state["z"].tobytes())
    assert len(found) == 1


def test_straggler_holds_no_round() -> None:
    run, _ = bench(rounds=4)
    run.coordinator.connected(run.sessions["slow"])
    while run.coordinator.state is RunState.RUNNING:
        run.answer("a", "b", "c")
    assert (run.now, run.coordinator.state) == (0.0, RunState.FINISHED)


def test_stragglers_hold_a_round_no_longer_than_its_deadline() -> None:
    run, tasks = bench()
    for client in CLIENTS:
        run.coordinator.connected(run.sessions[client])
    run.answer("a", "b")
    run.wait(DEADLINE - 1)
    assert run.round == 0
    run.wait(1)
    assert (run.round, run.last.clients) == (1, 2), "a quorum closes it"
    # Nobody waits again for those who were late, until they answer.
    run.answer("a", "b")
    assert (run.round, run.now) == (2, DEADLINE)
    assert run.submit("slow", replace(tasks["slow"], seed=0)) is Receipt.COUNTED


def test_round_of_which_everybody_else_is_gone_closes_with_its_quorum() -> None:
    run, _ = bench()
    run.answer("a", "b")
    run.wait(DEADLINE)
    assert [member.client_id for member in run.coordinator.status().members] == ["a", "b"]
    run.answer("a", "b")
    assert (run.round, run.now) == (2, DEADLINE)


def test_client_that_joins_takes_part_at_once() -> None:
    run, _ = bench()
    run.join("new")
    task = run.task("new")
    assert task is not None
    assert task.id.round == 0


def test_stored_stale_updates_survive_a_restart_and_an_extended_round() -> None:
    run, tasks = bench(quorum=3)
    other, _ = bench(quorum=3)
    for each in (run, other):
        each.answer("a", "b", "c", z=3.0)
        each.submit("slow", tasks["slow"], z=7.0)
    run.restart()
    run.join(*CLIENTS)
    for client in CLIENTS:
        run.coordinator.connected(run.sessions[client])
    run.wait(DEADLINE)  # no quorum: the round is extended, which is a commit of its own
    run.restart()
    run.join(*CLIENTS)
    assert run.submit("slow", tasks["slow"], z=9.0) is Receipt.DUPLICATE
    for each in (run, other):
        each.answer("a", "b", z=4.0)
    assert (run.round, run.z(), run.last.clients) == (other.round, other.z(), 3)


def dev(loss: float) -> Mapping[str, Any]:
    return {"dev_loss_sum": 4 * loss}


def test_dev_measurements_belong_to_the_prompt_that_they_measured() -> None:
    """The slow client's late measurement of the first prompt makes it worse than the second one."""
    run, tasks = bench(rounds=3)
    run.answer("a", "b", "c", z=1.0, **dev(1.0))
    with pytest.raises(NoResultYet):
        run.coordinator.result()
    run.answer("a", "b", z=2.0, **dev(2.0))
    run.submit("slow", tasks["slow"], z=2.0, **dev(9.0))
    assert run.last.dev_loss == pytest.approx((2 + 2 + 9) / 3), "of the prompts that the updates began with"
    run.answer("a", "b", "c", z=3.0, **dev(4.0))
    measured = {result.measured.round: result.measured for result in run.coordinator.finalists}
    assert list(measured) == [1]
    assert (measured[1].dev_loss, measured[1].dev_examples) == (2.0, 8)
    run.answer("a", "b", "c", **dev(8.0))
    assert run.coordinator.state is RunState.FINISHED
    assert run.coordinator.result().measured.round == 1


def test_prompt_that_too_few_measured_is_not_compared() -> None:
    run, tasks = bench(rounds=3)
    run.answer("a", "b", "c", **dev(3.0))
    told = {client: run.task(client) for client in "abc"}
    run.submit("slow", tasks["slow"], **dev(3.0))
    run.answer("slow", **dev(0.1))
    run.answer("a", **dev(0.1))  # round 1 closes with two measurements of its prompt
    assert run.round == 2
    run.answer("slow", "a", **dev(2.0))
    for client in ("b", "c"):
        task = told[client]
        assert task is not None
        run.submit(client, task, **dev(9.0))
    run.answer("a", "b", "c", **dev(2.5))
    compared = {result.measured.round: result.measured.dev_examples for result in run.coordinator.finalists}
    assert compared == {2: 8}


def test_stopped_run_has_a_result() -> None:
    run, _ = bench()
    run.coordinator.stop(run.now)
    run.answer("a", "b", "c")
    assert run.coordinator.state is RunState.STOPPED
    assert run.coordinator.result().measured.round == 0


def test_method_that_cannot_move_updates_is_refused() -> None:
    with pytest.raises(InvalidPlugin, match="the server's half cannot move them"):
        AsyncBench(clients=2, quorum=1, size=1)


def test_update_helper_is_absolute() -> None:
    """The hand-computed steps above rest on this."""
    assert update(z=7.0, weight=4.0).arrays["found"].tolist() == [7.0, 7.0]

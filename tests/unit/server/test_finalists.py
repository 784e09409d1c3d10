"""The choice of a run's result: rounds that are not measured, samples of the dev examples, and the last round."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fedbbpt.errors import InvalidPlugin, InvalidUpdate
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.server.finalists import MOST, prompt_entries, ranked
from fedbbpt.types import (
    FINALISTS,
    Arrays,
    Measurement,
    Phase,
    Projection,
    ProjectionKind,
    Receipt,
    Report,
    Result,
    RunState,
    Sampling,
    Task,
)
from tests.coordinators import Bench, Mean, MeanServer, float32

SAMPLED = Sampling(batch_examples=4)


def result(z: float, dev_loss: float | None, dev_accuracy: float | None = None, round: int = 0) -> Result:
    return Result(float32([z]), Report(round, 1, dev_loss, dev_accuracy, None, 0, 0.0, dev_examples=4))


def measured(*losses: float) -> tuple[Measurement, ...]:
    """Measurements with these mean losses over twenty dev examples, which a client sends for finalists."""
    return tuple(Measurement(20 * loss, 20, 10) for loss in losses)


def told(task: Task) -> list[float]:
    """The finalists of a task; all entries of a prompt are equal."""
    return [float(z[0]) for z in task.arrays.get(FINALISTS, np.zeros((0, 2)))]


def played(bench: Bench, losses: Sequence[float], client: str = "anna") -> Bench:
    """Plays a round for each loss, with the prompts z = 0, 1, 2, ..."""
    for z, loss in enumerate(losses, 1):
        bench.answer(client, z=float(z), dev_loss_sum=4 * loss)
    return bench


def test_the_best_come_first_and_the_newest_of_equal_ones() -> None:
    """Kills: an order by age, ties that keep the older one, a prompt that is kept twice, one too many."""
    before = [result(1, 0.5), result(2, 0.6), result(3, 0.7), result(4, None)]
    kept = ranked(result(5, 0.6, round=9), before, 4, 1)
    assert [float(each.z[0]) for each in kept] == [1, 5, 2, 3]
    assert [float(each.z[0]) for each in ranked(result(2, 0.4), before, 4, 1)] == [2, 1, 3, 4]
    assert [each.measured.dev_loss for each in ranked(result(2, 0.8), before, 4, 1)] == [0.5, 0.6, 0.7, None]
    assert [float(each.z[0]) for each in ranked(result(5, 0.5), before, 1, 1)] == [5]
    assert [float(each.z[0]) for each in ranked(result(5, 0.5, 0.1), [result(1, 0.5, 0.2)], 1, 1)] == [1]


def of_prompt(prompt: float, readout: float, dev_loss: float) -> Result:
    return replace(result(0, dev_loss), z=float32([prompt, readout]))


def test_of_the_readouts_of_a_prompt_only_the_best_is_kept() -> None:
    """Kills: places that are full of rounds of one fit, and a search that displaces the readout that it began with."""
    kept: tuple[Result, ...] = ()
    told = [(0, 1, 0.9), (0, 2, 0.8), (0, 3, 0.85), (1, 1, 0.5), (1, 2, 0.4), (2, 2, 0.6), (3, 2, 0.7), (4, 2, 0.3)]
    for prompt, readout, dev_loss in told:
        kept = ranked(of_prompt(prompt, readout, dev_loss), kept, 4, entries=1)
    assert [each.z.tolist() for each in kept] == [[4, 2], [1, 2], [2, 2], [0, 2]]
    assert ranked(of_prompt(5, 1, 0.1), kept, 1, entries=1)[0].z.tolist() == [5, 1]


def test_prompts_have_fewer_entries_than_z_if_it_has_a_readout() -> None:
    prompts = LatentSpace(6, Projection(ProjectionKind.RADEMACHER, 1, 2, 1.0, ""), offsets=2)
    assert prompt_entries(prompts) == 6
    assert prompt_entries(ReadoutSpace(prompts, ("",), 0, 2, 5)) == 6


def test_a_round_that_is_not_measured_cannot_be_the_best() -> None:
    bench = Bench(clients=1, quorum=1, sampling=Sampling(dev_every=2))
    bench.join("anna")
    nothing = {"dev_loss_sum": 0.0, "dev_examples": 0, "dev_correct": 0}
    bench.answer("anna", z=1.0, dev_loss_sum=6.0)
    bench.answer("anna", z=2.0, **nothing)  # the prompt z = 1
    assert (bench.last.dev_loss, bench.last.dev_accuracy, bench.last.dev_examples) == (None, None, 0)
    assert bench.coordinator.result().measured.round == 0
    bench.answer("anna", z=3.0, dev_loss_sum=5.0)  # the prompt z = 2
    assert np.array_equal(bench.coordinator.result().z, float32([2, 2]))
    task = bench.task("anna")
    assert task is not None and FINALISTS not in task.arrays, "each measurement was of all dev examples"
    bench.answer("anna", dev_loss_sum=4.0)  # the last round, number 3, measures the prompt z = 3
    assert np.array_equal(bench.coordinator.result().z, float32([3, 3]))


def test_measurements_are_pooled_over_measured_rounds() -> None:
    """With one of two clients in a round and a measurement in every other one."""
    bench = Bench(clients=2, quorum=1, size=1, sampling=Sampling(dev_every=2))
    bench.join("anna", "berta")
    losses = {0: (8.0, 2), 2: (1.0, 2)}
    for round in range(3):
        (client,) = [name for name in ("anna", "berta") if bench.task(name)]
        loss, count = losses.get(round, (0.0, 0))
        bench.answer(client, z=float(round), dev_loss_sum=loss, dev_correct=0, dev_examples=count)
    assert bench.coordinator.result().measured.dev_loss == pytest.approx(9.0 / 4)
    assert bench.coordinator.result().measured.dev_examples == 4


def test_the_last_round_measures_the_best_prompts_again_and_chooses() -> None:
    """The prompt z = 1 was best on the sample by luck; z = 2 is the best on all examples."""
    bench = Bench(clients=1, quorum=1, sampling=SAMPLED)
    bench.join("anna")
    played(bench, [0.9, 0.3, 0.4])
    assert np.array_equal(bench.coordinator.result().z, float32([1, 1]))
    task = bench.task("anna")
    assert task is not None and task.id.phase is Phase.EVALUATE
    assert told(task) == [1, 2, 0]
    assert float(task.arrays["z"][0]) == 3
    bench.answer("anna", dev_loss_sum=20 * 0.6, dev_examples=20, finalists=measured(0.7, 0.5, 0.9))
    best = bench.coordinator.result()
    assert np.array_equal(best.z, float32([2, 2]))
    assert (best.measured.round, best.measured.dev_loss, best.measured.dev_examples) == (2, 0.5, 20)
    assert best.measured.dev_accuracy == 0.5
    assert (bench.last.round, bench.last.dev_loss) == (3, 0.6), "the report is that of the last prompt"
    assert bench.coordinator.status().state is RunState.FINISHED


def test_the_last_prompt_may_win() -> None:
    bench = Bench(clients=1, quorum=1, sampling=SAMPLED)
    bench.join("anna")
    played(bench, [0.9, 0.3, 0.4])
    bench.answer("anna", dev_loss_sum=20 * 0.5, dev_examples=20, dev_correct=10, finalists=measured(0.7, 0.5, 0.9))
    assert np.array_equal(bench.coordinator.result().z, float32([3, 3])), "among equals the newest"


def test_a_run_keeps_a_few_finalists_over_restarts() -> None:
    bench = Bench(clients=1, quorum=1, sampling=SAMPLED, rounds=8)
    bench.join("anna")
    played(bench, [0.9, 0.3, 0.4, 0.8, 0.5])
    bench.restart()
    bench.join("anna")
    for z, loss in enumerate([0.95, 0.2, 0.35], 6):
        bench.answer("anna", z=float(z), dev_loss_sum=4 * loss)
    bench.restart()
    bench.join("anna")
    task = bench.task("anna")
    assert task is not None
    assert told(task) == [6, 1, 7, 0], "the best three, and z = 0"
    assert len(told(task)) == MOST
    bench.answer("anna", dev_loss_sum=18.0, dev_examples=20, finalists=measured(0.5, 0.6, 0.7, 0.8))
    assert np.array_equal(bench.coordinator.result().z, float32([6, 6]))
    bench.restart()
    assert bench.coordinator.result().measured.dev_examples == 20


@pytest.mark.parametrize(
    ("finalists", "message"),
    [
        ((), "finalists: 0 measurements; 2: one for each finalist of the task"),
        (measured(0.5), "finalists: 1 measurements; 2"),
        ((*measured(0.5), Measurement(1.0, 19, 3)), r"finalists\[1\].dev_examples: 19; 20, the same as in measurement"),
        ((*measured(0.5), Measurement(float("nan"), 20, 3)), r"finalists\[1\].dev_loss_sum: nan; a finite number"),
        ((Measurement(1.0, 20, 21), *measured(0.5)), r"finalists\[0\].dev_correct: 21 of 20; from 0 to dev_examples"),
    ],
)
def test_measurements_of_finalists_are_checked(finalists: Sequence[Measurement], message: str) -> None:
    bench = Bench(clients=1, quorum=1, sampling=SAMPLED, rounds=2)
    bench.join("anna")
    played(bench, [0.9, 0.3])
    task = bench.task("anna")
    assert task is not None
    with pytest.raises(InvalidUpdate, match=message):
        bench.submit("anna", task, dev_examples=20, finalists=finalists)
    assert bench.submit("anna", task, dev_examples=20, finalists=measured(0.5, 0.5)) is Receipt.COUNTED


def test_finalists_belong_to_the_last_round() -> None:
    bench = Bench(clients=1, quorum=1, sampling=SAMPLED)
    bench.join("anna")
    task = bench.task("anna")
    assert task is not None
    with pytest.raises(InvalidUpdate, match="finalists: 1 measurements; 0"):
        bench.submit("anna", task, finalists=measured(0.5))


def test_the_last_round_asks_all_clients_of_a_run_with_cohorts() -> None:
    """The finalists' sums add over clients: z = 0 is better for anna, z = 1 for both together."""
    bench = Bench(clients=3, quorum=1, size=1, sampling=SAMPLED, rounds=4)
    bench.join("anna", "berta", "clara")
    for z, loss in enumerate([0.9, 0.8, 0.7, 0.6], 1):
        (client,) = [name for name in bench.sessions if bench.task(name)]
        bench.answer(client, z=float(z), dev_loss_sum=4 * loss)
    tasks = [bench.task(name) for name in bench.sessions]
    assert [task.id.phase for task in tasks if task] == [Phase.EVALUATE] * 3
    assert [told(task) for task in tasks if task] == [[3, 2]] * 3
    bench.answer("anna", dev_loss_sum=20.0, dev_examples=20, finalists=measured(0.1, 0.4))
    bench.answer("berta", dev_loss_sum=20.0, dev_examples=20, finalists=measured(0.9, 0.3))
    bench.answer("clara", dev_loss_sum=20.0, dev_examples=20, finalists=measured(0.8, 0.3))
    best = bench.coordinator.result()
    assert np.array_equal(best.z, float32([2, 2]))
    assert best.measured.dev_loss == pytest.approx(1 / 3)
    assert best.measured.dev_examples == 60


def test_a_stopped_run_chooses_before_it_ends() -> None:
    bench = Bench(clients=1, quorum=1, sampling=SAMPLED, rounds=9)
    bench.join("anna")
    played(bench, [0.3, 0.9])
    bench.coordinator.stop(bench.now)
    bench.coordinator.stop(bench.now)
    bench.restart()
    bench.join("anna")
    assert bench.coordinator.status().state is RunState.RUNNING
    bench.answer("anna", z=3.0, dev_loss_sum=4 * 0.4)  # the open round, z = 2
    bench.restart()
    bench.join("anna")
    bench.coordinator.stop(bench.now)
    task = bench.task("anna")
    assert task is not None and (task.id.round, task.id.phase) == (3, Phase.EVALUATE)
    assert told(task) == [0, 2, 1]
    bench.answer("anna", dev_loss_sum=18.0, dev_examples=20, finalists=measured(0.5, 0.4, 0.6))
    assert bench.coordinator.status().state is RunState.STOPPED
    assert np.array_equal(bench.coordinator.result().z, float32([2, 2]))
    assert bench.coordinator.result().measured.dev_loss == 0.4


def test_a_stopped_run_that_cannot_choose_ends_with_the_best_on_its_samples() -> None:
    bench = Bench(clients=2, quorum=2, sampling=SAMPLED, rounds=9)
    bench.join("anna", "berta")
    bench.answer("anna", "berta")
    bench.coordinator.stop(bench.now)
    bench.answer("anna", "berta", z=4.0, dev_loss_sum=1.0)
    bench.wait(1000.0)
    assert bench.coordinator.status().state is RunState.STOPPED
    assert bench.coordinator.result().measured.round == 1


def test_a_run_stopped_in_its_last_search_round_finishes() -> None:
    bench = Bench(clients=1, quorum=1, sampling=SAMPLED, rounds=2)
    bench.join("anna")
    bench.answer("anna")
    bench.coordinator.stop(bench.now)
    bench.answer("anna")
    bench.answer("anna", dev_examples=20, finalists=measured(0.5, 0.5))
    assert bench.coordinator.status().state is RunState.FINISHED


class Colliding(MeanServer):
    def broadcast(self, state: Mean, seed: int) -> Arrays:
        return {**super().broadcast(state, seed), FINALISTS: np.zeros(1)}


def test_a_method_must_not_broadcast_an_array_of_that_name() -> None:
    bench = Bench(clients=1, quorum=1, sampling=SAMPLED, rounds=1, method=Colliding())
    bench.join("anna")
    with pytest.raises(InvalidPlugin, match="broadcasts 'finalists', the name of a run's best prompts"):
        bench.answer("anna")

"""The client's loop: its queries, its saved update, and its waits for the PTM."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.client.agent import Agent
from fedbbpt.client.keepsake import Keepsake
from fedbbpt.client.objective import LocalObjectives
from fedbbpt.client.shares import Shares
from fedbbpt.codecs import CODECS, codec_of
from fedbbpt.errors import InvalidTensor, NotPrivate, PtmUnavailable
from fedbbpt.federation.splits import Splits
from fedbbpt.job.config import Job
from fedbbpt.job.settings import run_settings
from fedbbpt.methods import client_method
from fedbbpt.prompts import space_of
from fedbbpt.types import (
    Arrays,
    Hello,
    NoiseShare,
    Phase,
    Population,
    Receipt,
    RunSettings,
    Sampling,
    Task,
    TaskId,
    Update,
)
from tests.tiny_run import fake_ptm

DIM, POPULATION = 6, 6
ARRAYS: Arrays = {"mean": np.zeros(DIM, np.float32), "scale": np.full(DIM, 0.5, np.float32)}


def task(round: int, phase: Phase = Phase.UPDATE) -> Task:
    return Task(TaskId("run-1", round, "anna", phase), 7 + round, ARRAYS, 60.0)


class Objectives(LocalObjectives):
    """Objectives whose PTM is unavailable for the first `failures` calls."""

    failures = 0

    def loss(self, population: Population, draw: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        if self.failures:
            self.failures -= 1
            raise PtmUnavailable("no answer")
        return super().loss(population, draw)


def objectives(splits: Splits) -> Objectives:
    settings = run_settings(splits.job, "run-1")
    return Objectives(fake_ptm(), settings.task, space_of(settings.space), splits.train[0], splits.dev[0])


def agent(splits: Splits, asked: LocalObjectives, codec: str = "float32", keepsake: Keepsake | None = None) -> Agent:
    return Agent(client_method(run_settings(splits.job, "run-1")).half(asked), asked, CODECS[codec], keepsake)


class Script:
    """A link that gives these tasks and records the updates."""

    def __init__(self, *tasks: Task, receipts: list[Receipt]) -> None:
        self._tasks, self._receipts = tasks, iter(receipts)
        self.updates: list[tuple[TaskId, Update]] = []
        self.troubles: list[str] = []

    def join(self, hello: Hello) -> RunSettings:
        raise NotImplementedError

    def tasks(self) -> Iterator[Task]:
        yield from self._tasks

    def submit(self, task_id: TaskId, update: Update) -> Receipt:
        self.updates.append((task_id, update))
        return next(self._receipts)

    def report_trouble(self, text: str) -> None:
        self.troubles.append(text)

    def leave(self) -> None: ...


def noisy_agent(splits: Splits, keepsake: Keepsake | None = None) -> Agent:
    """Returns the agent of a client that adds noise, in a run of three rounds."""
    asked, codec = objectives(splits), CODECS["float32"]
    half = client_method(run_settings(splits.job, "run-1")).half(asked)
    shares = Shares(NoiseShare(10**6, 3, 1.0), 0.0, rounds=3, essential=lambda arrays: arrays)
    return Agent(half, asked, codec, keepsake, secure=True, shares=shares)


def same(one: Update, other: Update) -> bool:
    bits = [{name: array.tobytes() for name, array in update.arrays.items()} for update in (one, other)]
    return bits[0] == bits[1] and replace(one, arrays={}) == replace(other, arrays={})


@pytest.mark.parametrize("codec", CODECS)
def test_an_answer_is_a_pure_function_of_the_task(splits: Splits, codec: str) -> None:
    first, second = (agent(splits, objectives(splits), codec) for _ in range(2))
    second.answer(task(0))
    assert same(first.answer(task(1)), second.answer(task(1)))
    assert not same(first.answer(task(1)), first.answer(task(2)))


def test_an_answer_counts_its_own_queries(splits: Splits) -> None:
    """Train and dev examples are as many: 10; a round costs P of each training example and 1 of each dev example."""
    asked = objectives(splits)
    answering = agent(splits, asked)
    train, dev = len(splits.train[0]), len(splits.dev[0])
    for round in range(2):
        assert answering.answer(task(round)).measurement.queries == POPULATION * train + dev
    evaluated = answering.answer(task(2, Phase.EVALUATE))
    assert (evaluated.arrays, evaluated.measurement.queries) == ({}, dev)
    assert asked.queries == 2 * (POPULATION * train + dev) + dev


def test_prompts_are_measured_every_so_many_rounds_and_at_the_end(splits: Splits) -> None:
    asked, dev = objectives(splits), len(splits.dev[0])
    half = client_method(run_settings(splits.job, "run-1")).half(asked)
    answering = Agent(half, asked, CODECS["float32"], sampling=Sampling(dev_every=3))
    answers = [answering.answer(task(round)).measurement for round in range(7)]
    assert [answer.dev_examples for answer in answers] == [dev, 0, 0, dev, 0, 0, dev]
    assert [answer.queries - answers[1].queries for answer in answers] == [dev, 0, 0, dev, 0, 0, dev]
    assert answering.answer(task(7, Phase.EVALUATE)).measurement.dev_examples == dev


def test_a_saved_update_is_sent_again_without_new_queries(splits: Splits, tmp_path: Path) -> None:
    before = agent(splits, objectives(splits), keepsake=Keepsake(tmp_path)).answer(task(0))
    asked = objectives(splits)
    after = agent(splits, asked, keepsake=Keepsake(tmp_path)).answer(task(0))
    assert same(before, after) and asked.queries == 0
    other = agent(splits, asked, keepsake=Keepsake(tmp_path)).answer(task(1))
    assert not same(other, before) and asked.queries > 0


def test_an_agent_waits_for_an_unavailable_ptm(splits: Splits) -> None:
    asked, waits = objectives(splits), list[int]()
    asked.failures = 3
    link = Script(task(0), receipts=[Receipt.COUNTED])
    assert agent(splits, asked).run(link, lambda: waits.append(1)) == 1
    assert len(waits) == 3 and len(link.troubles) == 2, "told at the first and the second failure, then less often"
    assert same(link.updates[0][1], agent(splits, objectives(splits)).answer(task(0)))


def test_run_returns_the_number_of_counted_updates(splits: Splits) -> None:
    receipts = [Receipt.COUNTED, Receipt.TOO_LATE, Receipt.DUPLICATE, Receipt.REFUSED, Receipt.COUNTED]
    link = Script(*map(task, range(5)), receipts=receipts)
    assert agent(splits, objectives(splits)).run(link, lambda: None) == 2
    assert [task_id.round for task_id, _ in link.updates] == [0, 1, 2, 3, 4]


def test_a_permanent_error_ends_the_agent(splits: Splits) -> None:
    class Broken(Objectives):
        def loss(self, population: Population, draw: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
            raise InvalidTensor("no good")

    settings = run_settings(splits.job, "run-1")
    asked = Broken(fake_ptm(), settings.task, space_of(settings.space), splits.train[0], splits.dev[0])
    with pytest.raises(InvalidTensor):
        agent(splits, asked).run(Script(task(0), receipts=[]), lambda: pytest.fail("the agent waited"))


def test_what_a_sparse_codec_lost_survives_a_restart(splits: Splits, tmp_path: Path) -> None:
    """Kills: a lost part that a method sees among its private arrays, or that a restart forgets."""
    sections = splits.job.model_dump() | {"method": {"name": "fed-bpt", "local_iterations": 2}}
    settings = run_settings(Job.model_validate(sections | {"codec": {"uplink": "topk+int8", "kept": 0.3}}), "run-1")

    def started(folder: Path) -> Agent:
        method, asked = client_method(settings), objectives(splits)
        codec = codec_of(settings.codec, kept=settings.kept, point=method.point)
        return Agent(method.half(asked), asked, codec, Keepsake(folder))

    arrays = {"mean": np.zeros(DIM, np.float32), "sigma": np.ones(1, np.float32)}
    rounds = [replace(task(round), arrays=arrays) for round in range(3)]
    steady = started(tmp_path / "steady")
    expected = [steady.answer(each) for each in rounds]
    found = [started(tmp_path / "restarted").answer(each) for each in rounds]
    assert all(map(same, expected, found))
    assert not same(found[1], started(tmp_path / "new").answer(rounds[1]))


def test_noise_of_an_answer_is_drawn_once_whatever_dies(splits: Splits, tmp_path: Path) -> None:
    """Kills: new noise for the same round, of which a coordinator that asks again takes the mean."""
    first = noisy_agent(splits, Keepsake(tmp_path)).answer(task(0))
    assert same(first, noisy_agent(splits, Keepsake(tmp_path)).answer(task(0)))
    alone = noisy_agent(splits)
    second = alone.answer(task(0))
    assert same(second, alone.answer(task(0)))
    assert not same(first, second)


def test_a_client_with_noise_answers_no_earlier_and_no_further_round(splits: Splits, tmp_path: Path) -> None:
    """Kills: an agent that forgets after a restart what it has answered."""
    noisy_agent(splits, Keepsake(tmp_path)).answer(task(2))
    for round in (1, 3):
        with pytest.raises(NotPrivate):
            noisy_agent(splits, Keepsake(tmp_path)).answer(task(round))
    noisy_agent(splits, Keepsake(tmp_path)).answer(task(3, Phase.EVALUATE))

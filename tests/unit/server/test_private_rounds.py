"""Runs with a privacy budget at the coordinator: clipping, noise, and an account that no crash spends twice."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.errors import InvalidHello, InvalidUpdate
from fedbbpt.privacy import accountant
from fedbbpt.privacy.release import norm
from fedbbpt.server.checks import check_hello
from fedbbpt.server.private_rounds import PrivateRounds
from fedbbpt.server.stores.rows import RunRecord
from fedbbpt.server.stores.sqlite import SqliteStore
from fedbbpt.types import Hello, Metrics, PrivacyAccount, PrivacyBudget, PrivacyLevel, RunState, Snapshot, Update
from tests.coordinators import Bench, Mean, MeanServer

EPSILON, DELTA, ROUNDS = 2.0, 1e-5, 3
SIGMAS = 6.5
"""A standard normal number is larger in absolute value with a probability of 8e-11."""


class Recorder(MeanServer):
    """A method that keeps the updates of each step."""

    def __init__(self) -> None:
        self.steps: list[Sequence[Update]] = []

    def step(self, state: Mean, updates: Sequence[Update], seed: int) -> tuple[Mean, Metrics]:
        self.steps.append(updates)
        return super().step(state, updates, seed)


def private(level: PrivacyLevel = "client", clip_norm: float = 1.0) -> PrivateRounds:
    return PrivateRounds(PrivacyBudget(level, EPSILON, DELTA, clip_norm), lambda arrays: arrays)


def bench(**changes: Any) -> Bench:
    made = Bench(method=Recorder(), privacy=private(), **changes)
    made.join("anna", "berta")
    return made


def account(of: Bench) -> PrivacyAccount:
    snapshot = of.store.load()
    assert snapshot is not None and snapshot.privacy is not None
    return snapshot.privacy


def test_the_account_grows_with_each_round_and_ends_at_the_budget() -> None:
    run = bench()
    multiplier = accountant.noise_multiplier(EPSILON, DELTA, ROUNDS)
    for played in range(ROUNDS):
        assert account(run) == PrivacyAccount(multiplier, played)
        run.answer("anna", "berta")
        spent = run.coordinator.status().privacy
        assert spent is not None and spent.epsilon == accountant.spent(multiplier, played + 1, DELTA)
        assert run.last.epsilon == spent.epsilon and run.last.train_loss is None
    run.answer("anna", "berta")  # the last round only measures
    assert run.coordinator.status().state is RunState.FINISHED
    assert account(run) == PrivacyAccount(multiplier, ROUNDS)
    assert run.last.epsilon is not None and 0.999 * EPSILON < run.last.epsilon <= EPSILON


def test_the_method_sees_one_noisy_sum_of_clipped_updates() -> None:
    """Kills: a step on the updates themselves, and noise that is drawn by the run's seed."""
    found = []
    for _ in range(2):
        run = bench()
        run.answer("anna", "berta", z=1e30)
        assert isinstance(run.method, Recorder)
        ((update,),) = run.method.steps
        assert update.weight == 2.0, "each client counts once, whatever its examples"
        found.append(update.arrays["found"])
        # Two clipped vectors and noise; the uncut ones would be longer by far.
        deviation = accountant.noise_multiplier(EPSILON, DELTA, ROUNDS)
        assert np.abs(found[-1]).max() < 2 + SIGMAS * deviation
    assert not np.array_equal(found[0], found[1])


@given(st.floats(-1e15, 1e15), st.floats(1e-3, 1e6), st.floats(1e-2, 1e2))
def test_a_client_adds_the_clip_norm_at_most(value: float, weight: float, clip_norm: float) -> None:
    update = Update({"a": np.array([value, 1.0]), "b": np.array([[value]])}, weight)
    bounded = private(clip_norm=clip_norm).bounded(update)
    assert norm(bounded.arrays) <= clip_norm
    assert bounded.weight == 1.0


@pytest.mark.parametrize("level", ["client", "example"])
def test_noise_is_the_multiplier_times_the_clip_norm(level: PrivacyLevel) -> None:
    """A right release fails with a probability below 1e-9."""
    rounds, count = private(level, clip_norm=0.25), 100_000
    sums = [Update({"a": np.zeros(count)}, 10.0), Update({"a": np.ones(count)}, 10.0)]
    released, after = rounds.released(PrivacyAccount(12.0, rounds=4), sums)
    noise = released.arrays["a"] - 1.0
    assert abs(noise.mean()) < SIGMAS * 3.0 / math.sqrt(count)
    assert abs((noise**2).mean() / 9.0 - 1) < SIGMAS * math.sqrt(2 / count) + 1e-4
    assert after == PrivacyAccount(12.0, rounds=5)


def test_the_part_that_steps_do_not_use_is_not_released() -> None:
    rounds = replace(private(), essential=lambda arrays: {**arrays, "loss": 0.0 * arrays["loss"]})
    update = rounds.bounded(Update({"loss": np.array([5.0]), "a": np.zeros(3)}, 1.0))
    assert not update.arrays["loss"].any()
    released, _ = rounds.released(PrivacyAccount(1.0), [update])
    assert not released.arrays["loss"].any() and released.arrays["a"].all()


def test_a_round_whose_commit_failed_is_not_spent_and_gets_new_noise() -> None:
    """Kills: an account in memory only, an account that is committed before its round, and noise that is kept."""
    run = bench()
    before = account(run)
    run.answer("anna")
    task = run.task("berta")
    assert task is not None
    run.store.full = True
    run.submit("berta", task)
    assert account(run) == before
    run.store.full = False
    assert isinstance(run.method, Recorder)
    tried = len(run.method.steps)
    assert tried and run.coordinator.status().round == 0
    run.wait(1.0)
    assert account(run) == replace(before, rounds=1)
    ((first,), *_, (last,)) = run.method.steps
    assert len(run.method.steps) > tried
    assert not np.array_equal(first.arrays["found"], last.arrays["found"])


def test_a_restart_keeps_the_account() -> None:
    run = bench()
    run.answer("anna", "berta")
    spent, kept = run.coordinator.status().privacy, account(run)
    run.restart()
    assert run.coordinator.status().privacy == spent
    assert account(run) == kept


def test_a_run_ends_when_its_budget_is_spent_whatever_rounds_it_is_given() -> None:
    run = bench()
    run.answer("anna", "berta")
    run.rounds = 100
    run.restart()
    run.join("anna", "berta")
    assert run.coordinator.status().rounds == ROUNDS
    while not run.coordinator.status().state.ended:
        run.answer("anna", "berta")
    assert run.last.epsilon is not None and run.last.epsilon <= EPSILON
    assert account(run).rounds == ROUNDS


def test_the_account_is_part_of_the_stored_snapshot(tmp_path: Path) -> None:
    record = RunRecord("run-1", 0, "digest", "2026-01-01T00:00:00+00:00")
    store = SqliteStore(tmp_path / "run.db", record)
    for privacy in (PrivacyAccount(3.5, 7), None):
        snapshot = Snapshot(7, {"z": np.zeros(2, np.float32)}, privacy=privacy)
        store.commit(snapshot)
        loaded = store.load()
        assert loaded is not None and loaded.privacy == privacy
    store.close()


def test_examples_that_cannot_have_been_clipped_are_refused() -> None:
    with pytest.raises(InvalidUpdate, match=r"a sum of norm 14\.1421 over 2 examples"):
        private("example").bounded(Update({"a": np.array([10.0, 10.0])}, 2.0))


def test_a_client_that_cannot_clip_is_refused() -> None:
    hello = Hello("north", "key", 4, frozenset({"float32"}))
    check_hello(hello, "float32")
    check_hello(replace(hello, clips_examples=True), "float32", clips_examples=True)
    with pytest.raises(InvalidHello, match="cannot clip what each example adds"):
        check_hello(hello, "float32", clips_examples=True)


def test_noise_in_shares_is_added_by_clients_alone_and_accounted_as_what_is_proven() -> None:
    """Kills: noise on top of the shares, the account of the Gaussian mechanism, and an update that is clipped again."""
    rounds = replace(private(clip_norm=0.5), sharing=4)
    account = rounds.opened(ROUNDS)
    assert account.noise_multiplier == accountant.noise_multiplier(EPSILON, DELTA, ROUNDS, shares=True)
    noise = rounds.share(account, numbers=3)
    assert noise is not None and (noise.clients, noise.clip_norm) == (4, 0.5)
    assert noise.deviation * 2 == pytest.approx(account.noise_multiplier * 0.5 * 2**24, rel=2e-3)
    released, after = rounds.released(account, [Update({"a": np.full(3, 7.0)}, 4.0)])
    assert released.arrays["a"].tolist() == [7.0] * 3
    assert after == replace(account, rounds=1)
    assert rounds.spent(after).epsilon == accountant.spent(account.noise_multiplier, 1, DELTA, shares=True)
    assert rounds.most_rounds(account) == ROUNDS
    assert private().share(account, numbers=3) is None


def test_a_client_that_cannot_add_noise_is_refused() -> None:
    """Kills: a client of an older version, whose answers would have none."""
    hello = Hello("north", "key", 4, frozenset({"float32"}))
    check_hello(replace(hello, adds_noise=True), "float32", adds_noise=True)
    with pytest.raises(InvalidHello, match="cannot add noise to its answers"):
        check_hello(hello, "float32", adds_noise=True)


def test_clients_are_told_the_noise_of_the_account_also_after_a_restart() -> None:
    """Kills: noise for the rounds of a changed job, while the account is that of the stored one."""
    run = Bench(3, 3, method=Recorder(), privacy=replace(private(), sharing=3), secure_threshold=0.67)
    told = run.coordinator.settings.noise
    assert told is not None and told.clients == 3
    run.rounds = 100
    run.restart()
    multiplier = accountant.noise_multiplier(EPSILON, DELTA, ROUNDS, shares=True)
    first = run.store.load()
    assert (first is None) or first.privacy == PrivacyAccount(multiplier)

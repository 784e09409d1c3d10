"""The law of replays, for all methods that have one: replayed broadcasts are the sent ones, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt import seeds
from fedbbpt.methods import METHODS, replay_of
from fedbbpt.methods.replay import digest, learnt, opened
from fedbbpt.types import Array, Arrays, Update, merge, pack
from tests.conformance.test_method import EVERYONE, VARIANTS, federation


def replays(variant: str) -> bool:
    name, options = VARIANTS[variant]
    if name not in METHODS:
        return False
    method, run = METHODS[name], federation(variant)
    return replay_of(method, method.config(**{"name": name, **options}), run.space) is not None


REPLAYED = [variant for variant in VARIANTS if replays(variant)]
"""The variants whose clients replay."""


def bits(arrays: Arrays) -> dict[str, tuple[str, bytes]]:
    return {name: (array.dtype.str, array.tobytes()) for name, array in arrays.items()}


def test_which_methods_have_replays() -> None:
    """Kills: a replay that is lost, so that this law holds of nothing."""
    assert {"fed-cma", "fed-cma, newton"} <= set(REPLAYED)


@pytest.mark.parametrize("variant", REPLAYED)
@given(seed=st.integers(0, 2**64 - 1), absent=st.lists(st.integers(0, 4), max_size=8))
def test_a_replayed_broadcast_is_the_sent_broadcast(variant: str, seed: int, absent: list[int]) -> None:
    """Kills: a seed of the wrong round, a state that lacks a path, a step after a refused one from newer moves."""
    run = federation(variant)
    name, options = VARIANTS[variant]
    method = METHODS[name]
    replay = replay_of(method, method.config(**{"name": name, **options}), run.space)
    assert replay is not None
    state = run.server.init(seed)
    told, held = opened(replay, state, seeds.derive(seed, "task", 0)), replay.held(state)
    steps = 0
    for round in range(8):
        task_seed = seeds.derive(seed, "task", round)
        assert bits(replay.broadcast(held)) == bits(run.server.broadcast(state, task_seed))
        present = [client for client in EVERYONE if round >= len(absent) or client != absent[round]]
        updates = [run.update(state, round, client) for client in present]
        if round in (2, 3) and "decrease" in updates[0].arrays:  # refuse the step
            updates = [replace(update, arrays={**update.arrays, "decrease": np.full(1, -1e3)}) for update in updates]
        after = run.server.restore(pack(run.server.step(state, updates, task_seed)[0]))
        summed = [merge(updates)] if run.server.linear else updates
        before, next_seed = told, seeds.derive(seed, "task", round + 1)
        told = learnt(replay, told, opened(replay, after, next_seed), after, summed)
        if told.news:
            assert told.before == before.after == digest(held, task_seed)
            held = replay.replayed(held, told.news, task_seed)
            steps += 1
        else:
            held = told.held
        assert bits(held) == bits(told.held)
        assert digest(held, next_seed) == told.after
        state = after
    assert steps == 8


def test_a_digest_depends_on_names_types_shapes_and_bits() -> None:
    zeros = np.zeros(4, np.float32)
    others: list[dict[str, Array]] = [
        {"a": zeros},
        {"b": zeros},
        {"a": zeros.reshape(2, 2)},
        {"a": zeros.view(np.int32)},
        {"a": -zeros},
        {"a": zeros[:3]},
        {"a": zeros, "b": zeros[:0]},
        {},
    ]
    found = {digest(arrays, seed) for arrays in others for seed in (0, 1)}
    assert len(found) == 2 * len(others)
    assert digest({"a": zeros, "b": zeros}, 0) == digest({"b": zeros, "a": zeros}, 0)


def test_a_step_that_failed_is_not_told_as_one() -> None:
    """The state stays as it was, and the updates would lead to another one."""
    run = federation("fed-cma")
    replay = replay_of(METHODS["fed-cma"], METHODS["fed-cma"].config(step="ranks"), run.space)
    assert replay is not None
    state = run.server.init(0)
    updates: list[Update] = [run.update(state, 0, client) for client in EVERYONE]
    first, second = (opened(replay, state, seeds.derive(7, "task", round)) for round in (0, 1))
    assert first.after != second.after
    assert learnt(replay, first, second, state, updates) == second

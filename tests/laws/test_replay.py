"""The law of replays, for all methods that have one: replayed broadcasts are the sent ones, bit for bit."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbbpt import seeds
from fedbbpt.codecs import CODECS, SPARSE
from fedbbpt.errors import InvalidTensor
from fedbbpt.interfaces import Replay, ServerHalf
from fedbbpt.methods import METHODS, WHOLE, replay_of, server_half
from fedbbpt.methods.replay import News, digest, learnt, opened
from fedbbpt.optim.cmaes import _draws
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.types import Array, Arrays, Projection, ProjectionKind, Update, merge, pack
from tests.conformance.test_method import ALL_METHODS, EVERYONE, VARIANTS, Federation, federation


def coded(variant: str, downlink: str) -> tuple[Federation, Replay[Any] | None]:
    """Returns a federation with encoded broadcasts, and the replay of its clients."""
    name, options = VARIANTS[variant]
    method, run = ALL_METHODS[name], federation(variant)
    config = method.config(**{"name": name, **options})
    run.server = server_half(method, config, run.space, downlink)
    return run, replay_of(method, method.settings(config), run.space, downlink)


REPLAYED = [variant for variant in VARIANTS if "readout" not in variant and coded(variant, WHOLE)[1] is not None]
"""The variants whose methods have a replay of their own."""


def test_which_methods_have_replays_of_their_own() -> None:
    """Kills: a replay that is lost, so that this law holds of nothing."""
    assert REPLAYED == ["fed-cma", "fed-cma, newton"]


def bits(arrays: Arrays) -> dict[str, tuple[str, bytes]]:
    return {name: (array.dtype.str, array.tobytes()) for name, array in arrays.items()}


class Follower:
    """A server, and a client that replays its steps from round to round."""

    def __init__(self, server: ServerHalf[Any], replay: Replay[Any] | None, seed: int) -> None:
        assert replay is not None
        self.server, self.replay, self.seed, self.round = server, replay, seed, 0
        self.state = server.init(seed)
        self.told = opened(replay, self.state, self.broadcast, self.task_seed)
        self.held = self.told.held
        self.replayed = 0
        self.earlier: list[tuple[Arrays, int]] = []
        """The states so far with the seeds of their tasks, as clients hold them that missed rounds since."""

    @property
    def task_seed(self) -> int:
        return seeds.derive(self.seed, "task", self.round)

    @property
    def broadcast(self) -> Arrays:
        return self.server.broadcast(self.state, self.task_seed)

    def step(self, updates: Sequence[Update]) -> None:
        """Makes a step, and asserts that the client that replays it has the server's broadcast."""
        replay, before, seed = self.replay, self.told, self.task_seed
        self.earlier.append((self.held, seed))
        self.state = self.server.restore(pack(self.server.step(self.state, updates, seed)[0]))
        self.round += 1
        following = opened(replay, self.state, self.broadcast, self.task_seed)
        # Where updates add, a coordinator may keep no more than their sum.
        summed = [merge(updates)] if self.server.linear else updates
        self.told = learnt(replay, before, following, self.state, self.broadcast, summed)
        if self.told.steps:
            assert before.after == digest(self.held, seed)
            (step,) = self.told.since(before.after).steps(seed)
            self.held = replay.replayed(self.held, step.news, seed)
            self.replayed += 1
        else:
            self.held = self.told.held
        for held, first in self.earlier:
            if (missed := digest(held, first)) in self.told.steps:
                for step in self.told.since(missed).steps(first):
                    held = replay.replayed(held, step.news, step.seed)
                assert digest(held, self.task_seed) == self.told.after
        assert sum(array.nbytes for step in self.told.steps.values() for array in step.news.values()) < sum(
            array.nbytes for array in self.told.held.values()
        )
        assert digest(self.held, self.task_seed) == self.told.after
        assert bits(replay.broadcast(self.held)) == bits(self.broadcast)


@pytest.mark.parametrize("variant", REPLAYED)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**64 - 1), absent=st.lists(st.integers(0, 4), max_size=8))
def test_a_replayed_broadcast_is_the_sent_broadcast(variant: str, seed: int, absent: list[int]) -> None:
    """Kills: a seed of the wrong round, a state that lacks a path, a step after a refused one from newer moves."""
    run, replay = coded(variant, WHOLE)
    follower = Follower(run.server, replay, seed)
    for round in range(8):
        present = [client for client in EVERYONE if round >= len(absent) or client != absent[round]]
        updates = [run.update(follower.state, round, client) for client in present]
        if round in (2, 3) and "decrease" in updates[0].arrays:  # refuse the step
            updates = [replace(update, arrays={**update.arrays, "decrease": np.full(1, -1e3)}) for update in updates]
        follower.step(updates)
    assert follower.replayed == 8


@pytest.mark.parametrize("variant", REPLAYED)
def test_draws_that_were_made_ahead_are_not_made_again(variant: str) -> None:
    """Kills: draws ahead of another seed, population or scale than those of the step."""
    run, replay = coded(variant, WHOLE)
    follower = Follower(run.server, replay, 5)
    updates = [run.update(follower.state, 0, client) for client in EVERYONE]
    _draws.cache_clear()
    follower.replay.draw_ahead(follower.broadcast, follower.task_seed)
    follower.step(updates)
    assert follower.replayed == 1
    assert _draws.cache_info().misses == 1


POINTS: dict[str, dict[str, Any]] = {
    "fed-bpt": {"norm_limit": 3.0},
    "fed-bbpt": {"hidden": 2, "code": 3},
    "fedavg-bbt": {},
}
"""Methods with a point, and their options."""
ENCODED = [*(codec for codec in CODECS if codec != WHOLE), *SPARSE]
WIDE = LatentSpace(40, Projection(ProjectionKind.RADEMACHER, seed=1, tokens=2, scale=1.0, initial_text=""))


@pytest.mark.parametrize("downlink", ENCODED)
@pytest.mark.parametrize("name", POINTS)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**64 - 1))
def test_an_encoded_broadcast_is_the_sent_broadcast(name: str, downlink: str, seed: int) -> None:
    """Kills: errors of the codec that add up, a server that computes from a point that no client has."""
    method = METHODS[name]
    config = method.config(name=name, **POINTS[name])
    server = server_half(method, config, WIDE, downlink, kept=0.3)
    follower = Follower(server, replay_of(method, method.settings(config), WIDE, downlink, kept=0.3), seed)
    draw = np.random.default_rng(seed)
    for _ in range(6):
        forms = {n: form for n, form in server.expected(follower.state).items() if isinstance(form, tuple)}
        arrays = [{n: np.abs(draw.normal(size=form)) for n, form in forms.items()} for _ in range(3)]
        follower.step([Update(each, 1.0, client_id=str(k)) for k, each in enumerate(arrays)])
    assert follower.replayed == 6
    point = method.point(method.settings(config))
    assert follower.broadcast[point].tobytes() == getattr(follower.state.search, point).astype(np.float32).tobytes()


@pytest.mark.parametrize("downlink", ENCODED)
def test_what_a_codec_loses_of_a_broadcast_is_made_up_for(downlink: str) -> None:
    """With the same target in every round, clients get there, however coarse the codec is."""
    method = METHODS["fedavg-bbt"]
    server = server_half(method, method.config(), WIDE, downlink, kept=0.3)
    target = np.random.default_rng(0).normal(size=WIDE.dim)
    update = Update({"mean": target, "sigma": np.ones(1), "loss": np.ones(1)}, 1.0, client_id="a")
    state = server.init(0)
    for round in range(30):
        state, _ = server.step(state, [update], round)
    assert np.abs(server.prompt(state) - target).max() < 1e-3


def test_a_step_that_is_too_large_for_the_codec_is_told_whole() -> None:
    method = METHODS["fedavg-bbt"]
    server = server_half(method, method.config(), WIDE, "float16")
    follower = Follower(server, replay_of(method, method.settings(method.config()), WIDE, "float16"), 0)
    huge = {"mean": np.full(WIDE.dim, 1e6), "sigma": np.ones(1), "loss": np.ones(1)}
    follower.step([Update(huge, 1.0, client_id="a")])
    assert follower.replayed == 0
    np.testing.assert_array_equal(server.prompt(follower.state), np.full(WIDE.dim, 1e6, np.float32))


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
    run, replay = coded("fed-cma", WHOLE)
    assert replay is not None
    state = run.server.init(0)
    updates: list[Update] = [run.update(state, 0, client) for client in EVERYONE]
    broadcast = run.server.broadcast(state, 0)
    first, second = (opened(replay, state, broadcast, seeds.derive(7, "task", round)) for round in (0, 1))
    assert first.after != second.after
    assert learnt(replay, first, second, state, broadcast, updates) == second


def test_news_of_several_steps_have_a_row_for_each() -> None:
    with pytest.raises(InvalidTensor, match=r"best: shape \(2, 3\); 3 rows, one for each step"):
        News({"best": np.zeros((2, 3), np.uint8)}, seeds=(1, 2)).steps(0)
    news = News({"best": np.arange(6, dtype=np.uint8).reshape(2, 3)}, seeds=(8,)).steps(7)
    assert [(step.seed, step.news["best"].tolist()) for step in news] == [(7, [0, 1, 2]), (8, [3, 4, 5])]

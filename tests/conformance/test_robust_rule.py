"""The laws of `server.robust.rule.Rule`, for every rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt import seeds
from fedbbpt.server.robust.defence import RULES, RuleName
from fedbbpt.server.robust.krum import Krum
from fedbbpt.server.robust.rule import Stacks

each_rule = pytest.mark.parametrize("name", RULES)
drawn = st.integers(0, 2**32).map(lambda seed: seeds.rng(seed, "rules"))
counts = st.integers(1, 4)


def honest(rng: np.random.Generator, clients: int) -> dict[str, np.ndarray]:
    centre = rng.normal(0, 3, 4)
    return {"z": centre + rng.normal(0, 1, (clients, 4)), "loss": rng.gamma(2, 1, (clients, 1))}


def lies(rng: np.random.Generator, stacks: Stacks, liars: int, size: float) -> Stacks:
    """Returns the stacks with arbitrary arrays of the last `liars` clients, which all send the same ones or not."""
    found = {name: stack.copy() for name, stack in stacks.items()}
    for stack in found.values():
        shape = (1 if rng.random() < 0.5 else liars, *stack.shape[1:])
        stack[len(stack) - liars :] = rng.normal(0, 10.0**size, shape)
    return found


@each_rule
@given(rng=drawn, adversaries=counts)
def test_the_order_of_clients_does_not_matter(name: RuleName, rng: np.random.Generator, adversaries: int) -> None:
    rule, clients = RULES[name], RULES[name].fewest(adversaries) + int(rng.integers(0, 4))
    stacks, weights = honest(rng, clients), rng.integers(1, 50, clients).astype(np.float64)
    order = rng.permutation(clients)
    found = rule.combine(stacks, weights, adversaries)
    again = rule.combine({key: stack[order] for key, stack in stacks.items()}, weights[order], adversaries)
    for key, array in found.items():
        np.testing.assert_allclose(array, again[key], rtol=1e-9, atol=1e-12)


@each_rule
@given(rng=drawn, adversaries=counts)
def test_equal_updates_give_the_same_one_back(name: RuleName, rng: np.random.Generator, adversaries: int) -> None:
    rule, clients = RULES[name], RULES[name].fewest(adversaries)
    one = honest(rng, 1)
    stacks = {key: np.repeat(stack, clients, axis=0) for key, stack in one.items()}
    found = rule.combine(stacks, rng.integers(1, 50, clients).astype(np.float64), adversaries)
    for key, array in found.items():
        np.testing.assert_allclose(array, one[key][0], rtol=1e-9, atol=1e-12)


@each_rule
@given(rng=drawn, adversaries=counts, size=st.floats(0, 30), heavy=st.floats(0, 9))
def test_adversaries_move_no_number_far(
    name: RuleName, rng: np.random.Generator, adversaries: int, size: float, heavy: float
) -> None:
    """Kills: a mean of all; a weight without a limit; a rule that lets one client too many through."""
    rule = RULES[name]
    clients = rule.fewest(adversaries) + int(rng.integers(0, 4))
    stacks, weights = honest(rng, clients), np.ones(clients)
    weights[clients - adversaries :] = 10.0**heavy
    found = rule.combine(lies(rng, stacks, adversaries, size), weights, adversaries)
    for key, array in found.items():
        others = stacks[key][: clients - adversaries]
        # For Krum, an adversary that is chosen is as near as the honest ones are to each other, times their number.
        reach = np.abs(others).max() + (clients * np.ptp(others) if name == "krum" else 0.0)
        assert np.abs(array).max() <= clients * (1 + reach) if name == "krum" else np.abs(array).max() <= 2 * reach


@each_rule
def test_a_rule_states_how_many_clients_it_needs(name: RuleName) -> None:
    assert [RULES[name].fewest(f) for f in (1, 2)] == ([5, 7] if name == "krum" else [3, 5])


def test_krum_leaves_out_those_who_agree_with_nobody() -> None:
    points = np.array([[0.0], [0.1], [0.2], [0.3], [9.0], [-9.0], [0.15]])
    assert Krum().chosen({"z": points}, 2).tolist() == [0, 1, 2, 3, 6]

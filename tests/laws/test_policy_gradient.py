"""The simplex, and the policy gradient on it."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedbbpt.optim.policy_gradient import PolicyGradient, ScoreFunction
from fedbbpt.optim.simplex import project
from fedbbpt.types import Losses, Population, pack, unpack

WORDS, CANDIDATES, SAMPLES = 2, 3, 5
SEARCH = PolicyGradient(SAMPLES, learning_rate=0.3, weight_decay=0.01, clip_norm=3.0)

Floats = npt.NDArray[np.float64]
rows = hnp.arrays(np.float64, (WORDS, CANDIDATES), elements=st.floats(-100, 100))
told = st.lists(
    hnp.arrays(
        np.float64, SAMPLES, elements=st.one_of(st.floats(-1e6, 1e6), st.sampled_from([np.nan, np.inf, -np.inf]))
    ),
    min_size=1,
    max_size=8,
)
seeds = st.integers(0, 2**64 - 1)


def assert_distributions(theta: Floats) -> None:
    assert (theta >= 0).all()
    np.testing.assert_allclose(theta.sum(axis=1), 1, atol=1e-9)


@given(v=rows, w=rows)
def test_the_projection_is_the_nearest_distribution(v: Floats, w: Floats) -> None:
    """x = project(v) is the nearest if (v - x) . (y - x) <= 0 for every distribution y.

    Kills: cutting negatives off and dividing by the sum, one entry too many or too few above 0."""
    x, y = project(v), project(w)
    assert_distributions(x)
    assert (((v - x) * (y - x)).sum(axis=1) <= 1e-7).all()
    np.testing.assert_allclose(project(x), x, atol=1e-12)


@given(thetas=st.lists(rows, min_size=1, max_size=6), data=st.data())
def test_an_average_of_distributions_is_a_distribution(thetas: list[Floats], data: st.DataObject) -> None:
    """The server's projection therefore corrects the codecs' rounding and changes nothing else.

    Kills: averaging without the weights."""
    weights = data.draw(st.lists(st.integers(1, 100), min_size=len(thetas), max_size=len(thetas)))
    average = sum(n * project(theta) for n, theta in zip(weights, thetas, strict=True)) / sum(weights)
    assert isinstance(average, np.ndarray)
    assert_distributions(average)
    np.testing.assert_allclose(project(average), average, atol=1e-12)


@given(start=rows, losses=told, seed=seeds)
def test_theta_stays_distributions_after_any_losses(start: Floats, losses: list[Losses], seed: int) -> None:
    """A candidate of probability 0 is never drawn.

    Kills: a step without the projection, an infinite loss in the mean, `side="left"` in the search."""
    state = SEARCH.init(project(start))
    for row in losses:
        population = SEARCH.ask(state, seed)
        assert (state.point[np.arange(WORDS), population.astype(int)] > 0).all()
        state = SEARCH.tell(state, population, row)
        assert_distributions(state.point)


@given(start=rows, losses=told, seed=seeds)
def test_arguments_are_unchanged_and_a_stored_state_continues_bit_for_bit(
    start: Floats, losses: list[Losses], seed: int
) -> None:
    """Kills: `state.first *= beta`, shortening the gradient in place, a field that `pack` loses."""
    state = SEARCH.init(project(start))
    for row in losses:
        population = SEARCH.ask(state, seed)
        for array in (population, row, *(array for array in pack(state).values())):
            array.flags.writeable = False
        straight = SEARCH.tell(state, population, row)
        state = SEARCH.tell(unpack(type(state), pack(state)), population, row)
        for name, array in pack(straight).items():
            np.testing.assert_array_equal(array, pack(state)[name])


def loss(population: Population) -> Losses:
    """Returns the losses of prompts of two words, which interact."""
    first, second = population.astype(int).T
    table = np.array([[1.0, 5.0, 2.0], [0.5, -1.0, 7.0], [3.0, 0.0, 4.0]])
    values: Losses = table[first, second]
    return values


THETA = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
EVERY = np.array(list(itertools.product(range(CANDIDATES), repeat=WORDS)), np.float64)


def exact_gradient() -> Floats:
    """Returns d / d theta of the sum over all prompts of theta_1a theta_2b L(a, b)."""
    table = loss(EVERY).reshape(CANDIDATES, CANDIDATES)
    return np.stack([table @ THETA[1], THETA[0] @ table])


@pytest.mark.parametrize(("score_function", "factor"), [("true", 1.0), ("signed", 2.0)])
def test_the_estimate_is_unbiased(score_function: ScoreFunction, factor: float) -> None:
    """The expectation is a sum over all 9^2 generations of two prompts, each with its probability. The baseline is
    the mean of the samples themselves, which dividing by I - 1 corrects, so the estimate lacks the expected loss only.

    Kills: dividing by I, a score of 1 instead of 1 / theta."""
    search = PolicyGradient(2, 0.1, 0.0, 3.0, score_function)
    probability = THETA[0][EVERY[:, 0].astype(int)] * THETA[1][EVERY[:, 1].astype(int)]
    expected = np.zeros_like(THETA)
    for one, other in itertools.product(range(len(EVERY)), repeat=2):
        population = EVERY[[one, other]]
        gradient = search.gradient(THETA, population, loss(population))
        expected += probability[one] * probability[other] * gradient
    mean = probability @ loss(EVERY)
    np.testing.assert_allclose(expected, factor * (exact_gradient() - mean), atol=1e-12)


def test_the_signed_score_function_equals_the_reference_code() -> None:
    """The function is 1 / theta for the drawn candidate and -1 / theta for all others, summed as in the code.

    Kills: any other factor than 2."""
    search = PolicyGradient(4, 0.1, 0.0, 3.0, "signed")
    population = EVERY[[0, 4, 5, 7]]
    losses = loss(population)
    written = np.zeros_like(THETA)
    for k in range(4):
        score = -1 / THETA
        for i in range(WORDS):
            score[i, int(population[k, i])] *= -1
        written += (losses[k] - losses.mean()) * score / 3
    np.testing.assert_allclose(search.gradient(THETA, population, losses), written, atol=1e-12)


def test_prompts_are_drawn_with_their_probabilities() -> None:
    """Kills: one uniform number for all words, candidates counted from 1."""
    drawn = PolicyGradient(20_000, 0.1, 0.0, 3.0).ask(SEARCH.init(THETA), 3)
    found = np.zeros((CANDIDATES, CANDIDATES))
    np.add.at(found, tuple(drawn.astype(int).T), 1 / len(drawn))
    np.testing.assert_allclose(found, np.outer(THETA[0], THETA[1]), atol=0.015)

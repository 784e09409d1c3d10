"""L-BFGS as ask and tell finds the minimum of convex functions, even where what it is told is unreliable."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.optim import lbfgs
from fedbbpt.optim.lbfgs import LbfgsState
from fedbbpt.types import pack, unpack

Floats = npt.NDArray[np.float64]
Objective = Callable[[Floats], tuple[float, Floats]]

CURVATURES = np.geomspace(1e-2, 1.0, 30)


def bowl(centre: float) -> Objective:
    """A quadratic function with a condition number of 100."""
    return lambda x: (float(CURVATURES @ (x - centre) ** 2) / 2, CURVATURES * (x - centre))


def cliff(x: Floats) -> tuple[float, Floats]:
    """A convex function that overflows where a first step along the gradient would land."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.exp(x**2).sum()), 2 * x * np.exp(x**2)


def run(objectives: list[Objective], start: Floats, evaluations: int) -> LbfgsState:
    state = lbfgs.init(start)
    for _ in range(evaluations):
        state = tell(state, objectives)
    return state


def tell(state: LbfgsState, objectives: list[Objective]) -> LbfgsState:
    told = [objective(x) for objective, x in zip(objectives, lbfgs.asked(state), strict=True)]
    return lbfgs.tell(state, np.array([loss for loss, _ in told]), np.array([gradient for _, gradient in told]))


def test_the_searches_do_not_touch_each_other() -> None:
    together = run([bowl(1.0), bowl(-3.0)], np.zeros((2, 30)), 40)
    for index, centre in enumerate((1.0, -3.0)):
        np.testing.assert_array_equal(together.point[index], run([bowl(centre)], np.zeros((1, 30)), 40).point[0])


def test_the_gradient_vanishes_within_as_many_evaluations_as_a_run_has_rounds() -> None:
    assert np.abs(run([bowl(2.0)], np.zeros((1, 30)), 120).gradient).max() < 1e-9


def test_the_first_question_is_the_start() -> None:
    start = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(lbfgs.asked(lbfgs.init(start)), start)


def test_a_value_that_overflows_shortens_the_step() -> None:
    state = run([cliff], np.full((1, 3), 8.0), 1)
    beyond = lbfgs.tell(state, np.array([np.inf]), np.full((1, 3), np.nan))
    np.testing.assert_array_equal(beyond.point, state.point)
    assert 0 < beyond.step[0] < state.step[0]
    final = run([cliff], np.full((1, 3), 8.0), 150)
    np.testing.assert_allclose(final.point, 0.0, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_state_stays_finite_whatever_is_told(value: float) -> None:
    state = lbfgs.init(np.zeros((2, 30)))
    for turn in range(40):
        if turn % 3 == 0:
            state = lbfgs.tell(state, np.full(2, value), np.full((2, 30), value))
        else:
            state = tell(state, [bowl(1.0), bowl(2.0)])
        assert all(np.isfinite(array).all() for array in pack(state).values())
    assert np.abs(state.gradient).max() < 1e-2


def test_the_search_goes_on_where_the_told_values_belong_to_changing_objectives() -> None:
    """Each answer is of another sample of clients: the level and the minimum move a little each time."""
    draw = np.random.default_rng(0)
    state = lbfgs.init(np.zeros((1, 30)))
    for _ in range(120):
        (loss, gradient) = bowl(2.0 + 0.02 * draw.normal())(lbfgs.asked(state)[0])
        state = lbfgs.tell(state, np.array([loss + 0.5 * draw.normal()]), gradient[None])
    assert bowl(2.0)(state.point[0])[0] < 0.01 * bowl(2.0)(np.zeros(30))[0]


def test_a_stalled_search_forgets_its_pairs_and_asks_for_its_point_again() -> None:
    state = run([bowl(1.0)], np.zeros((1, 30)), 10)
    for _ in range(lbfgs.MOST_FAILURES):
        state = lbfgs.tell(state, np.array([1e9]), 1e3 * np.sign(state.direction))  # uphill, wherever it goes
    assert not state.moves.any()
    np.testing.assert_array_equal(lbfgs.asked(state), state.point)
    other = [bowl(5.0)]
    for _ in range(120):
        state = tell(state, other)
    np.testing.assert_allclose(state.point, 5.0, atol=1e-4)


def test_a_state_can_be_stored() -> None:
    state = run([bowl(1.0), bowl(2.0)], np.zeros((2, 30)), 7)
    restored = unpack(LbfgsState, pack(state))
    a, b = (tell(each, [bowl(1.0), bowl(2.0)]) for each in (state, restored))
    np.testing.assert_array_equal(lbfgs.asked(a), lbfgs.asked(b))

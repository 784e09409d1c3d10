"""L-BFGS as ask and tell, for R convex objectives at once. Its state is plain arrays.

Each tell answers one evaluation of each objective, so that a round of a federation is one evaluation. The direction is
the two-loop recursion of Nocedal and Wright, Numerical Optimization, 2nd edition, algorithm 7.4. The step length begins
at 1 and is shortened until the point is accepted.

The objectives may change a little from call to call, because clients drop out. So a point is also accepted on its
gradient alone: if a convex function still falls along the direction of search at a point, the point is lower than the
start, whatever the two told values say (they may be of different clients).
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PAIRS = 10
"""M, the number of pairs of a move and a change of the gradient that are remembered."""
ARMIJO = 1e-4
"""The share of the decrease expected to first order that a step must reach."""
OVERSHOOT = 0.8
"""The slope at the end of a step, as a share of that at its start, up to which values that are about equal suffice."""
NOISE = 1e-6
"""Two values with a smaller relative difference are about equal: their difference may be due to rounding."""
MOST_FAILURES = 6
"""Steps in succession that are not accepted, after which the pairs are forgotten and the point is evaluated again."""


@dataclass(frozen=True, slots=True)
class LbfgsState:
    """The accepted points of R searches, and the steps from them that are to be evaluated next."""

    point: Floats
    """The accepted points, `[R, n]`. No other point is known to be better."""
    loss: Floats
    """Their values, `[R]`; 0 before the first is known."""
    gradient: Floats
    """`[R, n]`"""
    direction: Floats
    """`[R, n]`"""
    step: Floats
    """The length of the next step, as a multiple of the direction, `[R]`; 0 evaluates the accepted point itself."""
    moves: Floats
    """s, the last M moves, oldest first, `[R, M, n]`; zero where there are none."""
    changes: Floats
    """y, the changes of the gradient by the moves, `[R, M, n]`."""
    failures: npt.NDArray[np.int64]
    """Points in succession that were not accepted, `[R]`: 0 if the last one was."""


def init(point: Floats) -> LbfgsState:
    """Returns the state before the first evaluation, which is that of the points `[R, n]` themselves."""
    searches, n = point.shape
    return LbfgsState(
        point=np.array(point, np.float64),
        loss=np.zeros(searches),
        gradient=np.zeros((searches, n)),
        direction=np.zeros((searches, n)),
        step=np.zeros(searches),
        moves=np.zeros((searches, PAIRS, n)),
        changes=np.zeros((searches, PAIRS, n)),
        failures=np.zeros(searches, np.int64),
    )


def asked(state: LbfgsState) -> Floats:
    """Returns the points `[R, n]` to evaluate next."""
    return state.point + state.step[:, None] * state.direction


def tell(state: LbfgsState, loss: Floats, gradient: Floats) -> LbfgsState:
    """Returns the state after an evaluation of the points of `asked`.

    Args:
        state: The state before.
        loss: The values at those points, `[R]`. One that is not finite counts as too large, and shortens the step.
        gradient: The gradients, `[R, n]`.
    """
    finite = np.isfinite(loss) & np.isfinite(gradient).all(axis=1)
    loss = np.where(finite, loss, np.inf)
    gradient = np.where(finite[:, None], gradient, 0.0)
    slope = (state.direction * state.gradient).sum(axis=1)
    slope_after = (state.direction * gradient).sum(axis=1)
    unmoved = state.step == 0
    low = loss <= state.loss + ARMIJO * state.step * slope
    about_equal = np.abs(loss - state.loss) <= NOISE * np.abs(state.loss)
    falling = slope_after <= np.where(about_equal, -OVERSHOOT * slope, 0.0)
    accepted = finite & (unmoved | low | falling)
    return _accept(_reject(state, loss, slope, ~accepted), loss, gradient, accepted, asked(state))


def _reject(state: LbfgsState, loss: Floats, slope: Floats, rejected: npt.NDArray[np.bool_]) -> LbfgsState:
    """Shortens the steps of the searches whose points were rejected."""
    with np.errstate(invalid="ignore", divide="ignore"):
        # The minimum of the parabola through both values and the slope, kept within bounds.
        rise = loss - state.loss - state.step * slope
        shorter = state.step * np.clip(np.nan_to_num(-state.step * slope / (2 * rise)), 0.1, 0.5)
    failures = np.where(rejected, state.failures + 1, 0)
    hopeless = failures >= MOST_FAILURES
    return replace(
        state,
        step=np.where(rejected, np.where(hopeless, 0.0, shorter), state.step),
        moves=np.where(hopeless[:, None, None], 0.0, state.moves),
        changes=np.where(hopeless[:, None, None], 0.0, state.changes),
        failures=failures,
    )


def _accept(
    state: LbfgsState, loss: Floats, gradient: Floats, accepted: npt.NDArray[np.bool_], points: Floats
) -> LbfgsState:
    """Moves the searches whose points were accepted, and chooses their next directions."""
    move, change = points - state.point, gradient - state.gradient
    curvature = (move * change).sum(axis=1)
    # Along a move of a convex function the gradient grows. A pair that says otherwise comes from different clients.
    kept = accepted & (curvature > 1e-12 * np.linalg.norm(move, axis=1) * np.linalg.norm(change, axis=1))
    moves = np.where(kept[:, None, None], _appended(state.moves, move), state.moves)
    changes = np.where(kept[:, None, None], _appended(state.changes, change), state.changes)
    direction = -_times_inverse_hessian(moves, changes, gradient)
    length = np.linalg.norm(gradient, axis=1)
    known = moves.any(axis=(1, 2))
    with np.errstate(divide="ignore"):
        first_step = np.minimum(1.0, 1.0 / length)  # a gradient alone has no scale
    chosen = accepted[:, None]
    return LbfgsState(
        point=np.where(chosen, points, state.point),
        loss=np.where(accepted, loss, state.loss),
        gradient=np.where(chosen, gradient, state.gradient),
        direction=np.where(chosen, direction, state.direction),
        step=np.where(accepted, np.where(known, 1.0, first_step), state.step),
        moves=moves,
        changes=changes,
        failures=state.failures,
    )


def _appended(pairs: Floats, last: Floats) -> Floats:
    return np.concatenate([pairs[:, 1:], last[:, None]], axis=1)


def _times_inverse_hessian(moves: Floats, changes: Floats, gradient: Floats) -> Floats:
    """Returns H g for each search `[R, n]`, by the two-loop recursion. Pairs of zeros leave H as it is."""
    curvature = (moves * changes).sum(axis=2)  # [R, M]
    rho = np.divide(1.0, curvature, out=np.zeros_like(curvature), where=curvature > 0)
    result: Floats = gradient
    alphas = np.zeros_like(rho)
    for i in reversed(range(moves.shape[1])):
        alphas[:, i] = rho[:, i] * (moves[:, i] * result).sum(axis=1)
        result = result - alphas[:, i, None] * changes[:, i]
    square = (changes[:, -1] ** 2).sum(axis=1)
    scale = np.divide(curvature[:, -1], square, out=np.ones_like(square), where=square > 0)
    result = np.asarray(scale[:, None] * result)
    for i in range(moves.shape[1]):
        beta = rho[:, i] * (changes[:, i] * result).sum(axis=1)
        result = result + (alphas[:, i] - beta)[:, None] * moves[:, i]
    return result

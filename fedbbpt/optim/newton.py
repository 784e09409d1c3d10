"""Newton steps in the span of a population, from the scores of its candidates, within a trust region.

A search that sees one loss for each candidate learns P numbers from a population. The scores contain more: where they
are about linear in z, they determine the loss of every mixture of the candidates, and so the best mixture. How far
they are linear is not known in advance, and a step beyond that raises the loss. So a step is no longer than a radius.
The next population holds the point where the step began, the centre, and the losses of both points on the same
examples judge the step. If it raised the objective, it is refused, and a shorter one is made from the centre. The
radius grows after steps that lowered it as predicted (Nocedal and Wright, Numerical Optimization, 2006, chapter 4).

Both losses come from one population, so the step may have been made on other examples: those of clients that are
missing now, or another batch. A step then often fails because the examples differ, however short it is. So the radius
has a smallest value, at which steps are accepted in any case: many short steps on different examples average out.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.optim.cmaes import sample
from fedbbpt.types import Expansion, Population

Vector = npt.NDArray[np.float64]

GOOD = 0.75
"""The ratio of the actual to the predicted decrease above which the radius grows."""
SHRINKS, GROWS = 0.5, 1.5
"""The factors of the radius."""
SMALLEST, LARGEST = 0.3, 3.0
"""The limits of the radius, times its initial value."""
NEAR = 0.25
"""The distance of the candidates from the mean, times the initial radius: close enough for the slopes to be those at
the mean, and far enough for their scores to differ by more than their rounding."""


@dataclass(frozen=True, slots=True)
class NewtonState:
    """A step that the next population judges, and the model of the objective that it comes from.

    At center + u mixtures moves, the objective is about its value at the center + slopes u + curvatures u^2 / 2.
    """

    mean: Vector
    """The point `[n]` that the step reached, and that the next population is drawn around."""
    center: Vector
    """The point `[n]` that the step began at, which is the best so far."""
    moves: Population
    """The moves `[N, n]` from `center` in which the model was made; N = 0 before the first population."""
    mixtures: Vector
    """`[r, N]`: the mixtures of the moves along which the model is diagonal, orthonormal in z."""
    slopes: Vector
    """`[r]`"""
    curvatures: Vector
    """`[r]`, none of which is negative."""
    radius: float
    """The largest length of a step."""
    predicted: float
    """The decrease of the objective from `center` to `mean` that the model predicts."""
    generation: int


def candidates(
    mean: npt.NDArray[np.floating],
    center: npt.NDArray[np.floating],
    scale: float,
    seed: int,
    *,
    population: int,
    offsets: int,
) -> Population:
    """Returns candidates `[P, n]`: the centre, and random ones around the mean that share the mean's offsets.

    They are rounded to float32, as the PTM gets them.
    """
    scales = np.full(len(mean), scale)
    scales[len(mean) - offsets :] = 0.0
    found = np.concatenate([center[None], sample(mean, scales, seed, population - 1)])
    return found.astype(np.float32).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Newton:
    """The search. It minimises F(z) + ridge / 2 |z|^2.

    The last `offsets` entries of z need no candidates, because the expansion of F covers them.
    """

    population: int
    sigma: float
    """The initial radius is sigma sqrt(n), the usual length of a step of a search with that step size."""
    ridge: float
    offsets: int = 0

    def init(self, mean: Vector) -> NewtonState:
        n = len(mean)
        start = np.array(mean, np.float64)
        return NewtonState(
            mean=start,
            center=start,
            moves=np.zeros((0, n)),
            mixtures=np.zeros((0, 0)),
            slopes=np.zeros(0),
            curvatures=np.zeros(0),
            radius=self.sigma * math.sqrt(n),
            predicted=0.0,
            generation=0,
        )

    @property
    def scale(self) -> float:
        """The standard deviation of the candidates in each dimension that they vary."""
        return NEAR * self.sigma

    def tell(self, state: NewtonState, population: Population, expansion: Expansion, decrease: float) -> NewtonState:
        """Judges the last step and makes the next one.

        Args:
            state: The search before this population.
            population: The candidates `[P, n]`.
            expansion: F around the mean in the mixtures of the candidates and in the offsets, `[P + offsets]` numbers.
            decrease: F at the centre minus F at the mean, on the same examples. NaN counts as an increase.
        """
        mean, center = state.mean, state.center
        moves, mixtures, slopes, curvatures = state.moves, state.mixtures, state.slopes, state.curvatures
        decrease += self.ridge / 2 * float(center @ center - mean @ mean)
        radius = self._radius(state, decrease)
        if decrease >= 0 or not radius < state.radius:
            center = mean
            moves = moves_of(mean, population, self.offsets)
            mixtures, slopes, curvatures = model(mean, moves, expansion, self.ridge)
        move = within(slopes, curvatures, radius)
        predicted = -float(slopes @ move + curvatures @ move**2 / 2)
        return NewtonState(
            mean=stepped(center, moves, move @ mixtures),
            center=center,
            moves=moves,
            mixtures=mixtures,
            slopes=slopes,
            curvatures=curvatures,
            radius=radius,
            predicted=predicted,
            generation=state.generation + 1,
        )

    def _radius(self, state: NewtonState, decrease: float) -> float:
        """Returns the radius after a step with that actual decrease."""
        initial = self.sigma * math.sqrt(len(state.mean))
        length = float(np.linalg.norm(state.mean - state.center))
        if state.generation and not decrease >= 0:  # NaN included
            return max(SHRINKS * min(length, state.radius), SMALLEST * initial)
        if decrease > GOOD * state.predicted and length > 0.9 * state.radius:
            return min(GROWS * state.radius, LARGEST * initial)
        return state.radius


def moves_of(mean: Vector, population: Population, offsets: int) -> Population:
    """Returns the moves `[N, n]` from the mean to the candidates, and along each of the last entries of z."""
    return np.concatenate([population - mean, np.eye(len(mean))[len(mean) - offsets :]])


def mixture(state: NewtonState) -> Vector:
    """Returns the mixture `[N]` of the moves that the step from `center` to `mean` consists of."""
    return within(state.slopes, state.curvatures, state.radius) @ state.mixtures


def stepped(center: Vector, moves: Population, mixture: Vector) -> Vector:
    """Returns center + mixture moves `[n]`, rounded to float32, as the PTM gets it.

    It is added up one move after the other, so that all machines find the same bits.
    """
    reached = center.copy()
    for weight, move in zip(mixture, moves, strict=True):
        reached += weight * move
    return reached.astype(np.float32).astype(np.float64)


def model(z: Vector, moves: Population, expansion: Expansion, ridge: float) -> tuple[Vector, Vector, Vector]:
    """Returns the mixtures `[r, N]`, slopes `[r]` and curvatures `[r]` of F(z) + ridge / 2 |z|^2 around z.

    The mixtures of the moves are orthonormal axes in z, so that neither the lengths nor the number of the moves matter.
    They span the moves, and the Hessian is diagonal along them.

    Args:
        z: The point `[n]` of the expansion.
        moves: The moves `[N, n]` from z, in the mixtures of which F is expanded.
        expansion: F at z + sum_i a_i moves_i to second order in a. If codecs have made its Hessian indefinite, the
            nearest positive semidefinite one is used.
        ridge: The weight that draws z to 0.
    """
    left, lengths, basis = np.linalg.svd(moves, full_matrices=False)
    kept = lengths > 1e-6 * lengths.max()
    basis, mixtures = basis[kept], (left[:, kept] / lengths[kept]).T  # [r, n], [r, N]
    curvatures, rotation = np.linalg.eigh(mixtures @ expansion.hessian @ mixtures.T)
    slopes = rotation.T @ mixtures @ expansion.gradient + ridge * (rotation.T @ basis) @ z
    return rotation.T @ mixtures, slopes, np.maximum(curvatures, 0.0) + ridge


def within(slopes: Vector, curvatures: Vector, radius: float) -> Vector:
    """Returns the u `[r]` with |u| <= radius that minimises slopes u + curvatures u^2 / 2, for curvatures >= 0.

    It is -slopes / (curvatures + damping), with the smallest damping that makes it short enough (Nocedal and Wright,
    theorem 4.1).
    """

    def damped(damping: float) -> Vector:
        below = curvatures + damping
        return np.divide(-slopes, below, out=np.zeros_like(slopes), where=below > 0)

    # Even a single entry must not be longer than the radius, and without any curvature all of them must not.
    low = float(np.maximum(np.abs(slopes) / radius - curvatures, 0.0).max(initial=0.0))
    high = float(np.linalg.norm(slopes)) / radius
    if np.linalg.norm(damped(low)) <= radius:
        return damped(low)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if np.linalg.norm(damped(middle)) <= radius else (middle, high)
    return damped(high)

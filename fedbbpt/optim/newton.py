"""A Newton step in the span of a population, from the scores of its candidates.

A search that sees one loss for each candidate learns P numbers from a population. The scores contain more: where they
are about linear in z, they determine the loss of every mixture of the candidates, and so the best mixture.
"""

import numpy as np
import numpy.typing as npt

from fedbbpt.types import Expansion, Population

Vector = npt.NDArray[np.float64]


def step(z: Vector, moves: Population, expansion: Expansion, ridge: float, damping: float, radius: float) -> Vector:
    """Returns the best move of z in the span of `moves`, `[n]`, shortened to `radius`.

    The move is sum_i a_i moves_i, where a minimises

        F(a) + ridge / 2 |z + move|^2 + damping / 2 |move|^2

    Args:
        z: The point `[n]` to move.
        moves: The moves `[N, n]` that are mixed.
        expansion: F to second order in a. If codecs have made its Hessian indefinite, the nearest positive semidefinite
            one is used.
        ridge: The weight that draws z to 0.
        damping: The weight that shortens the move.
        radius: The largest length of the move.
    """
    gram = moves @ moves.T
    gradient = expansion.gradient + ridge * moves @ z
    eigenvalues, vectors = np.linalg.eigh(expansion.hessian)
    hessian = (vectors * np.maximum(eigenvalues, 0.0)) @ vectors.T + (ridge + damping) * gram
    # With more moves than dimensions the Hessian is singular, and lstsq returns the shortest solution.
    mixture = -np.linalg.lstsq(hessian, gradient, rcond=None)[0]
    move: Vector = mixture @ moves
    length = float(np.linalg.norm(move))
    return move if length <= radius else move * (radius / length)

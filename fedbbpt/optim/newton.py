"""A Newton step in the span of a population, from what the scores of its candidates say together.

A search that sees one loss for each candidate learns P numbers from a population. The scores tell more: where they
change about evenly with z, the loss of every mixture of the candidates follows from them, and its best mixture with it.
"""

import numpy as np
import numpy.typing as npt

from fedbbpt.types import Expansion, Population

Vector = npt.NDArray[np.float64]


def step(z: Vector, moves: Population, expansion: Expansion, ridge: float, damping: float, radius: float) -> Vector:
    """The move of z `[n]` by sum_i a_i moves_i `[N, n]`, no longer than `radius`.

    a minimises the expanded loss + ridge / 2 |z + move|^2 + damping / 2 |move|^2. A Hessian that rounding on its way
    has made indefinite counts as the nearest one that is not.
    """
    gram = moves @ moves.T
    gradient = expansion.gradient + ridge * moves @ z
    eigenvalues, vectors = np.linalg.eigh(expansion.hessian)
    hessian = (vectors * np.maximum(eigenvalues, 0.0)) @ vectors.T + (ridge + damping) * gram
    # More moves than dimensions leave hessian singular; of all solutions it is then the shortest.
    mixture = -np.linalg.lstsq(hessian, gradient, rcond=None)[0]
    move: Vector = mixture @ moves
    length = float(np.linalg.norm(move))
    return move if length <= radius else move * (radius / length)

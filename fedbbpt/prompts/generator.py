"""A small network whose output is z and whose weights a search tunes (Fed-BBPT, arXiv 2310.03123).

z = W_2 tanh(W_1 e + b_1) + b_2, with a latent code e `[code]` that the seed fixes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.types import Population


@dataclass(frozen=True, slots=True)
class Generator:
    """Makes z of its weights theta."""

    dim: int
    """n, the length of z."""
    code: int
    """The length of the latent code."""
    hidden: int
    """The width of the hidden layer."""
    seed: int
    """The seed of the latent code and of the initial weights."""

    @property
    def size(self) -> int:
        """The length of theta, which is W_1, b_1, W_2 and b_2, flattened and concatenated."""
        return self.hidden * (self.code + 1) + self.dim * (self.hidden + 1)

    def init(self) -> npt.NDArray[np.float64]:
        """Returns a theta `[size]` whose z is 0: W_1 is random, the rest is zero."""
        theta = np.zeros(self.size)
        first = seeds.normals(seeds.derive(self.seed, "generator", "weights"), (self.hidden, self.code))
        theta[: first.size] = (first / np.sqrt(self.code)).ravel()
        return theta

    def __call__(self, thetas: Population) -> Population:
        """Returns the z `[P, n]` of weights `[P, size]`."""
        code = seeds.normals(seeds.derive(self.seed, "generator", "code"), (self.code,))
        sizes = [self.hidden * self.code, self.hidden, self.dim * self.hidden]
        w_1, b_1, w_2, b_2 = np.split(thetas, np.cumsum(sizes), axis=1)
        hidden = np.tanh(w_1.reshape(-1, self.hidden, self.code) @ code + b_1)
        z: Population = np.einsum("pnh,ph->pn", w_2.reshape(-1, self.dim, self.hidden), hidden) + b_2
        return z

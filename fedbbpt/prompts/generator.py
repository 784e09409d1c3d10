"""A small net whose output is z and whose weights are what a search tunes (Fed-BBPT, arXiv 2310.03123).

z = W_2 tanh(W_1 e + b_1) + b_2, with a latent code e `[code]` that the seed fixes for good.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.types import Population


@dataclass(frozen=True, slots=True)
class Generator:
    dim: int
    """n, the length of z."""
    code: int
    hidden: int
    seed: int

    @property
    def size(self) -> int:
        """The length of theta: W_1, b_1, W_2 and b_2, flat, one behind the other."""
        return self.hidden * (self.code + 1) + self.dim * (self.hidden + 1)

    def init(self) -> npt.NDArray[np.float64]:
        """theta `[size]` whose z is 0: W_1 is random, the rest is zero."""
        theta = np.zeros(self.size)
        first = seeds.normals(seeds.derive(self.seed, "generator", "weights"), (self.hidden, self.code))
        theta[: first.size] = (first / np.sqrt(self.code)).ravel()
        return theta

    def __call__(self, thetas: Population) -> Population:
        """`[P, size]` -> z `[P, n]`."""
        code = seeds.normals(seeds.derive(self.seed, "generator", "code"), (self.code,))
        sizes = [self.hidden * self.code, self.hidden, self.dim * self.hidden]
        w_1, b_1, w_2, b_2 = np.split(thetas, np.cumsum(sizes), axis=1)
        hidden = np.tanh(w_1.reshape(-1, self.hidden, self.code) @ code + b_1)
        z: Population = np.einsum("pnh,ph->pn", w_2.reshape(-1, self.dim, self.hidden), hidden) + b_2
        return z

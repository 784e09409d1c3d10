"""From z to a soft prompt by a seeded random matrix A `[L*D, n]` (black-box tuning, arXiv 2201.03514, section 3.2).

prompt = initial + scale x std x (A z) / sqrt(n). Only z travels: A comes out of the seed, in any language.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidTensor
from fedbbpt.seeds import normals32, signs
from fedbbpt.types import Projection, ProjectionKind

MAX_ELEMENTS = 2**27
"""Of A: half a GiB. RoBERTa-large with 50 tokens and n = 500 takes a fifth of it."""


@lru_cache(maxsize=4)
def matrix(kind: ProjectionKind, seed: int, rows: int, n: int) -> npt.NDArray[np.float32]:
    """A `[rows, n]`, read-only. Kept, since the clients of a run share it."""
    if rows * n > MAX_ELEMENTS:
        raise InvalidTensor(f"a projection of {rows} x {n}", where="latent.z", fix=f"at most {MAX_ELEMENTS} elements")
    if kind is ProjectionKind.RADEMACHER:
        a: npt.NDArray[np.float32] = signs(seed, (rows, n)).astype(np.float32)
    else:
        a = normals32(seed, (rows, n))
    a.setflags(write=False)
    return a


def project(
    projection: Projection, z: npt.NDArray[np.float32], initial: npt.NDArray[np.float32], std: float
) -> npt.NDArray[np.float32]:
    """The prompts `[P, L, D]` of z `[P, n]` around `initial` `[L, D]`; `std` is that of the model's token embeddings.

    A prompt's bits do not depend on the prompts beside it, on threads or on a BLAS: each z is multiplied alone, by
    einsum's own loop. Raises InvalidTensor where a prompt overflows or A would be too large.
    """
    n = z.shape[1]
    a = matrix(projection.kind, projection.seed, initial.size, n)
    factor = np.float32(projection.scale * std / np.sqrt(n))
    with np.errstate(over="ignore", invalid="ignore"):
        rows = [initial + factor * np.einsum("rn,n->r", a, one).reshape(initial.shape) for one in z]
    prompts = np.stack(rows)
    if not np.isfinite(prompts).all():
        raise InvalidTensor("the prompt overflows float32", where="latent.z", fix="a smaller z or scale")
    return prompts

"""From z to a soft prompt by a seeded random matrix A `[L*D, n]` (black-box tuning, arXiv 2201.03514, section 3.2).

prompt = initial + scale x std x (A z) / sqrt(n). Only z travels: every language draws the same A from the seed. A
matrix of signs is kept as bits, an eighth of a byte for each element, and a few rows at a time become numbers.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidTensor
from fedbbpt.limits import MAX_PROJECTION_ELEMENTS, MAX_VECTOR_NORM
from fedbbpt.seeds import normals32, sign_bits, signs_of
from fedbbpt.types import Projection, ProjectionKind

BLOCK_ELEMENTS = 2**18
"""Elements of the rows that are multiplied with one z after the other: a MiB, which fits a core's cache."""

# Cached, because the clients of a run share them.
_bits = lru_cache(maxsize=4)(sign_bits)
_normals = lru_cache(maxsize=4)(normals32)


def blocks(kind: ProjectionKind, seed: int, rows: int, n: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yields A `[rows, n]` from its first row to its last, a few rows at a time.

    Raises:
        InvalidTensor: A is larger than MAX_PROJECTION_ELEMENTS.
    """
    if rows * n > MAX_PROJECTION_ELEMENTS:
        fix = f"at most {MAX_PROJECTION_ELEMENTS} elements"
        raise InvalidTensor(f"a projection of {rows} x {n}", where="latent.z", fix=fix)
    step = 8 * max(1, BLOCK_ELEMENTS // (8 * n))  # a multiple of 8, so that each block starts at a whole byte of bits
    starts = range(0, rows, step)
    if kind is ProjectionKind.RADEMACHER:
        bits = _bits(seed, rows * n)
        for start in starts:
            count = min(step, rows - start)
            yield signs_of(bits[start * n // 8 :], count * n).astype(np.float32).reshape(count, n)
    else:
        a = _normals(seed, (rows, n))
        yield from (a[start : start + step] for start in starts)


def project(
    projection: Projection, z: npt.NDArray[np.float32], initial: npt.NDArray[np.float32], std: float
) -> npt.NDArray[np.float32]:
    """Returns the prompts `[P, L, D]` of z `[P, n]` around `initial` `[L, D]`.

    A prompt's bits depend neither on the other prompts nor on threads or a BLAS: each z is multiplied alone, by
    einsum's own loop.

    Args:
        projection: How A is drawn and scaled.
        z: Latent vectors.
        initial: The embeddings from which every prompt starts.
        std: The standard deviation of the model's word embeddings.

    Raises:
        InvalidTensor: A, or a vector of a prompt, would be too large.
    """
    count, n = z.shape
    products, start = np.empty((count, initial.size), np.float32), 0
    with np.errstate(over="ignore", invalid="ignore"):
        for a in blocks(projection.kind, projection.seed, initial.size, n):
            for product, one in zip(products, z, strict=True):
                np.einsum("rn,n->r", a, one, out=product[start : start + len(a)])
            start += len(a)
        prompts: npt.NDArray[np.float32] = initial + factor(projection, n, std) * products.reshape(-1, *initial.shape)
        check_norm(np.sqrt(np.square(prompts, dtype=np.float64).sum(axis=-1)).max())
    return prompts


def factor(projection: Projection, n: int, std: float) -> np.float32:
    """Returns the factor of A z, scale x std / sqrt(n)."""
    return np.float32(projection.scale * std / np.sqrt(n))


def check_norm(longest: float) -> None:
    """Raises InvalidTensor if the norm of the longest vector is too large, or NaN because a vector overflowed."""
    if not longest <= MAX_VECTOR_NORM:
        fix = f"a smaller z or scale: at most {MAX_VECTOR_NORM:g}"
        raise InvalidTensor(f"a vector with a norm of {longest:.3g}", where="latent.z", fix=fix)

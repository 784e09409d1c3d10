"""From z to a soft prompt by a seeded random matrix A `[L*D, n]` (black-box tuning, arXiv 2201.03514, section 3.2).

prompt = initial + scale x std x (A z) / sqrt(n). Only z travels: A comes out of the seed, in any language. Of a matrix
of signs the bits are kept, an eighth of a byte an element, and become numbers some rows at a time.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidTensor
from fedbbpt.seeds import normals32, sign_bits, signs_of
from fedbbpt.types import MAX_VECTOR_NORM, Projection, ProjectionKind

MAX_ELEMENTS = 2**27
"""Of A: half a GiB of normal numbers. RoBERTa-large with 50 tokens and n = 500 takes a fifth of it."""
BLOCK_ELEMENTS = 2**18
"""Of the rows that are multiplied with all z in turn: a MiB, which a core's cache holds."""

# Kept, since the clients of a run share them.
_bits = lru_cache(maxsize=4)(sign_bits)
_normals = lru_cache(maxsize=4)(normals32)


def blocks(kind: ProjectionKind, seed: int, rows: int, n: int) -> Iterator[npt.NDArray[np.float32]]:
    """A `[rows, n]` from its first row to its last, some at a time. Raises InvalidTensor where it is too large."""
    if rows * n > MAX_ELEMENTS:
        raise InvalidTensor(f"a projection of {rows} x {n}", where="latent.z", fix=f"at most {MAX_ELEMENTS} elements")
    step = 8 * max(1, BLOCK_ELEMENTS // (8 * n))  # so that each block begins with a byte of bits
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
    """The prompts `[P, L, D]` of z `[P, n]` around `initial` `[L, D]`; `std` is that of the model's token embeddings.

    A prompt's bits do not depend on the prompts beside it, on threads or on a BLAS: each z is multiplied alone, by
    einsum's own loop. Raises InvalidTensor where A or a vector of a prompt would be too large.
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
    return np.float32(projection.scale * std / np.sqrt(n))


def check_norm(greatest: float) -> None:
    """Of all vectors; NaN where one overflows. Raises InvalidTensor."""
    if not greatest <= MAX_VECTOR_NORM:
        fix = f"a smaller z or scale: at most {MAX_VECTOR_NORM:g}"
        raise InvalidTensor(f"a vector with a norm of {greatest:.3g}", where="latent.z", fix=fix)

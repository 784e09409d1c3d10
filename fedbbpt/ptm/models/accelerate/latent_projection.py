"""Projects latent prompts z to prompt vectors, on the device of the model.

On a CPU the result is bit-identical to `prompts.projection`; another device computes it by one matrix product.

The scale of prompt vectors is that of word vectors as they enter the model: Gemma, BioGPT, XGLM and others multiply the
weights that they store by the square root of the width.
"""

from collections.abc import Iterator
from functools import lru_cache
from math import sqrt

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedbbpt.limits import MAX_VECTOR_NORM
from fedbbpt.prompts.projection import blocks, check_norm, factor, project
from fedbbpt.ptm.models.accelerate.upload import upload
from fedbbpt.types import Projection, ProjectionKind

ROWS_AT_A_TIME = 4096
"""Word vectors that are computed at a time to measure them."""
CACHED_MATRICES = 4
"""Number of projection matrices that are kept on a device. The clients of a run share one."""


def deviation_of_words(embeddings: nn.Embedding) -> float:
    """Returns the standard deviation of the elements of all word vectors, as they enter the model."""
    if type(embeddings) is nn.Embedding:
        return float(embeddings.weight.std())
    sums = torch.stack([torch.stack([v.sum(), v.square().sum()]) for v in map(Tensor.double, _vectors(embeddings))])
    total, squares = map(float, sums.sum(0))
    count = embeddings.weight.numel()
    return sqrt(max(0.0, squares - total * total / count) / (count - 1))


def _vectors(embeddings: nn.Embedding) -> Iterator[Tensor]:
    """Yields all word vectors `[vocabulary, D]` in blocks of rows."""
    count = embeddings.num_embeddings
    for start in range(0, count, ROWS_AT_A_TIME):
        yield embeddings(torch.arange(start, min(start + ROWS_AT_A_TIME, count), device=embeddings.weight.device))


class LatentProjector:
    """Projects latent prompts for one model."""

    def __init__(self, embeddings: nn.Embedding) -> None:
        """`embeddings`: the model's word embeddings, which give prompt vectors their scale."""
        self._device = embeddings.weight.device
        self._std = deviation_of_words(embeddings)
        self._longest = max(float(torch.linalg.vector_norm(some, dim=1).max()) for some in _vectors(embeddings))
        self._matrix = lru_cache(maxsize=CACHED_MATRICES)(self._load)

    def __call__(self, projection: Projection, z: npt.NDArray[np.float32], initial: Tensor) -> Tensor:
        """Returns the prompt vectors `[P, L, D]` of z `[P, n]`, with `initial` `[L, D]` for z = 0.

        `initial` holds word vectors or zeros.

        Raises:
            InvalidTensor: A vector is longer than MAX_VECTOR_NORM.
        """
        if self._device.type == "cpu":
            return torch.from_numpy(project(projection, z, initial.numpy(), self._std))
        n, width = z.shape[1], initial.shape[1]
        scale = float(factor(projection, n, self._std))
        a, longest_row = self._matrix(projection.kind, projection.seed, initial.numel(), n)
        vectors: Tensor = initial + (upload(z, self._device) @ a.T * scale).reshape(-1, *initial.shape)
        # A bound by the Cauchy-Schwarz inequality, which needs no wait for the device, makes the exact check rare.
        longest_z = float(np.sqrt(np.square(z, dtype=np.float64).sum(axis=1)).max())
        if self._longest + abs(scale) * sqrt(width) * longest_row * longest_z > MAX_VECTOR_NORM:
            check_norm(float(torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float64).max()))
        return vectors

    def _load(self, kind: ProjectionKind, seed: int, rows: int, n: int) -> tuple[Tensor, float]:
        """Loads A `[rows, n]` onto the device; returns it with the largest norm of its rows."""
        a = torch.cat([torch.from_numpy(block.copy()).to(self._device) for block in blocks(kind, seed, rows, n)])
        return a, float(torch.linalg.vector_norm(a, dim=1).max())

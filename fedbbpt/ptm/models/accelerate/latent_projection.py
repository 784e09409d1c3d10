"""Latent prompts as vectors, where the model is: on a CPU to the bit, on another device by one product."""

from functools import lru_cache
from math import sqrt

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbbpt.prompts.projection import blocks, check_norm, factor, project
from fedbbpt.ptm.models.accelerate.upload import upload
from fedbbpt.types import MAX_VECTOR_NORM, Projection, ProjectionKind

CACHED_MATRICES = 4
"""That are kept on a device: the clients of a run share theirs."""


class LatentProjector:
    def __init__(self, words: Tensor) -> None:
        """`words` `[vocabulary, D]` are the model's, which tell how far a vector should go."""
        self._device = words.device
        self._std = float(words.std())
        self._longest = float(torch.linalg.vector_norm(words, dim=1).max())
        self._matrix = lru_cache(maxsize=CACHED_MATRICES)(self._load)

    def __call__(self, projection: Projection, z: npt.NDArray[np.float32], initial: Tensor) -> Tensor:
        """`[P, L, D]` of z `[P, n]` around `initial` `[L, D]`, which are words or zeros.

        The last bits are promised on a CPU only. Raises InvalidTensor.
        """
        if self._device.type == "cpu":
            return torch.from_numpy(project(projection, z, initial.numpy(), self._std))
        n, width = z.shape[1], initial.shape[1]
        scale = float(factor(projection, n, self._std))
        a, longest_row = self._matrix(projection.kind, projection.seed, initial.numel(), n)
        vectors: Tensor = initial + (upload(z, self._device) @ a.T * scale).reshape(-1, *initial.shape)
        # What no prompt can exceed is known without waiting for the device (Cauchy and Schwarz).
        longest_z = float(np.sqrt(np.square(z, dtype=np.float64).sum(axis=1)).max())
        if self._longest + abs(scale) * sqrt(width) * longest_row * longest_z > MAX_VECTOR_NORM:
            check_norm(float(torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float64).max()))
        return vectors

    def _load(self, kind: ProjectionKind, seed: int, rows: int, n: int) -> tuple[Tensor, float]:
        """A `[rows, n]`, and the greatest norm of its rows."""
        a = torch.cat([torch.from_numpy(block.copy()).to(self._device) for block in blocks(kind, seed, rows, n)])
        return a, float(torch.linalg.vector_norm(a, dim=1).max())

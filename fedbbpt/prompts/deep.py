"""z as a deep prompt: keys and values in front of every layer's own (prefix tuning, arXiv 2101.00190).

prefix = initial + z. The initial prefix is random, fixed by a seed: tokens that begin alike would stay alike for ever.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.types import DeepPrompts, Examples, Scores


@dataclass(frozen=True, slots=True)
class DeepSpace:
    """Implements interfaces.PromptSpace. The model's shape is part of it: who makes prompts need not know the model."""

    layers: int
    heads: int
    """Of keys and values."""
    width: int
    """Of a head."""
    tokens: int
    """L"""
    seed: int
    std: float
    """The standard deviation of the initial prefix."""
    kind: Literal["deep"] = "deep"

    @property
    def offsets(self) -> int:
        return 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one prefix."""
        return self.layers, 2, self.heads, self.tokens, self.width

    @property
    def dim(self) -> int:
        return math.prod(self.shape)

    @property
    def prompt_tokens(self) -> int:
        return self.tokens

    def prefixes(self, z: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """z `[P, dim]` -> `[P, layers, 2, heads, L, width]`."""
        prefixes: npt.NDArray[np.float32] = _initial(self) + z.astype(np.float32).reshape(len(z), *self.shape)
        return prefixes

    def z(self, prefixes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The inverse of `prefixes`, but for rounding."""
        flat: npt.NDArray[np.float32] = (prefixes - _initial(self)).reshape(len(prefixes), self.dim)
        return flat

    def prompts(self, z: npt.NDArray[np.floating], examples: Examples) -> DeepPrompts:
        return DeepPrompts(self.prefixes(z))

    def shifted(self, scores: Scores, z: npt.NDArray[np.floating]) -> Scores:
        return scores

    def __str__(self) -> str:
        return f"{self.tokens} keys and values in each of {self.layers} layers, {self.heads} heads of {self.width}"


@lru_cache(maxsize=4)
def _initial(space: DeepSpace) -> npt.NDArray[np.float32]:
    """std x normals(seed, shape)."""
    return (space.std * seeds.normals(space.seed, space.shape)).astype(np.float32)

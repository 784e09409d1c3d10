"""z as a deep prompt: keys and values before those of the input in every layer (prefix tuning, arXiv 2101.00190).

prefix = initial + z in the layers from `first_layer` on, and the initial prefix below them. The initial prefix is
random, because tokens that start equal would stay equal; a seed fixes it.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.prompts.unshifted import Unshifted
from fedbbpt.types import DeepPrompts, DeepSpaceSettings, Examples


@dataclass(frozen=True, slots=True)
class DeepSpace(Unshifted, DeepSpaceSettings):
    """Makes prefixes of z. Implements `interfaces.PromptSpace`.

    The settings include the model's shape, so that making prompts does not require the model.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one prefix, (layers, 2, heads, L, width)."""
        return self.layers, 2, self.heads, self.tokens, self.width

    @property
    def dim(self) -> int:
        return math.prod(self.shape[1:]) * (self.layers - self.first_layer)

    @property
    def prompt_tokens(self) -> int:
        return self.tokens

    def prefixes(self, z: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Returns the prefixes `[P, layers, 2, heads, L, width]` of z `[P, dim]`."""
        prefixes = np.repeat(_initial(self)[None], len(z), axis=0)
        prefixes[:, self.first_layer :] += z.astype(np.float32).reshape(len(z), -1, *self.shape[1:])
        return prefixes

    def z(self, prefixes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Returns the z `[P, dim]` of prefixes: the inverse of `prefixes`, up to rounding."""
        changed = (prefixes - _initial(self))[:, self.first_layer :]
        flat: npt.NDArray[np.float32] = changed.reshape(len(prefixes), self.dim)
        return flat

    def prompts(self, z: npt.NDArray[np.floating], examples: Examples) -> DeepPrompts:
        return DeepPrompts(self.prefixes(z))

    def __str__(self) -> str:
        which = f"in each of {self.layers} layers"
        if self.first_layer:
            which += f", tuned from layer {self.first_layer} on"
        return f"{self.tokens} keys and values {which} ({self.heads} heads of {self.width})"


@lru_cache(maxsize=4)
def _initial(space: DeepSpace) -> npt.NDArray[np.float32]:
    """Returns std x normals(seed, shape)."""
    return (space.std * seeds.normals(space.seed, space.shape)).astype(np.float32)

"""z as a soft prompt by a seeded projection, its last entries as offsets of the classes' scores."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedbbpt.types import Examples, LatentPrompts, Projection, Scores

OFFSET_SCALE = 0.25
"""Of a score, per entry of z: a step of 1 in all of z then moves losses by prompt and by offsets about alike."""


@dataclass(frozen=True, slots=True)
class LatentSpace:
    """Implements interfaces.PromptSpace.

    The last `offsets` entries of z, times OFFSET_SCALE, are added to the scores of the classes, which costs no queries
    since the scores are there; the entries before them become a prompt.
    """

    dim: int
    projection: Projection
    offsets: int = 0
    """K, or 0 where only the prompt is searched."""
    kind: Literal["latent"] = "latent"

    @property
    def prompt_tokens(self) -> int:
        return self.projection.tokens

    def prompts(self, z: npt.NDArray[np.floating], examples: Examples) -> LatentPrompts:
        return LatentPrompts(z[:, : self.dim - self.offsets].astype(np.float32), self.projection)

    def shifted(self, scores: Scores, z: npt.NDArray[np.floating]) -> Scores:
        if not self.offsets:
            return scores
        return scores + np.float32(OFFSET_SCALE) * z[:, None, self.dim - self.offsets :].astype(np.float32)

    def __str__(self) -> str:
        prompt = self.projection
        return (
            f"{prompt.tokens} soft tokens ({prompt.injection}) from {self.dim - self.offsets} numbers "
            f"by a {prompt.kind} projection, seed {prompt.seed}, scale {prompt.scale}, "
            f"beginning as {prompt.initial_text or 'zero vectors'}; "
            f"{self.offsets} offsets of the classes' scores"
        )

"""z as a soft prompt by a seeded projection, with its last entries as offsets of the class scores."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.types import Examples, Injection, LatentPrompts, LatentSpaceSettings, Scores

OFFSET_SCALE = 0.25
"""The change of a score per unit of z. With it, a step of 1 in all of z moves the loss by the prompt and by the offsets
about equally."""


@dataclass(frozen=True, slots=True)
class LatentSpace(LatentSpaceSettings):
    """Makes latent prompts of z. Implements `interfaces.PromptSpace`.

    The last `offsets` entries of z, times OFFSET_SCALE, are added to the class scores. That costs no queries, because
    the scores are known. The entries before them become a prompt.
    """

    @property
    def views(self) -> tuple[str, ...]:
        return ()

    @property
    def prompt_tokens(self) -> int:
        return 0 if self.projection.injection is Injection.CLASS else self.projection.tokens

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
            f"starting from {prompt.initial_text or 'zero vectors'}"
            + (f"; {self.offsets} offsets of the class scores" if self.offsets else "")
        )

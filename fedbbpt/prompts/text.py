"""z as words: each entry of z is the index of a candidate, and the candidates in order are the prompt."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.prompts.unshifted import Unshifted
from fedbbpt.types import Examples, TextPrompts, TextSpaceSettings


@dataclass(frozen=True, slots=True)
class TextSpace(Unshifted, TextSpaceSettings):
    """Makes texts of z, for models that take text prompts only, too. Implements `interfaces.PromptSpace`."""

    def prompts(self, z: npt.NDArray[np.floating], examples: Examples) -> TextPrompts:
        return TextPrompts(tuple(" ".join(self.candidates[int(index)] for index in row) for row in z))

    def __str__(self) -> str:
        return f"{self.dim} of {len(self.candidates)} candidate words"

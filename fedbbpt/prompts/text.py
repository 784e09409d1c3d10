"""z as words: each of its entries is the number of a candidate, and the candidates in order are the prompt."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedbbpt.types import Examples, Scores, TextPrompts


@dataclass(frozen=True, slots=True)
class TextSpace:
    """Implements interfaces.PromptSpace: text in, so that it works where a model takes nothing else."""

    dim: int
    """n, the number of words."""
    candidates: tuple[str, ...]
    """N words or short word sequences."""
    prompt_tokens: int
    kind: Literal["text"] = "text"

    @property
    def offsets(self) -> int:
        return 0

    def prompts(self, z: npt.NDArray[np.floating], examples: Examples) -> TextPrompts:
        return TextPrompts(tuple(" ".join(self.candidates[int(index)] for index in row) for row in z))

    def shifted(self, scores: Scores, z: npt.NDArray[np.floating]) -> Scores:
        return scores

    def __str__(self) -> str:
        return f"{self.dim} of {len(self.candidates)} candidate words"

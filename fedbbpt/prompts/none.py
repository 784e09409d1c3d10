"""The space of a single point: inputs without any prompt."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fedbbpt.prompts.unshifted import Unshifted
from fedbbpt.types import Examples, ImagePrompts, NoPromptSettings, Prompts, TextPrompts


@dataclass(frozen=True, slots=True)
class NoPrompt(Unshifted, NoPromptSettings):
    """Makes empty prompts of an empty z. Implements `interfaces.PromptSpace`.

    Texts leave `room` free, so that they are truncated as they are with a prompt.
    """

    Z: ClassVar[npt.NDArray[np.float32]] = np.zeros((1, 0), np.float32)
    """The population of the only point, `[1, 0]`."""

    @property
    def dim(self) -> int:
        return 0

    @property
    def prompt_tokens(self) -> int:
        return self.room

    def prompts(self, z: npt.NDArray[np.floating], examples: Examples) -> Prompts:
        return text_prompts(("",) * len(z), examples)

    def __str__(self) -> str:
        return "none"


def text_prompts(texts: tuple[str, ...], examples: Examples) -> Prompts:
    """Returns text prompts, in the form that models of images take if all of them are empty."""
    if examples.image_shape is None or any(texts):
        return TextPrompts(texts)
    return ImagePrompts(np.zeros((len(texts), 1, *examples.image_shape), np.float32))

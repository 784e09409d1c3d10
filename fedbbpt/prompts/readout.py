"""z as a prompt and a readout: class scores that are a linear function of the scores of many texts.

The model scores V texts (columns): the K class texts, and further ones that have no class. Under each of m views, which
are text prompts that stay the same, and under the prompt of z, an example has V scores; s `[C]` are all of them, views
first. The scores of its classes are

    (W0 + D) s + b,

where W0 `[K, C]` picks the class texts' own scores under the first view, and D `[K, C]` and b `[K]` are the last
entries of z. So with z = 0 the scores are those of the class texts under the first view.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.text import TextSpace
from fedbbpt.prompts.visual import ImageSpace
from fedbbpt.types import Examples, Prompts, ReadoutSpaceSettings, Scores

InnerSpace = LatentSpace | TextSpace | ImageSpace | DeepSpace | NoPrompt
"""A space whose z is a prompt, and nothing else."""


@dataclass(frozen=True, slots=True)
class ReadoutSpace(ReadoutSpaceSettings):
    """Makes prompts of the first entries of z, and applies the readout of the others. Implements `PromptSpace`."""

    prompt: InnerSpace

    @property
    def width(self) -> int:
        """C, the number of scores that the readout takes for each example."""
        prompted = not isinstance(self.prompt, NoPrompt)
        return (len(self.views) + prompted) * self.columns

    @property
    def dim(self) -> int:
        return self.prompt.dim + self.classes * (self.width + 1)

    @property
    def prompt_tokens(self) -> int:
        return max(self.prompt.prompt_tokens, self.view_tokens)

    @property
    def offsets(self) -> int:
        return 0

    def prompts(self, z: npt.NDArray[np.floating], examples: Examples) -> Prompts | None:
        """Returns the prompts of z `[P, dim]`; None if no readout among them uses their scores."""
        return self.prompt.prompts(z[:, : self.prompt.dim], examples) if self.uses_prompt(z) else None

    def uses_prompt(self, z: npt.NDArray[np.floating]) -> bool:
        """Returns whether a readout among z `[P, dim]` uses the scores under its prompt."""
        fixed = len(self.views) * self.columns
        return bool(self.readouts(z)[:, :, fixed:-1].any())

    def readouts(self, z: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Returns the readouts of z `[P, dim]`: `[P, K, C + 1]`, D and in the last column b."""
        flat = z[:, self.prompt.dim :]
        return flat.reshape(len(z), self.classes, self.width + 1)

    def join(self, z: npt.NDArray[np.floating], readout: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Returns the z `[dim]` of a prompt `[n]` and a readout `[K, C + 1]`."""
        return np.concatenate([z, readout.ravel()]).astype(np.float32)

    def asking(self, z: npt.NDArray[np.floating], *, prompted: bool) -> npt.NDArray[np.float32]:
        """Returns a z `[dim]` for which all columns under the prompt z `[n]` are asked, or those of the views only."""
        return self.join(z, np.full((self.classes, self.width + 1), float(prompted)))

    def shifted(self, scores: Scores, z: npt.NDArray[np.floating]) -> Scores:
        """Returns the class scores `[P, B, K]` of columns `[P, B, C]`.

        Columns `[P, B, m V]` are enough for readouts that use no others.
        """
        readouts = self.readouts(z).astype(np.float32)
        used = scores.shape[2]
        own = scores[:, :, : self.classes]
        by_columns = np.einsum("pbc,pkc->pbk", scores, readouts[:, :, :used], optimize=True)
        found: Scores = own + by_columns + readouts[:, None, :, -1]
        return found

    def __str__(self) -> str:
        under = ["no prompt" if not view else repr(view) for view in self.views]
        prompted = not isinstance(self.prompt, NoPrompt)
        found = f"a readout of the scores of {self.columns} texts under {', '.join(under)}"
        return f"{self.prompt}; {found} and this prompt" if prompted else found

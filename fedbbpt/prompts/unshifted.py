"""What spaces have in common in which all of z is the prompt."""

import numpy as np
import numpy.typing as npt

from fedbbpt.types import Scores


class Unshifted:
    """The part of `interfaces.PromptSpace` that concerns scores: they are those of the classes, as they come."""

    __slots__ = ()

    @property
    def views(self) -> tuple[str, ...]:
        return ()

    @property
    def offsets(self) -> int:
        return 0

    def shifted(self, scores: Scores, z: npt.NDArray[np.floating]) -> Scores:
        return scores

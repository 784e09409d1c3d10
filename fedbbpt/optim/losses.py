"""Finite losses, the only ones that leave a client, because they are added up."""

import numpy as np

from fedbbpt.types import Losses

WORST_LOSS = 100.0
"""The loss, in nats, of a candidate without a finite one.

No cross-entropy over label scores comes near it, and multiplied by some hundred examples it still fits into float16.
"""


def finite(losses: Losses) -> Losses:
    """Returns the losses with WORST_LOSS, or the largest finite one if that is worse, in place of NaN and infinity."""
    sound = np.isfinite(losses)
    return np.where(sound, losses, losses[sound].max(initial=WORST_LOSS))

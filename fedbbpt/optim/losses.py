"""Losses as they may leave a client: finite, so that they add."""

import numpy as np

from fedbbpt.types import Losses

WORST_LOSS = 100.0
"""Nats; no cross-entropy over label scores comes near, and times some hundred examples it still fits into float16."""


def finite(losses: Losses) -> Losses:
    """What is NaN or infinite becomes WORST_LOSS, or the largest of the others where that is worse."""
    sound = np.isfinite(losses)
    return np.where(sound, losses, losses[sound].max(initial=WORST_LOSS))

"""Ranks in place of losses, for searches that use nothing of the losses but their order.

A client can send a loss of any size, but ranks only from 0 to P - 1. The mean of ranks is Borda's count: the order that
it gives is that of all clients together, and what one client can change of it is known.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def ranks(losses: Floats) -> Floats:
    """Returns the rank of each candidate for each client, `[n, P]` -> `[n, P]`, from 0. Equal losses share their mean.

    So a client that sends the same loss for all candidates changes no order.
    """
    return np.stack([_ranks(row) for row in losses])


def _ranks(row: Floats) -> Floats:
    _, place, count = np.unique(row, return_inverse=True, return_counts=True)
    last = np.cumsum(count) - 1
    found: Floats = (last - (count - 1) / 2)[place]
    return found


def losses_in_order(order: Floats, losses: Floats) -> Floats:
    """Returns losses `[P]` that are in the order of the mean ranks `order` `[P]`.

    They are the medians of the clients' losses `[n, P]`, dealt out in that order, so that their mean is still the level
    of the round.
    """
    values = np.sort(np.median(losses, axis=0))
    for place in range(1, len(values)):
        # Equal losses would be taken in the order of the candidates.
        values[place] = max(values[place], values[place - 1] * (1 + 1e-9) + 1e-9)
    found = np.empty_like(values)
    found[np.argsort(order, kind="stable")] = values
    return found

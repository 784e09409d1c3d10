"""Dev measurements of which some may be lies: each client's mean is limited by those of the others (winsorised)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedbbpt.server.robust.clip import lower_median
from fedbbpt.types import Measurement


def limited(measured: Sequence[Measurement], adversaries: int) -> list[Measurement]:
    """Returns the measurements of n clients with limits that at most f adversaries among them cannot move far.

    A client's mean loss and its share of right answers are moved to between the f + 1st lowest and the f + 1st highest
    of all clients, and it counts for at most as many examples as the (lower) median client. Without adversaries only
    the numbers of examples are limited.
    """
    having = [each for each in measured if each.dev_examples]
    if not having:
        return list(measured)
    most = int(lower_median(np.array([float(each.dev_examples) for each in having])))
    losses = _limits([each.dev_loss_sum / each.dev_examples for each in having], adversaries)
    known = [each.dev_correct / each.dev_examples for each in having if each.dev_correct is not None]
    shares = _limits(known, adversaries) if known else (0.0, 1.0)
    return [_within(each, most, losses, shares) if each.dev_examples else each for each in measured]


def _limits(values: Sequence[float], adversaries: int) -> tuple[float, float]:
    ordered: npt.NDArray[np.float64] = np.sort(np.array(values))
    inner = min(adversaries, (len(ordered) - 1) // 2)
    return float(ordered[inner]), float(ordered[len(ordered) - 1 - inner])


def _within(each: Measurement, most: int, losses: tuple[float, float], shares: tuple[float, float]) -> Measurement:
    count = min(each.dev_examples, most)
    loss = min(max(each.dev_loss_sum / each.dev_examples, losses[0]), losses[1])
    correct = each.dev_correct
    if correct is not None:
        correct = round(min(max(correct / each.dev_examples, shares[0]), shares[1]) * count)
    return Measurement(loss * count, count, correct, each.queries)

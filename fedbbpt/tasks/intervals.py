"""95 % intervals of an accuracy, and of the difference of two accuracies on the same examples.

They hold for examples that are drawn at random, and say nothing about other data, other seeds or other runs.
"""

import math
from collections.abc import Callable

NORMAL_QUANTILE = 1.959963984540054
"""The 97.5 % quantile of the normal distribution, for intervals of 95 %."""
_HALVINGS = 50
"""Steps of the bisection of a bound, after which it is exact to 1e-15."""


def accuracy_interval(correct: int, n: int) -> tuple[float, float]:
    """Returns the 95 % interval of an accuracy by Wilson's score method (1927), which stays within 0 and 1.

    >>> low, high = accuracy_interval(8, 10)
    >>> f"{low:.4f} {high:.4f}"
    '0.4902 0.9433'

    Args:
        correct: The number of right answers.
        n: The number of examples, at least 1.
    """
    share, ratio = correct / n, NORMAL_QUANTILE**2 / n
    centre = (share + ratio / 2) / (1 + ratio)
    half = NORMAL_QUANTILE / (1 + ratio) * math.sqrt(share * (1 - share) / n + ratio / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def share_interval(accuracy: float | None, n: int) -> tuple[float, float] | None:
    """Returns `accuracy_interval` of an accuracy on n examples; None if it is unknown, or known of no example."""
    return None if accuracy is None or not n else accuracy_interval(round(accuracy * n), n)


def difference_interval(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """Returns the 95 % interval of the first accuracy minus the second, both measured on the same examples.

    This is Tango's score interval for paired proportions (Statistics in Medicine 17:891-908, 1998): the differences
    that a score test does not reject. It excludes 0 exactly if McNemar's test without correction finds a difference
    at 5 %. The answers of two prompts to one example depend on each other, so the interval of two separate samples
    would be too wide.

    >>> low, high = difference_interval(40, 20, 160)
    >>> f"{low:.4f} {high:.4f}"
    '0.0309 0.2181'

    Args:
        only_first: The number of examples that only the first answered right.
        only_second: The number of examples that only the second answered right.
        n: The number of examples, at least 1.
    """
    difference = (only_first - only_second) / n

    def accepted(true_difference: float) -> bool:
        return _accepts(true_difference, only_first, only_second, n)

    return _bound(accepted, difference, -1.0), _bound(accepted, difference, 1.0)


def _accepts(difference: float, only_first: int, only_second: int, n: int) -> bool:
    """Whether the score test at 5 % accepts this as the true difference (Tango's equations 4 and 5)."""
    linear = (2 * n - only_first + only_second) * difference - only_first - only_second
    constant = -only_second * difference * (1 - difference)
    # The most likely probability that only the second is right, given the difference.
    second = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * second + difference * (1 - difference))
    return (only_first - only_second - n * difference) ** 2 <= NORMAL_QUANTILE**2 * max(0.0, variance)


def _bound(accepted: Callable[[float], bool], inside: float, outside: float) -> float:
    """Returns the bound of the accepted values between one that is accepted and one that need not be."""
    if accepted(outside):
        return outside
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if accepted(middle) else (inside, middle)
    return inside

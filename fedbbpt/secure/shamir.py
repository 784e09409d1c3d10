"""Shamir's secret sharing (1979) over the prime field of 2^127 - 1.

A secret is the value at 0 of a random polynomial of degree t - 1. Its values at t other places give it back; fewer say
nothing about it. Elements of the field travel as 16 bytes, least significant first.
"""

import math
import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate

PRIME = 2**127 - 1
ELEMENT_BYTES = 16


def random_element() -> int:
    """Returns a uniformly random element of the field, from the operating system's generator."""
    return secrets.randbelow(PRIME)


def split(secret: int, places: Sequence[int], threshold: int) -> list[int]:
    """Returns one share for each place.

    Args:
        secret: The element to share.
        places: Different elements other than 0, at least `threshold` of them.
        threshold: The number of shares that give the secret back, t.
    """
    return evaluated([secret, *(random_element() for _ in range(threshold - 1))], places)


def evaluated(coefficients: Sequence[int], places: Sequence[int]) -> list[int]:
    """Returns the values of a polynomial, whose coefficients begin with the constant one."""
    values = []
    highest_first = coefficients[::-1]
    for place in places:
        value = 0
        for coefficient in highest_first:
            value = (value * place + coefficient) % PRIME
        values.append(value)
    return values


def combined(shares: Mapping[int, int]) -> int:
    """Returns the secret of exactly t shares, by place. Other numbers of shares give another element."""
    factors = _factors(tuple(shares))
    return sum(factor * share for factor, share in zip(factors, shares.values(), strict=True)) % PRIME


@lru_cache(maxsize=4096)
def _factors(places: tuple[int, ...]) -> tuple[int, ...]:
    """Returns Lagrange's coefficients at 0. Kept, because the same clients often answer in round after round."""
    all_ = math.prod(places)
    # A coefficient is the product of the other places, divided by that of their differences to this one.
    below = [place * math.prod(other - place for other in places if other != place) % PRIME for place in places]
    return tuple(all_ * inverse % PRIME for inverse in _inverses(below))


def _inverses(numbers: Sequence[int]) -> list[int]:
    """Returns the inverse of each element, with one inversion for all of them (Montgomery's trick)."""
    products = list(accumulate(numbers, lambda one, other: one * other % PRIME, initial=1))
    inverse = pow(products[-1], -1, PRIME)
    found = []
    for number, before in zip(reversed(numbers), reversed(products[:-1]), strict=True):
        found.append(inverse * before % PRIME)
        inverse = inverse * number % PRIME
    return found[::-1]

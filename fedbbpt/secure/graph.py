"""The graph of an epoch: which clients mask their values with each other, and keep shares for each other.

Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020 (SecAgg+). Up to 31 clients
are all neighbours. More stand on a circle in a random order, and each has the same number of neighbours on both sides.
The order follows from the roster, so that each client computes the graph itself and the coordinator cannot choose it.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

LEAST_CLIENTS = 3
"""A sum of two clients tells each of them the other's values."""
COMPLETE_BELOW = 32
COLLUDING, DROPPED = 0.2, 0.1
"""The shares of clients that may collude with the coordinator, and that may drop out of a round, in `degree`."""
LEAKED, FAILED = 2.0**-40, 2.0**-20
"""The largest probabilities that any client's neighbours could unmask it, and that too few of them stay."""


def needed(neighbours: int, threshold: float) -> int:
    """Returns how many of a client's neighbours must stay in a round: the share `threshold`, and more than half.

    With half or fewer, a coordinator could tell one half of them that the client is there, and the others that it is
    not, and learn the client's values from both answers.
    """
    return max(neighbours // 2 + 1, round(threshold * neighbours))


@lru_cache(maxsize=64)
def degree(clients: int, threshold: float) -> int:
    """Returns the number of neighbours of each client: the least even number that keeps both probabilities low."""
    if clients < COMPLETE_BELOW:
        return clients - 1
    others = clients - 1
    colluding, dropped = round(COLLUDING * others), round(DROPPED * others)
    for number in range(2, others, 2):
        least = needed(number, threshold)
        leaks = _more(others, colluding, number, least)
        fails = _more(others, dropped, number, number - least + 1)
        if clients * leaks <= LEAKED and clients * fails <= FAILED:
            return number
    return others


def _more(all_: int, marked: int, drawn: int, least: int) -> float:
    """Returns the probability that at least so many of the clients that are drawn are marked (hypergeometric)."""
    ways = sum(
        math.comb(marked, each) * math.comb(all_ - marked, drawn - each)
        for each in range(least, min(drawn, marked) + 1)
        if drawn - each <= all_ - marked
    )
    return ways / math.comb(all_, drawn)


@lru_cache(maxsize=4)
def graph(clients: int, threshold: float, roster: bytes) -> Sequence[tuple[int, ...]]:
    """Returns each client's neighbours, sorted. Neighbours are so mutually.

    Args:
        clients: The number of clients.
        threshold: The share of a client's neighbours that must stay.
        roster: The digest of the clients and their keys, which decides the order on the circle. The same clients have
            the same neighbours in all epochs, and need no new agreements.
    """
    number = degree(clients, threshold)
    if number == clients - 1:
        return [tuple(other for other in range(clients) if other != each) for each in range(clients)]
    circle = sorted(range(clients), key=lambda each: hashlib.sha256(roster + each.to_bytes(4, "little")).digest())
    found: list[tuple[int, ...]] = [()] * clients
    for place, each in enumerate(circle):
        steps = (step for near in range(1, number // 2 + 1) for step in (near, -near))
        found[each] = tuple(sorted(circle[(place + step) % clients] for step in steps))
    return found

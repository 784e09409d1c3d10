"""Who gets which rows: k-shot subsets, train/dev/test splits, and partitions over clients, all functions of a seed.

Each takes labels `[N]` and gives arrays of row numbers in ascending order, so that `LabelledExamples.take` can be
applied. A partition gives every row to exactly one client.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidData
from fedbbpt.seeds import rng

Rows: TypeAlias = npt.NDArray[np.int64]
Partition: TypeAlias = tuple[Rows, ...]

DRAWS = 1000
"""How often a Dirichlet partition is drawn before its demands count as impossible."""


def shots(labels: Rows, per_class: int, seed: int, *, fewer: bool = False) -> Rows:
    """`per_class` rows of each class that occurs.

    Where a class has not so many: all that it has, if `fewer` will do; else raises InvalidData.
    """
    taken = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < per_class and not fewer:
            raise InvalidData(
                f"class {label} has {len(rows)} examples, {per_class} shots were asked for",
                fix=f"at most {len(rows)} shots, or more examples of the class",
            )
        taken.append(rng(seed, "shots", int(label)).permutation(rows)[:per_class])
    return np.sort(np.concatenate(taken))


def split(labels: Rows, fractions: Sequence[float], seed: int) -> Partition:
    """Every class cut in the same proportions, to the nearest example; `fractions` sum to 1, as in (0.6, 0.2, 0.2)."""
    if not fractions or min(fractions) < 0 or not np.isclose(sum(fractions), 1):
        raise InvalidData(f"the fractions {list(fractions)} make no split", fix="positive numbers that sum to 1")
    parts: list[list[Rows]] = [[] for _ in fractions]
    for label in np.unique(labels):
        rows = rng(seed, "split", int(label)).permutation(np.flatnonzero(labels == label))
        for part, piece in zip(parts, _cut(rows, np.array(fractions)), strict=True):
            part.append(piece)
    return tuple(np.sort(np.concatenate(part)) for part in parts)


def iid(labels: Rows, clients: int, seed: int) -> Partition:
    """Shuffled and dealt out: sizes differ by one at most."""
    _check(labels, clients)
    return tuple(np.sort(part) for part in np.array_split(rng(seed, "iid").permutation(len(labels)), clients))


def dirichlet(
    labels: Rows, clients: int, alpha: float, seed: int, *, minimum: int = 1, minimum_classes: int = 1
) -> Partition:
    """Each class goes to the clients in proportions ~ Dirichlet(alpha) (Hsu, Qi and Brown, arXiv 1909.06335).

    Small alpha: a class sits with few clients; large alpha: all clients look alike. A draw that leaves some client
    fewer than `minimum` examples or `minimum_classes` classes is thrown away whole and drawn again, so that what comes
    out is the Dirichlet partition given that nobody is left short. Raises InvalidData after 1000 such draws.
    """
    _check(labels, clients)
    if not alpha > 0:
        raise InvalidData(f"alpha is {alpha}", where="alpha", fix="a positive number")
    classes = np.unique(labels)
    for attempt in range(DRAWS):
        draw = rng(seed, "dirichlet", attempt)
        parts: list[list[Rows]] = [[] for _ in range(clients)]
        for label in classes:
            rows = draw.permutation(np.flatnonzero(labels == label))
            for part, piece in zip(parts, _cut(rows, draw.dirichlet(np.full(clients, alpha))), strict=True):
                part.append(piece)
        enough = (
            sum(map(len, part)) >= minimum and sum(len(piece) > 0 for piece in part) >= minimum_classes
            for part in parts
        )
        if all(enough):
            return tuple(np.sort(np.concatenate(part)) for part in parts)
    raise InvalidData(
        f"no Dirichlet({alpha}) partition of {len(labels)} examples leaves each of {clients} clients "
        f"{minimum} examples of {minimum_classes} classes",
        fix="a larger alpha, fewer clients or more examples",
    )


def shards(labels: Rows, clients: int, per_client: int, seed: int) -> Partition:
    """Rows sorted by class, cut into equal shards, `per_client` of them to each client (McMahan et al., 1602.05629)."""
    _check(labels, clients * per_client)
    order = rng(seed, "shards", "rows").permutation(len(labels))
    pieces = np.array_split(order[np.argsort(labels[order], kind="stable")], clients * per_client)
    hands = rng(seed, "shards", "hands").permutation(len(pieces)).reshape(clients, per_client)
    return tuple(np.sort(np.concatenate([pieces[shard] for shard in hand])) for hand in hands)


def histogram(labels: Rows, partition: Partition, classes: int) -> npt.NDArray[np.int64]:
    """How many examples of each class each client holds, `[clients, K]`."""
    return np.stack([np.bincount(labels[rows], minlength=classes) for rows in partition])


def _cut(rows: Rows, proportions: npt.NDArray[np.float64]) -> list[Rows]:
    """Consecutive pieces; their ends are rounded, not their lengths, so that none is lost."""
    ends = np.rint(np.cumsum(proportions)[:-1] * len(rows)).astype(np.int64)
    return np.split(rows, ends)


def _check(labels: Rows, parts: int) -> None:
    if not 0 < parts <= len(labels):
        raise InvalidData(
            f"{len(labels)} examples cannot be dealt out in {parts} parts",
            fix="at least one part, and no more parts than examples",
        )

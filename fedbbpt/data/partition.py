"""Selections of rows: k-shot subsets, train/dev/test splits, and partitions over clients, all functions of a seed.

Each function takes labels `[N]` and returns arrays of row numbers in ascending order, for `LabelledExamples.take`. A
partition assigns every row to exactly one client.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidData
from fedbbpt.seeds import derive, rng

Rows: TypeAlias = npt.NDArray[np.int64]
Partition: TypeAlias = tuple[Rows, ...]

DRAWS = 100
"""How often a Dirichlet partition is drawn before one with empty clients is repaired."""


def shots(labels: Rows, per_class: int, seed: int, *, fewer: bool = False) -> Rows:
    """Returns `per_class` rows of each class that occurs.

    Args:
        labels: the class of each row.
        per_class: the number of shots.
        seed: the seed of the choice.
        fewer: whether to take all rows of a class that has fewer than `per_class`.

    Raises:
        InvalidData: a class has too few rows, and `fewer` is false.
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
    """Splits every class in the same proportions, rounded to whole examples.

    Raises InvalidData unless `fractions` are not negative and sum to 1, as (0.6, 0.2, 0.2) do.
    """
    if not fractions or min(fractions) < 0 or not np.isclose(sum(fractions), 1):
        raise InvalidData(
            f"the fractions {list(fractions)} are not shares of a whole", fix="numbers from 0 to 1 that sum to 1"
        )
    parts: list[list[Rows]] = [[] for _ in fractions]
    for label in np.unique(labels):
        rows = rng(seed, "split", int(label)).permutation(np.flatnonzero(labels == label))
        for part, piece in zip(parts, _cut(rows, _lengths(len(rows), np.array(fractions))), strict=True):
            part.append(piece)
    return tuple(np.sort(np.concatenate(part)) for part in parts)


def iid(labels: Rows, clients: int, seed: int) -> Partition:
    """Returns a partition of shuffled rows that deals out class by class.

    The clients' numbers of rows, and of rows of each class, differ by at most one.
    """
    _check(labels, clients)
    order = rng(seed, "iid").permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    return tuple(np.sort(order[client::clients]) for client in range(clients))


def dirichlet(labels: Rows, clients: int, alpha: float, seed: int) -> Partition:
    """Returns a partition of each class in proportions ~ Dirichlet(alpha) (Hsu, Qi and Brown, arXiv 1909.06335).

    With a small alpha a class belongs to few clients; with a large alpha all clients have similar shares.

    A draw with an empty client is rejected as a whole, so the result follows the Dirichlet partition given that no
    client is empty. If many clients share few examples, all DRAWS draws may be rejected. Then the draw with the fewest
    empty clients is repaired by one example for each empty client (see `_repair`).
    """
    _check(labels, clients)
    if not alpha > 0:
        raise InvalidData(f"alpha is {alpha}", where="alpha", fix="a positive number")
    classes = np.unique(labels)
    fewest = clients
    for attempt in range(DRAWS):
        draw = rng(seed, "dirichlet", attempt)
        shuffled, shares = [], []
        for label in classes:
            shuffled.append(draw.permutation(np.flatnonzero(labels == label)))
            shares.append(draw.dirichlet(np.full(clients, alpha)))
        lengths = np.stack([_lengths(len(rows), share) for rows, share in zip(shuffled, shares, strict=True)])
        empty = int((lengths.sum(axis=0) == 0).sum())
        if empty < fewest:
            fewest, best = empty, (shuffled, np.stack(shares), lengths)
        if not empty:
            break
    shuffled, proportions, lengths = best
    pieces = [_cut(rows, row) for rows, row in zip(shuffled, _repair(lengths, proportions), strict=True)]
    return tuple(np.sort(np.concatenate(part)) for part in zip(*pieces, strict=True))


def shards(labels: Rows, clients: int, per_client: int, seed: int) -> Partition:
    """Returns a partition of shards: rows sorted by class, cut equally, `per_client` shards to each client.

    Source: McMahan et al., arXiv 1602.05629.
    """
    _check(labels, clients * per_client)
    order = rng(seed, "shards", "rows").permutation(len(labels))
    pieces = np.array_split(order[np.argsort(labels[order], kind="stable")], clients * per_client)
    hands = rng(seed, "shards", "hands").permutation(len(pieces)).reshape(clients, per_client)
    return tuple(np.sort(np.concatenate([pieces[shard] for shard in hand])) for hand in hands)


def by_group(groups: Sequence[str], clients: Sequence[str]) -> Partition:
    """Returns the partition in which each client has the rows of its group.

    Args:
        groups: the group of each row `[N]`, such as a value of a column.
        clients: the group of each client.

    Raises:
        InvalidData: a client's group has no rows.
    """
    numbers = {group: client for client, group in enumerate(clients)}
    holders = np.array([numbers[group] for group in groups], np.int64)
    lengths = np.bincount(holders, minlength=len(clients))
    if not lengths.all():
        raise InvalidData(
            f"client {clients[int(lengths.argmin())]!r} is left without examples",
            fix="more shots, or shots counted at each client",
        )
    return tuple(_cut(np.argsort(holders, kind="stable"), lengths))


def few(labels: Rows, partition: Partition, per_class: int, seed: int) -> Partition:
    """Returns at most `per_class` rows of each class for each client, out of the client's own rows."""
    return tuple(
        rows[shots(labels[rows], per_class, derive(seed, "client", client), fewer=True)]
        for client, rows in enumerate(partition)
    )


def histogram(labels: Rows, partition: Partition, classes: int) -> npt.NDArray[np.int64]:
    """Returns the number of examples of each class at each client, `[clients, K]`."""
    return np.stack([np.bincount(labels[rows], minlength=classes) for rows in partition])


def distance(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Returns the distance of each client's classes from those of all clients together, `[clients, K]` -> `[clients]`.

    The distance is the total variation: half the sum of the absolute differences between the classes' shares. It is 0
    if the client has the same shares as all clients together, and near 1 if other clients hardly have its classes.
    """
    shares = counts / counts.sum(axis=1, keepdims=True)
    return np.asarray(np.abs(shares - counts.sum(axis=0) / counts.sum()).sum(axis=1) / 2)


def _lengths(total: int, proportions: npt.NDArray[np.float64]) -> Rows:
    """Returns the lengths of consecutive pieces of `total` rows. Rounding the ends keeps their sum at `total`."""
    ends = np.rint(np.cumsum(proportions)[:-1] * total).astype(np.int64)
    return np.diff(ends, prepend=0, append=total)


def _cut(rows: Rows, lengths: Rows) -> list[Rows]:
    return np.split(rows, np.cumsum(lengths)[:-1])


def _repair(lengths: Rows, proportions: npt.NDArray[np.float64]) -> Rows:
    """Returns `lengths` `[K, clients]` after moving one example to each empty client.

    The example is of the class of which the client should have most by the drawn `proportions` `[K, clients]`. It comes
    from the client with most examples of that class, among the clients with more than one example. There is one,
    because there are no more clients than examples.
    """
    lengths = lengths.copy()
    expected = proportions * lengths.sum(axis=1, keepdims=True)
    for client in np.flatnonzero(lengths.sum(axis=0) == 0):
        spare = np.where(lengths.sum(axis=0) > 1, lengths, 0)
        label = np.where(spare.any(axis=1), expected[:, client], -1.0).argmax()
        lengths[label, spare[label].argmax()] -= 1
        lengths[label, client] += 1
    return lengths


def _check(labels: Rows, parts: int) -> None:
    if not 0 < parts <= len(labels):
        raise InvalidData(
            f"{len(labels)} examples cannot be dealt out in {parts} parts",
            fix="at least one part, and no more parts than examples",
        )

"""Who gets which rows: k-shot subsets, train/dev/test splits, and partitions over clients, all functions of a seed.

Each takes labels `[N]` and gives arrays of row numbers in ascending order, so that `LabelledExamples.take` can be
applied. A partition gives every row to exactly one client.
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
"""How often a Dirichlet partition is drawn before one that leaves clients empty is mended."""


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
        for part, piece in zip(parts, _cut(rows, _lengths(len(rows), np.array(fractions))), strict=True):
            part.append(piece)
    return tuple(np.sort(np.concatenate(part)) for part in parts)


def iid(labels: Rows, clients: int, seed: int) -> Partition:
    """Shuffled and dealt out class by class: sizes, and those of each class, differ by one at most."""
    _check(labels, clients)
    order = rng(seed, "iid").permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    return tuple(np.sort(order[client::clients]) for client in range(clients))


def dirichlet(labels: Rows, clients: int, alpha: float, seed: int) -> Partition:
    """Each class goes to the clients in proportions ~ Dirichlet(alpha) (Hsu, Qi and Brown, arXiv 1909.06335).

    Small alpha: a class sits with few clients; large alpha: all clients look alike. A draw that leaves a client empty
    is thrown away whole, so that what comes out is the Dirichlet partition given that nobody is empty. Where many
    clients share few examples no such draw may come: then, of DRAWS, the one that leaves the fewest empty is mended,
    and the partition is Dirichlet but for one example of each client that had none (see `_mended`).
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
    pieces = [_cut(rows, row) for rows, row in zip(shuffled, _mended(lengths, proportions), strict=True)]
    return tuple(np.sort(np.concatenate(part)) for part in zip(*pieces, strict=True))


def shards(labels: Rows, clients: int, per_client: int, seed: int) -> Partition:
    """Rows sorted by class, cut into equal shards, `per_client` of them to each client (McMahan et al., 1602.05629)."""
    _check(labels, clients * per_client)
    order = rng(seed, "shards", "rows").permutation(len(labels))
    pieces = np.array_split(order[np.argsort(labels[order], kind="stable")], clients * per_client)
    hands = rng(seed, "shards", "hands").permutation(len(pieces)).reshape(clients, per_client)
    return tuple(np.sort(np.concatenate([pieces[shard] for shard in hand])) for hand in hands)


def by_owner(owners: Sequence[str], clients: Sequence[str]) -> Partition:
    """Each row to its owner, `[N]`; `clients` are the owners in order. Raises InvalidData where one has no rows."""
    numbers = {name: number for number, name in enumerate(clients)}
    mine = np.array([numbers[owner] for owner in owners], np.int64)
    lengths = np.bincount(mine, minlength=len(clients))
    if not lengths.all():
        raise InvalidData(
            f"client {clients[int(lengths.argmin())]!r} is left without examples",
            fix="more shots, or shots counted at each client",
        )
    return tuple(_cut(np.argsort(mine, kind="stable"), lengths))


def few(labels: Rows, partition: Partition, per_class: int, seed: int) -> Partition:
    """Of each client's rows `per_class` of each class, or what it has."""
    return tuple(
        rows[shots(labels[rows], per_class, derive(seed, "client", client), fewer=True)]
        for client, rows in enumerate(partition)
    )


def histogram(labels: Rows, partition: Partition, classes: int) -> npt.NDArray[np.int64]:
    """How many examples of each class each client holds, `[clients, K]`."""
    return np.stack([np.bincount(labels[rows], minlength=classes) for rows in partition])


def distance(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How far each client's classes are from those of all clients together, `[clients, K]` -> `[clients]`.

    Total variation, half the sum of the absolute differences of the classes' shares: 0 where the client has them in the
    same shares as all, and near 1 where it holds only classes that hardly anybody else has.
    """
    shares = counts / counts.sum(axis=1, keepdims=True)
    return np.asarray(np.abs(shares - counts.sum(axis=0) / counts.sum()).sum(axis=1) / 2)


def _lengths(total: int, proportions: npt.NDArray[np.float64]) -> Rows:
    """Of consecutive pieces of `total` rows; their ends are rounded, not their lengths, so that none is lost."""
    ends = np.rint(np.cumsum(proportions)[:-1] * total).astype(np.int64)
    return np.diff(ends, prepend=0, append=total)


def _cut(rows: Rows, lengths: Rows) -> list[Rows]:
    return np.split(rows, np.cumsum(lengths)[:-1])


def _mended(lengths: Rows, proportions: npt.NDArray[np.float64]) -> Rows:
    """`lengths` `[K, clients]` with one example for each client that had none; `proportions` `[K, clients]` were drawn.

    It is of the class of which the client was to have most, and comes from the client that has most of that class among
    those that can spare one. As there are no more clients than examples, somebody can.
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

"""Laws of partitions, for all labels."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedbbpt.data.partition import Partition, Rows, by_group, dirichlet, few, iid, shards, shots, split

Scheme = Callable[[Rows, int], Partition]

SCHEMES: dict[str, Scheme] = {
    "iid": lambda labels, seed: iid(labels, 3, seed),
    "dirichlet": lambda labels, seed: dirichlet(labels, 3, 1.0, seed),
    "shards": lambda labels, seed: shards(labels, 3, 2, seed),
    "split": lambda labels, seed: split(labels, (0.5, 0.25, 0.25), seed),
}
every_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
labels_of = hnp.arrays(np.int64, st.integers(12, 60), elements=st.integers(0, 4))
seeds = st.integers(0, 2**32)


@every_scheme
@given(labels=labels_of, seed=seeds)
def test_every_row_goes_to_exactly_one_part(scheme: Scheme, labels: Rows, seed: int) -> None:
    """Kills: rounding the lengths of pieces instead of their ends, which loses a row or gives one twice."""
    np.testing.assert_array_equal(np.sort(np.concatenate(scheme(labels, seed))), np.arange(len(labels)))


@every_scheme
@given(labels=labels_of, seed=seeds)
def test_equal_seeds_give_equal_parts(scheme: Scheme, labels: Rows, seed: int) -> None:
    """Kills: a generator that is kept between calls, or numpy's global one."""
    for one, other in zip(scheme(labels, seed), scheme(labels, seed), strict=True):
        np.testing.assert_array_equal(one, other)


@every_scheme
def test_different_seeds_give_different_parts(scheme: Scheme) -> None:
    """Kills: a seed that is not passed on."""
    labels = np.repeat(np.arange(4), 25)
    firsts = {scheme(labels, seed)[0].tobytes() for seed in range(5)}
    assert len(firsts) == 5


@given(labels=labels_of, seed=seeds)
def test_large_alpha_approaches_an_even_deal(labels: Rows, seed: int) -> None:
    """Kills: 1 / alpha in place of alpha, or proportions drawn over classes instead of over clients."""
    for part in dirichlet(labels, 3, 1e9, seed):
        shares = np.bincount(labels[part], minlength=5) - np.bincount(labels, minlength=5) / 3
        assert (np.abs(shares) <= 1).all()


@settings(deadline=None)  # a small alpha takes up to DRAWS partitions for one example
@given(labels=labels_of, seed=seeds, clients=st.integers(1, 12), alpha=st.sampled_from([1e-3, 0.1, 1.0]))
def test_no_client_is_empty(labels: Rows, seed: int, clients: int, alpha: float) -> None:
    """Kills: returning the first draw, a repair with the only example of another client, or with a copy."""
    parts = dirichlet(labels, clients, alpha, seed)
    assert min(map(len, parts)) >= 1
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))


@given(labels=labels_of, seed=seeds)
def test_an_even_deal_is_even_in_every_class(labels: Rows, seed: int) -> None:
    """Kills: a deal of shuffled rows that does not look at classes."""
    counts = np.stack([np.bincount(labels[part], minlength=5) for part in iid(labels, 4, seed)])
    assert (np.ptp(counts, axis=0) <= 1).all() and np.ptp(counts.sum(axis=1)) <= 1


@given(groups=st.lists(st.sampled_from("abc"), min_size=12, max_size=60).filter(lambda groups: len({*groups}) == 3))
def test_every_row_goes_to_the_client_of_its_group(groups: list[str]) -> None:
    """Kills: clients in the order in which the rows name them, or a sort that mixes up a group's rows."""
    for name, rows in zip("cab", by_group(groups, "cab"), strict=True):
        assert rows.tolist() == [row for row, group in enumerate(groups) if group == name]


@every_scheme
@given(labels=labels_of, seed=seeds, per_class=st.integers(1, 6))
def test_shots_at_each_client_are_its_own(scheme: Scheme, labels: Rows, seed: int, per_class: int) -> None:
    """Kills: rows numbered within the client taken for rows of the whole, shots missing that the client has."""
    whole = scheme(labels, seed)
    for rows, kept in zip(whole, few(labels, whole, per_class, seed), strict=True):
        assert set(kept) <= set(rows)
        counts = np.bincount(labels[rows], minlength=5)
        np.testing.assert_array_equal(np.bincount(labels[kept], minlength=5), np.minimum(counts, per_class))


@given(labels=labels_of, seed=seeds)
def test_a_split_is_stratified(labels: Rows, seed: int) -> None:
    """Kills: a split of shuffled rows that does not look at classes."""
    fractions = np.array([0.5, 0.25, 0.25])
    counts = np.stack([np.bincount(labels[part], minlength=5) for part in split(labels, fractions.tolist(), seed)])
    expected: npt.NDArray[np.float64] = fractions[:, None] * np.bincount(labels, minlength=5)
    assert (np.abs(counts - expected) <= 1).all()


@given(labels=labels_of, seed=seeds)
def test_fewer_shots_are_a_subset_of_more_shots(labels: Rows, seed: int) -> None:
    """Kills: a draw that depends on the number of shots, or one with replacement."""
    most = int(np.bincount(labels)[np.unique(labels)].min())
    more = shots(labels, most, seed)
    assert set(shots(labels, 1, seed)) <= set(more)
    assert len(set(more)) == most * len(np.unique(labels))

"""The sizes and the proportions of partitions, and errors that name the fix."""

import hashlib

import numpy as np
import pytest

from fedbbpt.data.partition import by_group, dirichlet, distance, histogram, iid, shards, shots, split
from fedbbpt.errors import InvalidData

LABELS = np.repeat(np.arange(6), 16)
FIRST_DRAWS = (
    (10, 0.1, 0, "88b917d32d7fbf28"),
    (10, 0.1, 5, "5c3b5be7093e42be"),
    (4, 0.5, 0, "bf85001d170b534e"),
)
TREC_COUNTS = (86, 1162, 1250, 1223, 835, 896)
"""Training questions of each class in TREC (Li and Roth, 2002), whose smallest class is a fifteenth of its largest."""


def test_shots_are_equally_many_of_each_class() -> None:
    rows = shots(np.repeat([0, 1, 2], [50, 8, 9]), 8, seed=0)
    np.testing.assert_array_equal(np.repeat([0, 1, 2], [50, 8, 9])[rows], np.repeat([0, 1, 2], 8))


def test_too_many_shots_name_the_class_and_the_most() -> None:
    with pytest.raises(InvalidData, match="class 1 has 8 examples, 9 shots") as caught:
        shots(np.repeat([0, 1], [50, 8]), 9, seed=0)
    assert caught.value.fix.startswith("at most 8 shots")


def test_a_split_keeps_the_share_of_every_class() -> None:
    labels = np.repeat([0, 1], [100, 10])
    train, dev, test = split(labels, (0.6, 0.2, 0.2), seed=0)
    expected = [[60, 6], [20, 2], [20, 2]]
    np.testing.assert_array_equal(histogram(labels, (train, dev, test), 2), expected)


@pytest.mark.parametrize("fractions", [(), (0.5, 0.4), (1.5, -0.5), (float("nan"), 1.0)])
def test_fractions_that_do_not_sum_to_one_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(InvalidData, match="numbers from 0 to 1 that sum to 1"):
        split(LABELS, fractions, seed=0)


def test_iid_sizes_differ_by_one_at_most() -> None:
    sizes = [len(part) for part in iid(np.zeros(10, np.int64), 4, seed=0)]
    assert sorted(sizes) == [2, 2, 3, 3]


def test_small_alpha_is_skewed_and_large_alpha_is_not() -> None:
    skewed = histogram(LABELS, dirichlet(LABELS, 4, 0.1, seed=0), 6)
    even = histogram(LABELS, dirichlet(LABELS, 4, 1e6, seed=0), 6)
    assert (even == 4).all()
    # The client with most examples of a class has most of the class.
    assert (skewed.max(axis=0) / 16).mean() > 0.6


@pytest.mark.parametrize("seed", range(20))
def test_ten_clients_share_few_shots_without_an_empty_client(seed: int) -> None:
    counts = histogram(LABELS, dirichlet(LABELS, 10, 0.1, seed), 6)
    assert counts.sum(axis=1).min() >= 1
    np.testing.assert_array_equal(counts.sum(axis=0), 16)


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_a_thousand_clients_differ_as_much_as_alpha_implies(alpha: float) -> None:
    # A draw without rounding and repair gives its largest clients about as many examples.
    labels = np.repeat(np.arange(4), [2135, 2088, 2079, 2175])
    counts = histogram(labels, dirichlet(labels, 1000, alpha, seed=0), 4)
    assert counts.sum(axis=1).min() >= 1
    np.testing.assert_array_equal(counts.sum(axis=0), np.bincount(labels))
    drawn = np.random.default_rng(0).dirichlet(np.full(1000, alpha), size=4).T * np.bincount(labels)
    largest, expected = np.sort(counts.sum(axis=1))[-100:].sum(), np.sort(drawn.sum(axis=1))[-100:].sum()
    assert abs(largest / expected - 1) < 0.2


def test_as_many_clients_as_examples_have_one_each() -> None:
    assert [len(part) for part in dirichlet(LABELS, 96, 0.1, seed=0)] == [1] * 96


@pytest.mark.parametrize("clients, alpha, seed, expected", FIRST_DRAWS)
def test_draws_do_not_change_between_versions(clients: int, alpha: float, seed: int, expected: str) -> None:
    rows = np.concatenate([part * 1000 + number for number, part in enumerate(dirichlet(LABELS, clients, alpha, seed))])
    assert hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16] == expected


def test_distances_of_clients() -> None:
    counts = np.array([[2, 2], [4, 0], [0, 4]])
    np.testing.assert_allclose(distance(counts), [0, 0.5, 0.5])


def test_a_client_whose_group_has_no_rows_is_refused() -> None:
    with pytest.raises(InvalidData, match="client 'b' is left without examples"):
        by_group(["a", "c", "a"], ["a", "b", "c"])


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_alpha_must_be_positive(alpha: float) -> None:
    with pytest.raises(InvalidData, match="alpha"):
        dirichlet(LABELS, 4, alpha, seed=0)


@pytest.mark.parametrize("clients", [0, -1, 97])
def test_more_clients_than_examples_are_refused(clients: int) -> None:
    for partition in (iid, lambda labels, n, seed: dirichlet(labels, n, 1.0, seed)):
        with pytest.raises(InvalidData, match="96 examples"):
            partition(LABELS, clients, 0)


def test_shards_give_each_client_few_classes() -> None:
    counts = histogram(LABELS, shards(LABELS, 8, 2, seed=0), 6)
    np.testing.assert_array_equal(counts.sum(axis=1), 12)
    # A shard of six rows from classes of sixteen touches two classes at most.
    assert ((counts > 0).sum(axis=1) <= 4).all()


def test_the_histogram_counts_every_class_of_every_client() -> None:
    labels = np.array([0, 2, 2, 0, 1])
    parts = (np.array([0, 1, 2]), np.array([3, 4]))
    np.testing.assert_array_equal(histogram(labels, parts, 4), [[1, 0, 2, 0], [1, 1, 0, 0]])


def test_shots_of_a_skewed_set_reach_four_clients() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(6), TREC_COUNTS))
    few = labels[shots(labels, 16, seed=0)]
    counts = histogram(few, dirichlet(few, 4, 0.5, seed=0), 6)
    np.testing.assert_array_equal(counts.sum(axis=0), 16)
    assert (counts.sum(axis=1) >= 1).all()

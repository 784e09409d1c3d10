"""A readout's scores, and the laws of the sums that a fit is made of."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.errors import InvalidTensor
from fedbbpt.tasks import readout
from fedbbpt.tasks.criterion import Labels
from fedbbpt.types import ReadoutSums

Floats = npt.NDArray[np.float64]

K, C, R = 3, 5, 2


def examples(seed: int, count: int) -> tuple[Floats, Labels, Floats]:
    draw = np.random.default_rng(seed)
    return draw.normal(size=(count, C)), draw.integers(K, size=count), draw.normal(size=(R, K, C + 1))


def assert_equal(a: ReadoutSums, b: ReadoutSums) -> None:
    for name in ("loss", "gradient", "moments", "weight", "dev_loss", "dev_weight"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-9, err_msg=name)


def test_the_readout_zero_gives_the_scores_of_the_classes() -> None:
    columns, _, _ = examples(0, 7)
    np.testing.assert_array_equal(readout.scores(columns, np.zeros((1, K, C + 1)))[0], columns[:, :K])


def test_a_readout_is_an_affine_function_of_the_columns() -> None:
    columns, _, readouts = examples(1, 4)
    d, b = readouts[1, :, :C], readouts[1, :, C]
    expected = (np.eye(K, C) + d) @ columns[2] + b
    np.testing.assert_allclose(readout.scores(columns, readouts)[1, 2], expected)


@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(0, 12))
def test_the_sums_of_two_clients_are_those_of_their_examples_together(seed: int, first: int, second: int) -> None:
    columns, labels, readouts = examples(seed, first + second)
    parts = [readout.sums(columns[rows], labels[rows], readouts) for rows in (slice(first), slice(first, None))]
    assert_equal(parts[0] + parts[1], readout.sums(columns, labels, readouts))


@given(st.integers(0, 2**32 - 1))
def test_the_gradient_is_that_of_the_loss(seed: int) -> None:
    columns, labels, readouts = examples(seed, 6)
    direction = np.random.default_rng(seed + 1).normal(size=readouts.shape)
    ahead, behind = (readout.losses(columns, labels, readouts + step * direction) for step in (1e-5, -1e-5))
    found = (readout.sums(columns, labels, readouts).gradient * direction).sum(axis=(1, 2))
    np.testing.assert_allclose(found, (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-7)


def test_the_loss_stays_finite_for_distant_scores() -> None:
    columns = np.full((2, C), 1e5) * np.arange(float(C))
    found = readout.sums(columns, np.array([0, 1]), np.zeros((1, K, C + 1)))
    np.testing.assert_allclose(found.loss, [3e5])


def test_a_readout_of_other_columns_is_refused() -> None:
    columns, labels, readouts = examples(2, 4)
    with pytest.raises(InvalidTensor, match="do not fit 4 columns"):
        readout.sums(columns[:, :4], labels, readouts)

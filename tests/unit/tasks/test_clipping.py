"""Sums of clipped examples against the sums example by example."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.tasks.clipping import clipped_expansion, clipped_gradient, relative_losses
from fedbbpt.tasks.criterion import expansion
from fedbbpt.tasks.readout import sums

CLASSES = 3


def examples(seed: int, count: int = 7, prompts: int = 4) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    scale = 10.0 ** draw.uniform(-2, 2)
    scores = (scale * draw.normal(size=(prompts, count, CLASSES))).astype(np.float32)
    return scores, draw.integers(0, CLASSES, count)


def vector(found: object) -> np.ndarray:
    """What an expansion of one example holds of it."""
    number = len(found.gradient)  # type: ignore[attr-defined]  # an Expansion
    upper = found.hessian[np.triu_indices(number)]  # type: ignore[attr-defined]
    return np.concatenate([[found.losses[1] - found.losses[0]], found.gradient, upper])  # type: ignore[attr-defined]


@given(st.integers(0, 10_000), st.floats(0.01, 10))
def test_example_changes_relative_losses_by_the_clip_norm_at_most(seed: int, clip_norm: float) -> None:
    scores, labels = examples(seed)
    whole = relative_losses(scores, labels, clip_norm) * len(labels)
    without = relative_losses(scores[:, 1:], labels[1:], clip_norm) * (len(labels) - 1)
    assert np.linalg.norm(whole - without) <= clip_norm + 1e-9


@given(st.integers(0, 10_000), st.floats(0.01, 10))
def test_example_changes_an_expansion_by_the_clip_norm_at_most(seed: int, clip_norm: float) -> None:
    """Kills: a Hessian or a decrease that is left out of the norm."""
    scores, labels = examples(seed)
    shifts = np.eye(CLASSES)[1:]
    whole = vector(clipped_expansion(scores, shifts, labels, clip_norm)) * len(labels)
    without = vector(clipped_expansion(scores[:, 1:], shifts, labels[1:], clip_norm)) * (len(labels) - 1)
    assert np.linalg.norm(whole - without) <= clip_norm + 1e-9


@given(st.integers(0, 10_000), st.floats(0.01, 10))
def test_example_changes_a_gradient_by_the_clip_norm_at_most(seed: int, clip_norm: float) -> None:
    draw = np.random.default_rng(seed)
    columns, labels = draw.normal(size=(6, 5)) * 10, draw.integers(0, CLASSES, 6)
    readouts = draw.normal(size=(1, CLASSES, 6))
    whole = clipped_gradient(columns, labels, readouts, clip_norm)
    without = clipped_gradient(columns[1:], labels[1:], readouts, clip_norm)
    assert np.linalg.norm(whole - without) <= clip_norm + 1e-9


def test_nothing_is_clipped_by_a_large_norm() -> None:
    scores, labels = examples(3)
    shifts = np.eye(CLASSES)[1:]
    plain, clipped = expansion(scores, shifts, labels), clipped_expansion(scores, shifts, labels, 1e9)
    np.testing.assert_allclose(vector(clipped), vector(plain), atol=1e-9)
    draw = np.random.default_rng(1)
    columns, readouts = draw.normal(size=(7, 5)), draw.normal(size=(1, CLASSES, 6))
    np.testing.assert_allclose(
        clipped_gradient(columns, labels, readouts, 1e9), sums(columns, labels, readouts).gradient, atol=1e-9
    )


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_example_without_finite_scores_adds_nothing(broken: float) -> None:
    """Kills: one example that makes the whole sum NaN, which everybody would see."""
    scores, labels = examples(5)
    scores[1, 2] = broken
    others = np.delete(np.arange(len(labels)), 2)
    share = len(others) / len(labels)
    np.testing.assert_allclose(
        relative_losses(scores, labels, 1.0), share * relative_losses(scores[:, others], labels[others], 1.0)
    )
    shifts = np.eye(CLASSES)[1:]
    found = clipped_expansion(scores, shifts, labels, 1.0)
    without = clipped_expansion(scores[:, others], shifts, labels[others], 1.0)
    np.testing.assert_allclose(vector(found), share * vector(without))

"""The projection: its formula, its limits, and that each prompt has the same bits in any batch."""

from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt import seeds
from fedbbpt.errors import InvalidTensor
from fedbbpt.limits import MAX_PROJECTION_ELEMENTS, MAX_VECTOR_NORM
from fedbbpt.prompts.projection import BLOCK_ELEMENTS, blocks, project
from fedbbpt.types import Projection, ProjectionKind

KINDS = list(ProjectionKind)


def projection(kind: ProjectionKind, scale: float = 0.7) -> Projection:
    return Projection(kind, seed=11, tokens=4, scale=scale, initial_text="")


@pytest.mark.parametrize("kind", KINDS)
def test_projection_follows_its_formula(kind: ProjectionKind) -> None:
    rng = np.random.default_rng(0)
    z, initial = rng.normal(size=(3, 10)).astype(np.float32), rng.normal(size=(4, 6)).astype(np.float32)
    a = (seeds.signs if kind is ProjectionKind.RADEMACHER else seeds.normals)(11, (24, 10)).astype(np.float64)
    expected = initial + 0.7 * 0.05 * (z.astype(np.float64) @ a.T).reshape(3, 4, 6) / np.sqrt(10)
    ours = project(projection(kind), z, initial, 0.05)
    assert ours.dtype == np.float32 and np.allclose(ours, expected, rtol=0, atol=1e-6)


@given(st.sampled_from(KINDS), st.integers(1, 20), st.integers(1, 130), st.integers(1, 40))
def test_a_prompt_does_not_depend_on_other_prompts(kind: ProjectionKind, count: int, n: int, width: int) -> None:
    """Kills: one matrix product over all z, whose kernel depends on their number."""
    z = np.random.default_rng(n).normal(size=(count, n)).astype(np.float32)
    initial = np.ones((4, width), np.float32)
    together = project(projection(kind), z, initial, 1.0)
    alone = [project(projection(kind), one[None], initial, 1.0)[0] for one in z]
    assert np.array_equal(together, alone)


def test_zero_gives_the_initial_prompt_bit_for_bit() -> None:
    initial = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    assert np.array_equal(project(projection(KINDS[0]), np.zeros((1, 9), np.float32), initial, 1.0)[0], initial)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 7, 500, BLOCK_ELEMENTS + 3])
def test_blocks_join_to_the_matrix(kind: ProjectionKind, n: int) -> None:
    """Kills: blocks that begin in the middle of a byte of signs."""
    rows = min(2000, 2**23 // n)
    drawn = (seeds.signs if kind is ProjectionKind.RADEMACHER else seeds.normals32)(3, (rows, n))
    assert np.array_equal(np.concatenate(list(blocks(kind, 3, rows, n))), drawn)


def test_cached_blocks_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        next(blocks(ProjectionKind.NORMAL, 3, 8, 5))[0, 0] = 1.0


def test_too_large_projections_and_vectors_are_refused() -> None:
    """Kills: a limit on the norms of vectors that are sent, and none on those that follow from z."""
    initial = np.zeros((4, 6), np.float32)
    with pytest.raises(InvalidTensor, match="elements"):
        next(blocks(ProjectionKind.RADEMACHER, 1, MAX_PROJECTION_ELEMENTS, 2))
    with pytest.raises(InvalidTensor, match="a norm of"):
        project(projection(KINDS[0], scale=1e10), np.full((1, 9), 3e38, np.float32), initial, 1.0)
    z = np.ones((1, 9), np.float32)
    norm = np.linalg.norm(project(projection(KINDS[0], scale=1.0), z, initial, 1.0), axis=-1).max()
    for times, refused in ((0.99, False), (1.01, True)):
        with pytest.raises(InvalidTensor, match="a norm of") if refused else nullcontext():
            project(projection(KINDS[0], scale=times * MAX_VECTOR_NORM / norm), z, initial, 1.0)

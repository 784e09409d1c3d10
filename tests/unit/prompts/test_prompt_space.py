"""The latent space: z as a prompt, and its last entries as offsets of the classes' scores."""

import numpy as np
import pytest

from fedbbpt.client.objective import LocalObjectives
from fedbbpt.prompts.latent import OFFSET_SCALE, LatentSpace
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.tasks.criterion import cross_entropy
from fedbbpt.tasks.offsets import fit_offsets
from fedbbpt.types import Examples, LabelledExamples, Projection, ProjectionKind, TaskSpec
from tests.tenants import local_ptm

PROJECTION = Projection(ProjectionKind.RADEMACHER, 3, 2, 1.0, "")
TASK = TaskSpec("{prompt} {text}", ("visiting hours and parking", "charges and payments", "tests and results"))
DATA = LabelledExamples(
    Examples(tuple(f"{word} number {i}" for i in range(6) for word in ("parking", "payments", "results"))),
    np.tile(np.arange(3), 6),
)


@pytest.mark.parametrize("offsets", [0, 3])
def test_offsets_do_not_change_the_prompt(offsets: int) -> None:
    space, z = LatentSpace(5 + offsets, PROJECTION, offsets), np.arange(2.0 * (5 + offsets)).reshape(2, -1)
    prompts = space.prompts(z, DATA.examples)
    np.testing.assert_array_equal(prompts.z, z[:, :5].astype(np.float32))
    assert prompts.projection == PROJECTION


def test_offsets_are_added_by_candidate_and_class() -> None:
    space, scores = LatentSpace(3, PROJECTION, 2), np.zeros((2, 4, 2), np.float32)
    shifted = space.shifted(scores, np.array([[9.0, 1.0, 2.0], [9.0, -4.0, 8.0]]))
    np.testing.assert_array_equal(shifted[0], np.tile([0.25, 0.5], (4, 1)))
    np.testing.assert_array_equal(shifted[1], np.tile([-1.0, 2.0], (4, 1)))
    assert not scores.any(), "the given scores are unchanged"


def test_fitted_offsets_are_a_point_of_the_space_and_lower_the_loss() -> None:
    """A search over the space can therefore reach the loss of a bias alone without further queries."""
    ptm, space = local_ptm(Fake()), LatentSpace(4 + 3, PROJECTION, 3)
    objectives = LocalObjectives(ptm, TASK, space, DATA, DATA)
    start = np.zeros((1, 7))
    handle = ptm.register_examples(ptm.register_task(TASK), DATA.examples, 2)
    scores = ptm.score(handle.id, space.prompts(start, DATA.examples)).scores
    offsets = fit_offsets(scores[0], DATA.labels, 1e-3)
    point = np.concatenate([np.zeros(4), offsets / OFFSET_SCALE])[None]
    expected = cross_entropy(scores + offsets.astype(np.float32), DATA.labels)
    np.testing.assert_allclose(objectives.loss(point, 0), expected, rtol=1e-5)
    assert objectives.loss(point, 0)[0] < objectives.loss(start, 0)[0]
    assert objectives.queries == 3 * len(DATA)

"""A client's losses, over a model in closed form."""

import numpy as np
import pytest

from fedbbpt.client.objective import LocalObjectives
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.ptm.backends.fake import Fake
from fedbbpt.ptm.engine import Engine
from fedbbpt.types import Examples, LabelledExamples, Perturbation, Projection, ProjectionKind, TaskSpec

SPACE = LatentSpace(5, Projection(ProjectionKind.RADEMACHER, 3, 2, 1.0, ""))
TASK = TaskSpec("{prompt} {text}", ("visiting hours and parking", "charges and payments"))
DATA = LabelledExamples(
    Examples(tuple(f"{word} at the clinic, number {i}" for i in range(4) for word in ("parking", "payments"))),
    np.tile(np.arange(2), 4),
)
Z = np.random.default_rng(0).normal(size=(3, 5))


def test_the_loss_is_the_mean_of_that_of_each_example() -> None:
    objectives = LocalObjectives(Engine(Fake(), lambda: 0.0), TASK, SPACE, DATA, DATA)
    each = objectives.each(Z)
    assert each.shape == (3, len(DATA))
    assert (each.std(axis=1) > 0).all()
    np.testing.assert_array_equal(each.mean(axis=1), objectives.loss(Z))
    assert objectives.queries == 2 * Z.shape[0] * len(DATA)


def test_perturbed_inputs_are_other_inputs_the_same_for_all_candidates_and_calls() -> None:
    """Kills: a mask for each candidate, a new draw in each call, a handle that stays with the PTM."""
    ptm = Engine(Fake(), lambda: 0.0)
    objectives = LocalObjectives(ptm, TASK, SPACE, DATA, DATA)
    handles = ptm.handles()
    clean, perturbed = objectives.each(Z), objectives.each(Z, Perturbation(0.5, 1))
    assert (perturbed != clean).any(axis=0).sum() > len(DATA) / 2
    np.testing.assert_array_equal(objectives.each(Z[1:2], Perturbation(0.5, 1))[0], perturbed[1])
    assert (objectives.each(Z, Perturbation(0.5, 2)) != perturbed).any()
    np.testing.assert_array_equal(objectives.each(Z, Perturbation(0.0, 1)), clean)
    assert ptm.handles() == handles


def test_a_perturbed_objective_costs_twice_the_queries() -> None:
    objectives = LocalObjectives(Engine(Fake(), lambda: 0.0), TASK, SPACE, DATA, DATA)
    objectives.each(Z)
    objectives.each(Z, Perturbation(0.5, 1))
    assert objectives.queries == pytest.approx(2 * len(Z) * len(DATA))


def test_the_expansion_asks_once_for_each_candidate_and_never_for_offsets() -> None:
    space = LatentSpace(7, SPACE.projection, offsets=2)
    objectives = LocalObjectives(Engine(Fake(), lambda: 0.0), TASK, space, DATA, DATA)
    population = np.concatenate([Z, np.tile([0.5, -0.5], (3, 1))], axis=1)
    found = objectives.expansion(population)
    assert objectives.queries == len(Z) * len(DATA)
    assert found.gradient.shape == (4,)
    step = 1e-2 * np.eye(7)[5:]
    up, down = objectives.loss(population[0] + step), objectives.loss(population[0] - step)
    np.testing.assert_allclose(found.gradient[2:], (up - down) / 2e-2, atol=1e-4)
    assert found.loss == pytest.approx(objectives.loss(population[:1])[0])

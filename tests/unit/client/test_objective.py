"""A client's losses with a model in closed form, for each form of output of the PTM."""

import numpy as np
import pytest

from fedbbpt.client.objective import LocalObjectives
from fedbbpt.errors import InvalidData, OutputWithheld
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.types import Examples, LabelledExamples, Output, Perturbation, Projection, ProjectionKind, TaskSpec
from tests.tenants import local_ptm, ptm_of

SPACE = LatentSpace(5, Projection(ProjectionKind.RADEMACHER, 3, 2, 1.0, ""))
TASK = TaskSpec("{prompt} {text}", ("visiting hours and parking", "charges and payments"))
DATA = LabelledExamples(
    Examples(tuple(f"{word} at the clinic, number {i}" for i in range(4) for word in ("parking", "payments"))),
    np.tile(np.arange(2), 4),
)
Z = np.random.default_rng(0).normal(size=(3, 5))


def test_the_loss_is_the_mean_over_the_examples() -> None:
    objectives = LocalObjectives(local_ptm(Fake()), TASK, SPACE, DATA, DATA)
    each = objectives.each(Z, None, 0)
    assert each.shape == (3, len(DATA))
    assert (each.std(axis=1) > 0).all()
    np.testing.assert_array_equal(each.mean(axis=1), objectives.loss(Z, 0))
    assert objectives.queries == 2 * Z.shape[0] * len(DATA)


def test_perturbed_inputs_are_the_same_for_all_candidates_and_calls() -> None:
    """Kills: a mask for each candidate, a new draw in each call, copies that stay with the PTM for ever."""
    ptm = local_ptm(Fake())
    objectives = LocalObjectives(ptm, TASK, SPACE, DATA, DATA)
    handles = ptm.engine.handles(tenant=ptm.tenant)
    clean, perturbed = objectives.each(Z, None, 0), objectives.each(Z, Perturbation(0.5, 1), 0)
    assert (perturbed != clean).any(axis=0).sum() > len(DATA) / 2
    np.testing.assert_array_equal(objectives.each(Z[1:2], Perturbation(0.5, 1), 0)[0], perturbed[1])
    assert (objectives.each(Z, Perturbation(0.5, 2), 0) != perturbed).any()
    np.testing.assert_array_equal(objectives.each(Z, Perturbation(0.0, 1), 0), clean)
    assert ptm.engine.handles(tenant=ptm.tenant) == handles + 1


def test_a_perturbed_objective_costs_twice_the_queries() -> None:
    objectives = LocalObjectives(local_ptm(Fake()), TASK, SPACE, DATA, DATA)
    objectives.each(Z, None, 0)
    objectives.each(Z, Perturbation(0.5, 1), 0)
    assert objectives.queries == pytest.approx(2 * len(Z) * len(DATA))


def test_the_expansion_queries_each_candidate_once_and_offsets_never() -> None:
    space = LatentSpace(7, SPACE.projection, offsets=2)
    objectives = LocalObjectives(local_ptm(Fake()), TASK, space, DATA, DATA)
    population = np.concatenate([Z, np.tile([0.5, -0.5], (3, 1))], axis=1)
    found = objectives.expansion(population, 0)
    assert objectives.queries == len(Z) * len(DATA)
    assert found.gradient.shape == (4,)
    step = 1e-2 * np.eye(7)[5:]
    up, down = objectives.loss(population[0] + step, 0), objectives.loss(population[0] - step, 0)
    np.testing.assert_allclose(found.gradient[2:], (up - down) / 2e-2, atol=1e-4)
    np.testing.assert_allclose(found.losses, objectives.loss(population, 0), rtol=1e-6)


def objectives(output: Output, min_examples: int = 2, data: LabelledExamples = DATA) -> LocalObjectives:
    ptm = ptm_of(Fake(), output=output, min_examples=min_examples)
    return LocalObjectives(ptm, TASK, SPACE, data, DATA)


@pytest.mark.parametrize("output", [Output.LABEL_LOGPROBS, Output.LOSS_ONLY])
def test_losses_are_the_same_for_each_output_of_the_ptm(output: Output) -> None:
    known, asked = objectives(Output.LABEL_LOGITS), objectives(output)
    np.testing.assert_allclose(asked.loss(Z, 0), known.loss(Z, 0), rtol=1e-6)
    assert asked.queries == known.queries
    right, found = known.measure(Z[0].astype(np.float32)), asked.measure(Z[0].astype(np.float32))
    assert found.dev_loss_sum == pytest.approx(right.dev_loss_sum, rel=1e-6)
    assert (found.dev_correct is not None) == output.scores


def test_parts_of_different_sizes_give_the_loss_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: the mean of the parts' means."""
    monkeypatch.setattr("fedbbpt.ptm.models.fake.MAX_EXAMPLES", 3)
    np.testing.assert_allclose(
        objectives(Output.LOSS_ONLY).loss(Z, 0), objectives(Output.LABEL_LOGITS).loss(Z, 0), rtol=1e-6
    )


def test_if_the_ptm_gives_only_classes_the_loss_is_the_share_of_errors() -> None:
    known, asked = objectives(Output.LABEL_LOGITS), objectives(Output.LABEL_ARGMAX)
    for z, error in zip(Z, asked.loss(Z, 0), strict=True):
        right = known.measure(z.astype(np.float32))  # the dev examples are the training examples
        assert right.dev_correct is not None
        assert error == pytest.approx(1 - right.dev_correct / right.dev_examples)
        assert asked.measure(z.astype(np.float32)).dev_correct == right.dev_correct


@pytest.mark.parametrize("output", [Output.LABEL_ARGMAX, Output.LOSS_ONLY])
def test_a_need_for_scores_fails_before_the_first_query(output: Output) -> None:
    ptm = ptm_of(Fake(), output=output, min_examples=2)
    with pytest.raises(OutputWithheld, match=f"gives {output}, and not the scores that the method needs"):
        LocalObjectives(ptm, TASK, SPACE, DATA, DATA, scores_needed=True)
    with pytest.raises(OutputWithheld, match="a search of offsets"):
        LocalObjectives(ptm, TASK, LatentSpace(7, SPACE.projection, offsets=2), DATA, DATA)
    unchecked = LocalObjectives(ptm, TASK, SPACE, DATA, DATA)
    with pytest.raises(OutputWithheld):
        unchecked.each(Z, None, 0)
    with pytest.raises(OutputWithheld):
        unchecked.expansion(Z, 0)
    assert ptm.usage().queries == 0


def test_too_few_different_examples_for_a_loss_fail_at_the_start() -> None:
    twice = DATA.take(np.array([0, 1, 2, 3, 0, 1, 2, 3]))
    with pytest.raises(InvalidData, match="training examples: 4 different ones; at least 5"):
        objectives(Output.LOSS_ONLY, min_examples=5, data=twice)
    assert np.isfinite(objectives(Output.LOSS_ONLY, min_examples=4, data=twice).loss(Z, 0)).all()

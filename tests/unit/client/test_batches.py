"""Batches of a client's examples: which examples a draw chooses, what it costs, and what stays with the PTM."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.client.objective import LocalObjectives
from fedbbpt.errors import InvalidData
from fedbbpt.methods.fed_bpt import FedBptClient, FedBptConfig, FedBptServer, settings
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.types import (
    Examples,
    ExamplesHandle,
    LabelledExamples,
    Output,
    Perturbation,
    Phase,
    Projection,
    ProjectionKind,
    Sampling,
    Task,
    TaskId,
    TaskSpec,
)
from tests.tenants import local_ptm, ptm_of

SPACE = LatentSpace(5, Projection(ProjectionKind.RADEMACHER, 3, 2, 1.0, ""))
TASK = TaskSpec("{prompt} {text}", ("visiting hours and parking", "charges and payments"))
DRAW = np.random.default_rng(0)
WORDS = ("parking", "payments", "hours", "charges", "visit")
DATA = LabelledExamples(
    Examples(tuple(f"{WORDS[DRAW.integers(5)]} at the clinic, number {i}" for i in range(23))), DRAW.integers(0, 2, 23)
)
Z = DRAW.normal(size=(3, 5))
M = 8
SIZES = [8, 8, 7]
"""The numbers of examples in the batches. They differ by one at most, and none is above M."""


class Recorded(LocalPtm):
    """A PTM that records the number of examples, and the perturbation, of each registration."""

    def __init__(self) -> None:
        plain = local_ptm(Fake())
        super().__init__(plain.engine, plain.tenant)
        self.registered: list[tuple[int, Perturbation | None]] = []

    def register_examples(
        self,
        task_id: str,
        examples: Examples,
        prompt_tokens: int,
        perturbation: Perturbation | None = None,
        labels: npt.NDArray[np.int64] | None = None,
    ) -> ExamplesHandle:
        self.registered.append((len(examples), perturbation))
        return super().register_examples(task_id, examples, prompt_tokens, perturbation, labels)

    @property
    def handles(self) -> int:
        return self.engine.handles(tenant=self.tenant)


def objectives(ptm: LocalPtm, batch_examples: int = M, seed: int = 1) -> LocalObjectives:
    return LocalObjectives(ptm, TASK, SPACE, DATA, DATA, sampling=Sampling(batch_examples, seed=seed))


def drawn_rows(asked: LocalObjectives, draw: int) -> frozenset[int]:
    """The rows that a draw chooses, found by their losses: no two examples have the same."""
    whole = objectives(local_ptm(Fake()), 0).each(Z, None, 0)
    assert len(np.unique(whole[0])) == len(DATA)
    return frozenset(int(np.flatnonzero(whole[0] == loss)[0]) for loss in asked.each(Z, None, draw)[0])


def test_draws_divide_the_examples_into_batches() -> None:
    """Kills: batches that overlap or leave examples out, batches above m, a division that each draw makes anew."""
    batches = {drawn_rows(objectives(local_ptm(Fake())), draw) for draw in range(40)}
    assert sorted(map(len, batches), reverse=True) == SIZES
    assert frozenset().union(*batches) == frozenset(range(len(DATA)))
    assert batches != {drawn_rows(objectives(local_ptm(Fake()), seed=2), draw) for draw in range(40)}


def test_all_candidates_of_a_draw_are_scored_on_the_same_examples() -> None:
    asked = objectives(local_ptm(Fake()))
    whole = objectives(local_ptm(Fake()), 0).each(Z, None, 0)
    for draw in range(6):
        rows = sorted(drawn_rows(asked, draw))
        np.testing.assert_array_equal(asked.each(Z, None, draw), whole[:, rows])
        np.testing.assert_allclose(asked.loss(Z, draw), whole[:, rows].mean(axis=1), rtol=1e-12)
        np.testing.assert_allclose(asked.expansion(Z, draw).losses, whole[:, rows].mean(axis=1), rtol=1e-6)


def test_a_generation_costs_its_batch() -> None:
    asked = objectives(local_ptm(Fake()))
    for draw in range(6):
        before = asked.queries
        asked.loss(Z, draw)
        assert asked.queries - before == len(Z) * len(drawn_rows(objectives(local_ptm(Fake())), draw))


@pytest.mark.parametrize("size", [0, len(DATA), 1000])
def test_one_batch_of_all_examples_gives_the_same_bits_and_is_registered_once(size: int) -> None:
    ptm = Recorded()
    asked, whole = objectives(ptm, size), objectives(local_ptm(Fake()), 0)
    for draw in range(4):
        assert asked.loss(Z, draw).tobytes() == whole.loss(Z, 7).tobytes()
    assert asked.measure(Z[0].astype(np.float32)) == whole.measure(Z[0].astype(np.float32))
    assert ptm.registered == [(len(DATA), None)] * 2  # training and dev examples


def test_a_client_keeps_one_batch_registered() -> None:
    """Kills: a handle for each batch, a new registration of the batch that is registered already."""
    ptm = Recorded()
    asked = objectives(ptm)
    assert ptm.handles == 0
    assert ptm.registered == [(len(DATA), None)] * 2, "unsuitable examples are rejected before the run"
    for draw in range(12):
        asked.loss(Z, draw)
        before = len(ptm.registered)
        asked.loss(Z, draw)
        assert ptm.handles == 1 and len(ptm.registered) == before


def test_prompts_are_measured_on_one_sample_and_finally_on_all_examples() -> None:
    asked, whole = objectives(local_ptm(Fake())), objectives(local_ptm(Fake()), 0)
    prompts = Z.astype(np.float32)
    sampled = [asked.measure(z) for z in prompts]
    assert {measured.dev_examples for measured in sampled} == {SIZES[0]}
    asked.loss(Z, 5)
    assert [asked.measure(z) for z in prompts] == sampled
    before = asked.queries
    found = asked.measure_all(prompts)
    assert asked.queries - before == len(Z) * len(DATA)
    for z, measured in zip(prompts, found, strict=True):
        right = whole.measure(z)
        assert replace(measured, dev_loss_sum=right.dev_loss_sum) == right
        assert measured.dev_loss_sum == pytest.approx(right.dev_loss_sum, rel=1e-12)


def test_losses_alone_need_batches_of_enough_examples() -> None:
    """The service forbids sets of examples that overlap, so no call may mix two batches."""
    ptm = ptm_of(Fake(), output=Output.LOSS_ONLY, min_examples=min(SIZES), overlaps=False)
    asked, known = objectives(ptm), objectives(local_ptm(Fake()))
    prompts = Z.astype(np.float32)
    for draw in range(12):
        np.testing.assert_allclose(asked.loss(Z, draw), known.loss(Z, draw), rtol=1e-6)
        assert asked.measure(prompts[0]).dev_loss_sum == pytest.approx(known.measure(prompts[0]).dev_loss_sum, 1e-6)
    for found, right in zip(asked.measure_all(prompts), known.measure_all(prompts), strict=True):
        assert found.dev_loss_sum == pytest.approx(right.dev_loss_sum, rel=1e-6)
    with pytest.raises(
        InvalidData, match=r"7 different ones in a batch; a larger method.batch_examples, .* at least 8"
    ):
        objectives(ptm_of(Fake(), output=Output.LOSS_ONLY, min_examples=8))


def test_views_are_asked_once_for_each_example_in_whatever_batch() -> None:
    """Kills: views that are asked again when a batch is registered again, and views of perturbed copies."""
    space = ReadoutSpace(SPACE, ("", "It is about"), 4, classes=2, columns=2)
    asked = LocalObjectives(local_ptm(Fake()), TASK, space, DATA, DATA, sampling=Sampling(M, seed=1))
    z = np.concatenate([Z, np.ones((3, space.dim - 5))], axis=1)
    asked.measure_all(z.astype(np.float32))
    assert asked.queries == (len(space.views) + len(Z)) * len(DATA)
    for draw in range(6):
        before, rows = asked.queries, asked.each(z, None, draw).shape[1]
        assert asked.queries - before == len(Z) * rows
        clean, copies = asked.each(z, None, draw), asked.each(z, Perturbation(1.0, draw), draw)
        assert asked.queries - before == (3 * len(Z) + len(space.views)) * rows
        assert (clean != copies).any()


@pytest.mark.parametrize("batch_examples", [0, M])
@pytest.mark.parametrize("covariance", ["full", "identity"])
def test_fed_bpt_registers_perturbed_inputs_once_in_a_round(batch_examples: int, covariance: str) -> None:
    """With batches, once for each batch that it draws in a row."""
    ptm = Recorded()
    config = FedBptConfig.model_validate({"local_covariance": covariance})
    client = FedBptClient(settings(config), SPACE, objectives(ptm, batch_examples))
    server = FedBptServer(config, SPACE)
    for round in range(3):
        arrays = server.broadcast(server.init(0), round)
        ptm.registered.clear()
        client.update(Task(TaskId("run", round, "anna", Phase.UPDATE), round, arrays, 60.0), {})
        perturbed = [perturbation for _, perturbation in ptm.registered if perturbation is not None]
        assert len(set(perturbed)) == 1
        if batch_examples:
            # Only the first batch may be registered from before.
            assert len(perturbed) - 1 <= len(ptm.registered) - len(perturbed) <= len(perturbed) < 1 + 8
        else:
            assert len(perturbed) == len(ptm.registered) == 1
        assert ptm.handles == 2, "the copy of earlier rounds is released"

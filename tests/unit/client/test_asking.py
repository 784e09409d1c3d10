"""Scores of prompts on labelled examples, requested in calls that fit the PTM's limits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.client import asking
from fedbbpt.client.asking import PromptScorer
from fedbbpt.errors import InvalidExamples, InvalidTensor
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.fake import MAX_TOKENS, Fake
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.scheduling.planner import PlannedJob
from fedbbpt.types import (
    Examples,
    Injection,
    LabelledExamples,
    MicroBatch,
    Output,
    Projection,
    ProjectionKind,
    Prompts,
    Scored,
    TaskSpec,
    Truncation,
)
from tests.tenants import local_ptm, ptm_of

TASK = TaskSpec("{prompt} {text}", ("visiting hours and parking", "charges and payments"))
SPACE = LatentSpace(6, Projection(ProjectionKind.RADEMACHER, 11, 3, 1.0, ""))
Z = np.linspace(-1, 1, 18).reshape(3, 6).astype(np.float32)
WORDS = ("parking hours", "charges payments")
DATA = LabelledExamples(Examples(tuple(f"{WORDS[i % 2]} number {i}" for i in range(23))), np.arange(23) % 2)


def fake_ptm() -> LocalPtm:
    return local_ptm(Fake())


def test_scores_do_not_depend_on_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: parts in another order, handles that stay registered, progress that counts examples and not queries."""
    ptm = fake_ptm()
    whole = PromptScorer(ptm, TASK, SPACE).scores(DATA, Z)
    monkeypatch.setattr(asking, "PROGRESS_ROWS", 5)
    told: list[int] = []
    scorer = PromptScorer(ptm, TASK, SPACE)
    assert scorer.scores(DATA, Z, told.append).tobytes() == whole.tobytes()
    assert told == [15, 15, 15, 12, 12]
    assert scorer.queries == sum(told) == 3 * 23
    assert ptm.engine.handles(tenant=ptm.tenant) == 0


def test_scores_of_a_population_are_those_of_its_members() -> None:
    scorer = PromptScorer(fake_ptm(), TASK, SPACE)
    apart = np.concatenate([scorer.scores(DATA, one[None]) for one in Z])
    np.testing.assert_array_equal(scorer.scores(DATA, Z), apart)


@pytest.mark.parametrize("output", [Output.LABEL_LOGITS, Output.LABEL_ARGMAX, Output.LOSS_ONLY])
def test_judgement_depends_on_the_output_of_the_ptm(output: Output) -> None:
    judgement = PromptScorer(ptm_of(Fake(), output=output), TASK, SPACE).judge(DATA, Z)
    whole = PromptScorer(fake_ptm(), TASK, SPACE).judge(DATA, Z)
    assert judgement.examples == len(DATA)
    if output is Output.LABEL_ARGMAX:
        assert judgement.losses is None
    else:
        assert judgement.losses is not None and whole.losses is not None
        np.testing.assert_allclose(judgement.losses, whole.losses, rtol=1e-6)
    if output is Output.LOSS_ONLY:
        assert judgement.correct is None
    else:
        np.testing.assert_array_equal(judgement.correct, whole.correct)


def test_no_examples_are_rejected_by_the_ptm() -> None:
    with pytest.raises(InvalidExamples):
        PromptScorer(fake_ptm(), TASK, SPACE).scores(DATA.take(np.arange(0)), Z)


def test_no_prompt_scores_the_unchanged_examples() -> None:
    ptm = fake_ptm()
    scores = PromptScorer(ptm, TASK, NoPrompt(0)).scores(DATA, NoPrompt.Z)
    bare = PromptScorer(ptm, TaskSpec("{text}", TASK.classes), NoPrompt(0)).scores(DATA, NoPrompt.Z)
    assert scores.shape == (1, 23, 2)
    np.testing.assert_array_equal(scores, bare)


class Untold(Fake):
    """Tells only the score of the last class."""

    def job(self, task: TaskSpec, prompts: Prompts, rows: Any, wanted: npt.NDArray[np.bool_]) -> PlannedJob:
        plain = super().job(task, prompts, rows, wanted)

        def run(batch: MicroBatch) -> npt.NDArray[np.float32]:
            scores = np.zeros((len(batch.rows), 2, len(task.classes)), np.float32)
            scores[:, 0, -1] = 1.0
            scores[:, 1, :-1] = 1.0
            return scores

        return PlannedJob(tuple(plain.batches), run)


@pytest.mark.parametrize("output", Output)
def test_bounds_count_against_the_prompt(output: Output, caplog: pytest.LogCaptureFixture) -> None:
    """Kills: a service that computes losses from bounds as they are; a client that does; a warning for each call."""
    ptm = ptm_of(Untold(), output=output)
    judgement = PromptScorer(ptm, TASK, SPACE).judge(DATA, Z)
    lowered = np.log1p(10 * np.e)  # the loss of the scores -log 10 and 1, of class 0
    told = np.log1p(np.exp(-1))
    if judgement.losses is not None:
        expected = (12 * lowered + 11 * told) / 23
        np.testing.assert_allclose(judgement.losses, expected, rtol=1e-6)
    if judgement.correct is not None:
        np.testing.assert_array_equal(judgement.correct, 11)
    assert ptm.usage().bounded_scores == 3 * 23
    warnings = [record.message for record in caplog.records if "rest on bounds" in record.message]
    assert len(warnings) == (output is not Output.LABEL_ARGMAX), "each choice is a measured class"


def test_scores_without_labels_are_as_the_ptm_gives_them() -> None:
    scores = PromptScorer(local_ptm(Untold()), TASK, SPACE).scores(DATA, Z, use_labels=False)
    np.testing.assert_array_equal(scores, np.broadcast_to(np.array([0, 1], np.float32), scores.shape))


def test_truncated_texts_are_counted_over_all_parts_without_a_query(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "word " * (MAX_TOKENS - SPACE.prompt_tokens + 5)
    texts = tuple(long if row in (3, 20) else text for row, text in enumerate(DATA.examples.texts))
    data, ptm = LabelledExamples(Examples(texts), DATA.labels), fake_ptm()
    monkeypatch.setattr(asking, "PROGRESS_ROWS", 5)
    scorer = PromptScorer(ptm, TASK, SPACE)
    assert scorer.truncation_of(data) == Truncation(2, 10)
    assert scorer.truncation == Truncation() and ptm.usage().queries == 0
    scorer.scores(data, Z[:1])
    assert scorer.truncation == Truncation(2, 10)


VIEWS = ReadoutSpace(SPACE, ("", "It is about"), 4, 2, 4)
COLUMNS = TaskSpec(TASK.template, (*TASK.classes, "a person", "a place"))


@pytest.fixture(params=["prompts in the inputs", "prompts in the class texts"])
def inner(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> tuple[LocalPtm, LatentSpace]:
    if request.param == "prompts in the inputs":
        return fake_ptm(), SPACE
    place = replace(SPACE.projection, injection=Injection.CLASS)
    return local_ptm(load(str(checkpoint("bert-encoder")), threads=1)), replace(SPACE, projection=place)


def test_columns_are_those_of_each_view_and_of_the_prompt(inner: tuple[LocalPtm, LatentSpace]) -> None:
    ptm, space = inner
    views = replace(VIEWS, prompt=space)
    scorer = PromptScorer(ptm, COLUMNS, views)
    texts = [PromptScorer(ptm, COLUMNS, TextSpace(1, (view,), 4)) for view in views.views]
    z = np.concatenate([Z, np.ones((3, views.dim - 6), np.float32)], axis=1)
    part = scorer.register(DATA)
    apart = [space.scores(DATA, np.zeros((1, 1), np.float32))[0] for space in texts]
    prompted = PromptScorer(ptm, COLUMNS, space).scores(DATA, Z)
    for index, found in enumerate(scorer.columns(part, z)):
        np.testing.assert_array_equal(found, np.concatenate([*apart, prompted[index]], axis=1))


def test_views_and_the_last_prompt_are_asked_once() -> None:
    ptm = fake_ptm()
    scorer = PromptScorer(ptm, COLUMNS, VIEWS)
    part, readout = scorer.register(DATA), np.ones((2, 13))
    first, second = (VIEWS.join(z, readout)[None] for z in Z[:2])
    for _ in range(3):
        scorer.ask(part, first)
    assert scorer.queries == ptm.usage().queries == (2 + 1) * 23
    scorer.ask(part, VIEWS.join(Z[0], 3 * readout)[None])  # another readout of the same prompt
    scorer.ask(part, np.zeros((1, VIEWS.dim)))  # a readout that does without the prompt
    assert scorer.queries == (2 + 1) * 23
    scorer.ask(part, second)
    assert scorer.queries == ptm.usage().queries == (2 + 2) * 23


def test_readout_sees_bounds_alike_in_training_and_in_prediction(caplog: pytest.LogCaptureFixture) -> None:
    """Kills: columns that are lowered where the class is the example's own, which no prediction could repeat."""
    scorer = PromptScorer(local_ptm(Untold()), COLUMNS, VIEWS)
    z = np.random.default_rng(0).normal(size=(2, VIEWS.dim))
    swapped = LabelledExamples(DATA.examples, 1 - DATA.labels)
    told = scorer.scores(DATA, z)
    for data, use_labels in ((swapped, True), (DATA, False)):
        np.testing.assert_array_equal(scorer.scores(data, z, use_labels=use_labels), told)
    warnings = [record.message for record in caplog.records if "rest on bounds" in record.message]
    assert len(warnings) == 1 and "a readout takes them as they are" in warnings[0]


class ClassesOnly(LocalPtm):
    """A service that scores the classes and forgets the further columns."""

    def score(self, examples_id: str, prompts: Prompts) -> Scored:
        scored = super().score(examples_id, prompts)
        return replace(scored, answer=scored.answer[:, :, :2])


@pytest.mark.parametrize("space", [SPACE, VIEWS])
def test_scores_of_fewer_texts_than_the_task_has_are_refused(space: LatentSpace | ReadoutSpace) -> None:
    """Kills: a readout that takes the columns of one view for those of another."""
    plain = fake_ptm()
    scorer = PromptScorer(ClassesOnly(plain.engine, plain.tenant), COLUMNS, space)
    with pytest.raises(InvalidTensor, match=r"scores of shape \[\d, 23, 2\]; \[\d, 23, 4\]: prompts, examples, texts"):
        scorer.ask(scorer.register(DATA), np.ones((1, space.dim)))


def test_views_of_inputs_that_are_scored_once_are_not_kept() -> None:
    scorer = PromptScorer(fake_ptm(), COLUMNS, VIEWS)
    z = np.zeros((1, VIEWS.dim), np.float32)
    first = scorer.scores(DATA, z)
    assert scorer.queries == 2 * len(DATA)
    np.testing.assert_array_equal(scorer.scores(DATA, z), first)
    assert scorer.queries == 4 * len(DATA) and not scorer._view_scores

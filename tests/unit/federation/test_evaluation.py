"""Measurements of a prompt and its baselines, and the queries that they cost."""

import numpy as np
import pytest

from fedbbpt.client.asking import PromptScorer
from fedbbpt.errors import OutputWithheld
from fedbbpt.federation.evaluation import Measured, compare, evaluate
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.tasks.criterion import cross_entropy
from fedbbpt.types import Examples, LabelledExamples, Output, Projection, ProjectionKind, TaskSpec
from tests.tenants import local_ptm, ptm_of

TASK = TaskSpec("{prompt} {text}", ("visiting hours and parking", "charges and payments"))
SPACE = LatentSpace(6, Projection(ProjectionKind.RADEMACHER, 11, 3, 1.0, ""))
Z = np.linspace(-1, 1, 6).astype(np.float32)


def examples(count: int, first: int = 0) -> LabelledExamples:
    words = ("parking hours", "charges payments")
    texts = tuple(f"{words[i % 2]} number {first + i}" for i in range(count))
    return LabelledExamples(Examples(texts), np.arange(count) % 2)


def fake_ptm() -> LocalPtm:
    return local_ptm(Fake())


def test_measured_has_accuracy_and_mean_cross_entropy() -> None:
    scores = np.array([[[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]], np.float32)
    data = LabelledExamples(Examples(("a", "b", "c")), np.array([0, 1, 1]))
    found = Measured.of_scores(scores, data)
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.loss == pytest.approx(float(cross_entropy(scores, data.labels)[0]))
    assert found.queries == 3


def test_compare_costs_the_queries_that_the_service_counts() -> None:
    ptm, train, test = fake_ptm(), examples(8), examples(20, first=100)
    told: list[int] = []
    compared = compare(ptm, TASK, SPACE, Z, train, test, told.append)
    assert compared.queries == sum(told) == ptm.usage().queries == 3 * 20 + 8
    plain, prompted = PromptScorer(ptm, TASK, NoPrompt(SPACE.prompt_tokens)), PromptScorer(ptm, TASK, SPACE)
    assert compared.without == Measured.of_scores(plain.scores(test, NoPrompt.Z), test)
    assert compared.tuned == Measured.of_scores(prompted.scores(test, Z[None]), test)
    # Without an initial text, z = 0 is the zero vector, which does not change the scores of the fake model.
    assert compared.start.loss == pytest.approx(compared.without.loss, rel=1e-5)


def test_offset_baseline_sees_no_test_label() -> None:
    """The offsets are fitted on the training examples, so exchanging the test labels must not change them."""
    train, test = examples(8), examples(20, first=100)
    turned = LabelledExamples(test.examples, 1 - test.labels)
    straight, other = (compare(fake_ptm(), TASK, SPACE, Z, train, part).offsets for part in (test, turned))
    assert straight is not None and other is not None and other.accuracy is not None
    assert straight.accuracy == pytest.approx(1 - other.accuracy)


@pytest.mark.parametrize("output", [Output.LABEL_ARGMAX, Output.LOSS_ONLY])
def test_compare_leaves_out_measures_that_need_scores(output: Output) -> None:
    train, test = examples(8), examples(20, first=100)
    ptm = ptm_of(Fake(), output=output)
    whole, found = compare(fake_ptm(), TASK, SPACE, Z, train, test), compare(ptm, TASK, SPACE, Z, train, test)
    assert found.offsets is None and found.queries == ptm.usage().queries == 3 * 20
    for name in ("without", "start", "tuned"):
        right, measure = getattr(whole, name), getattr(found, name)
        if output is Output.LOSS_ONLY:
            assert measure.accuracy is None and measure.loss == pytest.approx(right.loss, rel=1e-6)
        else:
            assert measure.accuracy == right.accuracy and measure.loss is None
    with pytest.raises(OutputWithheld, match=f"the PTM gives {output}"):
        PromptScorer(ptm, TASK, SPACE).scores(test, Z[None])


@pytest.mark.parametrize("output", list(Output))
def test_evaluate_gives_a_confusion_matrix_unless_the_ptm_gives_losses_only(output: Output) -> None:
    test = examples(20, first=100)
    scorer = PromptScorer(ptm_of(Fake(), output=output), TASK, SPACE)
    found, whole = evaluate(scorer, Z, test, 2), evaluate(PromptScorer(fake_ptm(), TASK, SPACE), Z, test, 2)
    if output is Output.LOSS_ONLY:
        assert found.confusion is None and found.interval is None and found.loss == pytest.approx(whole.loss, rel=1e-6)
    else:
        assert found.confusion is not None and whole.confusion is not None
        np.testing.assert_array_equal(found.confusion, whole.confusion)
        assert found.accuracy == np.trace(whole.confusion) / 20
        assert found.confusion.sum(axis=1).tolist() == [10, 10]

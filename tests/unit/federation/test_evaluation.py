"""Measurements of a prompt on labelled examples."""

import numpy as np
import pytest

from fedbbpt.client.asking import PromptScorer
from fedbbpt.federation.evaluation import Answers, Measured, evaluate
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.tasks.criterion import cross_entropy
from fedbbpt.tasks.intervals import difference_interval
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
    assert found.examples == 3


def answered(right: list[bool]) -> Measured:
    labels = np.zeros(len(right), np.int64)
    return Measured(sum(right) / len(right), None, len(right), Answers(labels, np.where(right, 0, 1), 2))


def test_a_gain_counts_the_examples_that_only_one_of_both_answers_right() -> None:
    """Kills: an interval of two separate samples, which the examples that both answer right would widen."""
    first = answered([True] * 60 + [True] * 12 + [False] * 4 + [False] * 24)
    second = answered([True] * 60 + [False] * 12 + [True] * 4 + [False] * 24)
    gain = first.gain_over(second)
    assert gain is not None and (gain.only_this, gain.only_other, gain.examples) == (12, 4, 100)
    assert gain.difference == pytest.approx(0.08)
    assert gain.interval == difference_interval(12, 4, 100) and gain.interval[0] > 0
    assert first.gain_over(Measured(None, 0.5, 100)) is None


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

"""Measurements of a prompt on labelled examples."""

import numpy as np
import pytest

from fedbbpt.client.asking import PromptScorer
from fedbbpt.federation.evaluation import Measured, evaluate
from fedbbpt.prompts.latent import LatentSpace
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

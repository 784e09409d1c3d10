"""The comparison of wordings: honest figures, a bounded number of queries, and reasons for what is left out."""

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.federation.wordings import compare_wordings, cross_fitted_accuracy, sample_evenly
from fedbbpt.host.progress import shown_by
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.types import Examples, LabelledExamples, TaskSpec
from tests.progress import Kept
from tests.tenants import local_ptm

PLACES = tuple(f"in which city is the street number {n}" for n in range(10))
NUMBERS = tuple(f"how many people live there {n}" for n in range(10))
DATA = LabelledExamples(Examples(PLACES + NUMBERS), np.repeat([0, 1], 10))
RIGHT = TaskSpec("{prompt} {text}", ("in which city is the street", "how many people live there"))
WRONG = TaskSpec("{prompt} {text}", RIGHT.classes[::-1])
MASKED = TaskSpec("{prompt} {text} {mask}", RIGHT.classes)


def test_the_best_wording_comes_first_with_its_figures() -> None:
    ptm, shown = local_ptm(Fake()), Kept()
    with shown_by(shown):
        found = compare_wordings(ptm, [WRONG, RIGHT, RIGHT], DATA, room=2, limit=1000)
    best, worst = found.tried
    assert best.wording == RIGHT and best.measured.accuracy == best.fitted == 1.0
    assert worst.measured.accuracy == 0.0 and worst.measured.loss is not None
    assert shown.works == [("asking the model", found.queries, "queries")]
    assert found.queries == shown.done["asking the model"] == 2 * len(DATA) == ptm.usage().queries


def test_a_wording_that_the_model_cannot_score_is_left_out_with_its_reason() -> None:
    found = compare_wordings(local_ptm(Fake()), [MASKED, RIGHT], DATA, room=2, limit=1000)
    assert [one.wording for one in found.tried] == [RIGHT]
    assert [one.wording for one in found.refused] == [MASKED] and "mask" in found.refused[0].reason
    with pytest.raises(InvalidInput, match=r"can score none of the wordings: .*mask"):
        compare_wordings(local_ptm(Fake()), [MASKED], DATA, room=2, limit=1000)


def test_the_limit_bounds_the_queries_of_all_wordings_together() -> None:
    ptm = local_ptm(Fake())
    found = compare_wordings(ptm, [WRONG, RIGHT], DATA, room=2, limit=13)
    assert found.examples == 6 and found.queries == ptm.usage().queries == 12
    with pytest.raises(InvalidInput, match=r"--limit: 3 examples for 2 classes are too few .*; at least 8"):
        compare_wordings(ptm, [WRONG, RIGHT], DATA, room=2, limit=7)


def test_fitted_offsets_are_measured_on_examples_that_did_not_fit_them() -> None:
    """Kills: offsets that are fitted and measured on the same examples, which look better than they are."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 4)
    noise = rng.normal(size=(200, 32, 8)).astype(np.float32)
    honest = float(np.mean([cross_fitted_accuracy(scores, labels) for scores in noise]))
    assert abs(honest - 1 / 8) < 0.02, "scores of noise are right by chance only"


def test_offsets_correct_a_preference_for_one_class() -> None:
    labels = np.tile([0, 1], 20)
    scores = np.stack([np.full(40, 5.0), labels.astype(float)], axis=1).astype(np.float32)
    assert cross_fitted_accuracy(scores, labels) == 1.0


def test_samples_have_every_class_alike() -> None:
    labels = np.array([0] * 30 + [1] * 3 + [2] * 10)
    counts = np.bincount(labels[sample_evenly(labels, 15, seed=1)])
    assert counts.tolist() == [6, 3, 6]
    assert sample_evenly(labels, 99, seed=1).tolist() == list(range(43))

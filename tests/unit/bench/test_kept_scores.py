"""Kept scores are those of the PTM, and are asked once."""

from pathlib import Path

import numpy as np

from fedbbpt.bench.kept_scores import Kept, KeptScores
from fedbbpt.types import Examples, TaskSpec, TextPrompts
from tests.tiny_run import fake_ptm

TASK = TaskSpec(template="{prompt} {text}", classes=("bad", "good"))
TEXTS = Examples(("a fine film", "a dull film", "a long film"))
PROMPTS = TextPrompts(("", "It is"))


def ask(ptm: KeptScores, texts: Examples) -> np.ndarray:
    return ptm.score(ptm.register_examples(ptm.register_task(TASK), texts, 4).id, PROMPTS).scores


def test_objects_that_share_scores_ask_each_pair_once() -> None:
    kept: Kept = {}
    first, second = fake_ptm(), fake_ptm()
    scores = ask(KeptScores(first, kept), Examples(TEXTS.texts[:2]))
    assert first.usage().queries == 4
    more = ask(KeptScores(second, kept), TEXTS)
    assert second.usage().queries == 2
    plain = fake_ptm()
    expected = plain.score(plain.register_examples(plain.register_task(TASK), TEXTS, 4).id, PROMPTS).scores
    np.testing.assert_array_equal(more, expected)
    np.testing.assert_array_equal(scores, expected[:, :2])


def test_a_file_of_scores_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "kept.scores"
    scores = ask(KeptScores(fake_ptm(), {}, path), TEXTS)
    again = fake_ptm()
    np.testing.assert_array_equal(ask(KeptScores(again, {}, path), TEXTS), scores)
    assert again.usage().queries == 0

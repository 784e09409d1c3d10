"""A client's losses on images, where prompts are as large as inputs and must fit into messages."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.client.asking import PromptScorer
from fedbbpt.client.objective import LocalObjectives
from fedbbpt.limits import ENVELOPE_BYTES
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.visual import ImageSpace
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.tenants.tenant import IN_PROCESS
from fedbbpt.types import Examples, LabelledExamples, ModelCard, Prompts, Scored, TaskSpec
from tests.tenants import local_ptm

SPACE = ImageSpace((3, 8, 8), pooled=2, grid=2, widths=(4, 4), strength=1.0, seed=1)
TASK = TaskSpec("{prompt} {text}", ("ship", "cat"))
DRAW = np.random.default_rng(0)
# Grey images, smaller than the model takes.
DATA = LabelledExamples(Examples(images=DRAW.integers(0, 256, (7, 1, 5, 6), np.uint8)), np.arange(7) % 2)
Z = DRAW.normal(0, 0.3, (5, SPACE.dim))


class Narrow(LocalPtm):
    """A PTM whose messages hold at most `pictures` images."""

    def __init__(self, model: Path, pictures: int) -> None:
        super().__init__(Engine(load(str(model), threads=1), lambda: 0.0), IN_PROCESS)
        self._pictures = pictures

    def describe(self) -> ModelCard:
        return replace(super().describe(), max_message_bytes=ENVELOPE_BYTES + self._pictures * (4 + 1) * 3 * 8 * 8)

    def score(self, examples_id: str, prompts: Prompts) -> Scored:
        prompts.check(self.describe())
        scored = super().score(examples_id, prompts)
        assert len(prompts) * scored.scores.shape[1] <= self._pictures
        return scored


@pytest.mark.parametrize("pictures", [1, 3, 10, 20])
def test_small_messages_change_neither_losses_nor_the_number_of_queries(image_classifier: Path, pictures: int) -> None:
    """Kills: deltas of the first rows for all parts; losses in the order of the parts."""
    wide = LocalObjectives(local_ptm(load(str(image_classifier))), TASK, SPACE, DATA, DATA)
    narrow = LocalObjectives(Narrow(image_classifier, pictures), TASK, SPACE, DATA, DATA)
    assert np.array_equal(narrow.loss(Z, 0), wide.loss(Z, 0))
    assert np.array_equal(narrow.each(Z, None, 0), wide.each(Z, None, 0))
    assert narrow.measure(Z[0].astype(np.float32)) == wide.measure(Z[0].astype(np.float32))
    assert narrow.queries == wide.queries == 2 * 5 * 7 + 7


def test_scores_in_small_messages_are_the_same(image_classifier: Path) -> None:
    wide, narrow = local_ptm(load(str(image_classifier))), Narrow(image_classifier, 2)
    z = Z[:1].astype(np.float32)
    assert np.array_equal(
        PromptScorer(narrow, TASK, SPACE).scores(DATA, z), PromptScorer(wide, TASK, SPACE).scores(DATA, z)
    )
    plain = PromptScorer(narrow, TASK, NoPrompt(0)).scores(DATA, NoPrompt.Z)
    assert plain.shape == (1, 7, 2)

"""bfloat16: another revision, nearly equal scores, and the noise that the card states."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, LatentPrompts, Precision, Projection, ProjectionKind, Scores, TaskSpec
from tests.tenants import local_ptm

TEXTS = Examples(("the film was very good", "who wrote this book", "a story", "where is paris", "so long and so dull"))
PROJECTION = Projection(ProjectionKind.RADEMACHER, seed=7, tokens=3, scale=1.0, initial_text="which kind of")
Z = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
TASKS = {
    "bert-encoder": TaskSpec("{prompt} {text}", ("a number", "a person", "a place")),
    "roberta-mlm": TaskSpec("{prompt} {text} It was {mask}.", ("bad", "great", "fine")),
    "gpt2": TaskSpec("{prompt} {text} It was {mask}", ("bad", "great", "fine")),
    "llama": TaskSpec("{prompt} {text} It was {mask}", ("bad", "great film", "not so very fine")),
}


def engine(folder: Path, precision: Precision) -> LocalPtm:
    return local_ptm(load(str(folder), threads=1, precision=precision), time.monotonic)


def scores(ptm: LocalPtm, task: TaskSpec) -> Scores:
    handle = ptm.register_examples(ptm.register_task(task), TEXTS, 3)
    return ptm.score(handle.id, LatentPrompts(Z, PROJECTION)).scores


@pytest.mark.parametrize("name", TASKS)
def test_bfloat16_scores_are_close_to_float32(checkpoint: Callable[[str], Path], name: str) -> None:
    """Kills: lowering rotary frequencies or the tied decoder, which moves scores much further."""
    exact, fast = (engine(checkpoint(name), precision) for precision in Precision)
    assert exact.describe().revision != fast.describe().revision
    theirs, ours = scores(exact, TASKS[name]), scores(fast, TASKS[name])
    centred = theirs - theirs.mean(axis=2, keepdims=True)
    moved = ours - theirs - (ours - theirs).mean(axis=2, keepdims=True)
    assert 0 < np.abs(moved).mean() < 0.05 * np.abs(centred).mean()


def test_card_states_the_measured_noise(checkpoint: Callable[[str], Path]) -> None:
    """Kills: a card that always says 0."""
    from fedbbpt.ptm.models.checkpoint import load as read
    from fedbbpt.ptm.models.families import FAMILIES
    from fedbbpt.ptm.models.text.masked_lm import MaskedLM

    class Coupled(MaskedLM):
        def _score_hidden(self, hidden: Any, positions: Any, columns: Any) -> Any:
            return super()._score_hidden(hidden, positions, columns) + 1e-2 * (len(hidden) - 1)

    folder = checkpoint("roberta-mlm")
    for family, noisy in ((MaskedLM, False), (Coupled, True)):
        backend = family(read(str(folder), folder, FAMILIES["masked-lm"][1], "masked-lm", Precision.FLOAT32), threads=1)
        assert (backend.describe().score_noise > 1e-2) is noisy


@pytest.mark.parametrize("model", ["fake", "model.onnx"])
def test_model_without_torch_has_no_choice_of_precision(model: str) -> None:
    with pytest.raises(InvalidInput, match="bfloat16"):
        load(model, precision=Precision.BFLOAT16)

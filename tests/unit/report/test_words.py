"""The words nearest to a soft prompt."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.ptm.models.loading import load
from fedbbpt.report.run_data import RunData
from fedbbpt.report.words import nearest_words
from fedbbpt.types import SoftPrompts

WORDS = ("film", "story", "question")


def test_a_words_own_vector_is_nearest_to_it(checkpoint: Callable[[str], Path]) -> None:
    backend: Any = load(str(checkpoint("bert-mlm")), threads=1)
    ids = [backend._encoder.tokenise(word)[0] for word in WORDS]
    vectors = backend._injector.embed_tokens(ids).numpy()
    scaled = np.stack([3 * vectors, -vectors]).astype(np.float32)
    found = backend.nearest_words(SoftPrompts(scaled), 2)
    assert [words[0] for words in found] == list(WORDS)
    assert [len(words) for words in found] == [2, 2, 2]


def run(space: object, model: str) -> RunData:
    card = SimpleNamespace(space=space, model=lambda named: named or model, model_options=dict)
    return replace(RunData({}, (), (), cast(Any, card), np.zeros(3, np.float32)))


def test_what_has_no_words_says_why() -> None:
    with pytest.raises(InvalidInput, match="the result is no soft prompt"):
        nearest_words(run(NoPrompt(), "fake"))

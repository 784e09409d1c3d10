"""Deep prompts: their prefixes, and the scores with them, compared with a plain forward pass from a cache."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidTensor
from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import DeepPrompts, Examples, PromptKind, TaskSpec
from tests.tenants import local_ptm

EXAMPLES = Examples(("how many people live in paris", "who wrote this book", "what"))
SPACE = DeepSpace(layers=2, heads=4, width=8, tokens=3, seed=5, std=0.5)
WORDS = {"one token each": ("number", "person"), "several": ("number place", "person", "two words")}


def test_z_is_the_distance_from_the_initial_prefix() -> None:
    z = np.random.default_rng(0).normal(size=(2, SPACE.dim)).astype(np.float32)
    at_zero = SPACE.prefixes(np.zeros((1, SPACE.dim)))
    assert at_zero.shape == (1, 2, 2, 4, 3, 8)
    assert 0.4 < at_zero.std() < 0.6
    np.testing.assert_array_equal(SPACE.prefixes(z), at_zero + z.reshape(2, 2, 2, 4, 3, 8))
    np.testing.assert_allclose(SPACE.z(SPACE.prefixes(z)), z, atol=1e-6)


def plain_scores(folder: Path, prefix: Any, text: str, words: tuple[str, ...]) -> list[float]:
    """Returns log p(word | prefix, text), by one pass of the unsplit model over the whole input."""
    import torch
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    model: Any = t.AutoModelForCausalLM.from_pretrained(folder)
    model.eval()
    text_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    scores = []
    for word in words:
        word_ids = tokenizer(" " + word, add_special_tokens=False)["input_ids"]
        cache = t.DynamicCache()
        for index, (keys, values) in enumerate(torch.from_numpy(prefix)):
            cache.update(keys[None], values[None], index)
        with torch.no_grad():
            logits = model(torch.tensor([text_ids + word_ids]), cache=cache).logits[0].log_softmax(-1)
        scores.append(sum(float(logits[len(text_ids) + i - 1, token]) for i, token in enumerate(word_ids)))
    return scores


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_deep_prompts_score_as_a_plain_forward_pass_from_a_cache(
    checkpoint: Callable[[str], Path], name: str, words: tuple[str, ...]
) -> None:
    folder = checkpoint(name)
    ptm = local_ptm(load(str(folder), threads=1))
    card = ptm.describe()
    assert PromptKind.DEEP in card.prompt_kinds and card.prefix_shape is not None
    layers, heads, width = card.prefix_shape
    prefixes = np.random.default_rng(1).normal(size=(2, layers, 2, heads, 3, width)).astype(np.float32)
    task_id = ptm.register_task(TaskSpec("{text} {mask}", words))
    scored = ptm.score(ptm.register_examples(task_id, EXAMPLES, 3).id, DeepPrompts(prefixes)).scores
    scored = scored - np.logaddexp.reduce(scored, axis=2, keepdims=True)
    for p, b in np.ndindex(2, 3):
        expected = np.array(plain_scores(folder, prefixes[p], EXAMPLES.texts[b], words))
        np.testing.assert_allclose(scored[p, b], expected - np.logaddexp.reduce(expected), atol=2e-3)
    alone = ptm.score(ptm.register_examples(task_id, EXAMPLES, 3).id, DeepPrompts(prefixes[1:]))
    again = ptm.score(ptm.register_examples(task_id, EXAMPLES, 3).id, DeepPrompts(prefixes))
    np.testing.assert_array_equal(alone.scores[0], again.scores[1])


def test_a_prefix_of_another_model_is_refused(checkpoint: Callable[[str], Path]) -> None:
    ptm = local_ptm(load(str(checkpoint("gpt2")), threads=1), lambda: 0.0)
    task_id = ptm.register_task(TaskSpec("{text} {mask}", WORDS["one token each"]))
    handle = ptm.register_examples(task_id, EXAMPLES, 3)
    with pytest.raises(InvalidTensor, match=r"\(2, 4, 8\)"):
        ptm.score(handle.id, DeepPrompts(np.zeros((1, 3, 2, 4, 3, 8), np.float32)))

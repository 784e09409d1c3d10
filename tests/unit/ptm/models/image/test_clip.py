"""CLIP, compared with transformers' own forward pass, and the refusal of incomplete checkpoints."""

import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput, InvalidTask, PromptTooLong
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, ImagePrompts, Injection, Precision, SoftPrompts, TaskSpec
from tests.checkpoints import MAX_TOKENS
from tests.jobs import score

TASK = TaskSpec("{prompt} {text}", ("the good film", "a dull place", "paris"))
DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 256, (3, 3, 8, 8), np.uint8)
DELTAS = DRAW.normal(0, 0.3, (2, 3, 3, 8, 8)).astype(np.float32)


def test_scores_are_those_of_a_plain_forward_pass(checkpoint: Callable[[str], Path]) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = checkpoint("clip")
    backend = load(str(folder), threads=1)
    rows = backend.prepare(TASK, Examples(images=IMAGES), 0, None)
    scores = score(backend, TASK, ImagePrompts(DELTAS), rows)
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    mean, deviation = np.array([0.5, 0.4, 0.3])[:, None, None], np.array([0.2, 0.3, 0.4])[:, None, None]
    for p, b in np.ndindex(2, 3):
        pixels = (np.clip(IMAGES[b] / 255 + DELTAS[p, b], 0, 1) - mean) / deviation
        for k, text in enumerate(TASK.classes):
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            with torch.inference_mode():
                found = model(input_ids=ids, pixel_values=torch.tensor(pixels[None], dtype=torch.float32))
            assert scores[p, b, k] == pytest.approx(float(found.logits_per_image), rel=1e-4, abs=1e-4)


def test_a_description_that_is_too_long_is_refused(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidTask, match="tokens"):
        load(str(checkpoint("clip")), threads=1).check(TaskSpec("{prompt} {text}", ("a", "long " * 100)))


def test_missing_preprocessor_and_other_precisions_are_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    bare = shutil.copytree(checkpoint("clip"), tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(InvalidInput, match="image_mean"):
        load(str(bare))
    with pytest.raises(InvalidInput, match="bfloat16"):
        load(str(checkpoint("clip")), precision=Precision.BFLOAT16)


def plain_class_scores(folder: Path, vectors: Any, images: Any) -> Any:
    """Returns transformers' own scores `[P, B, K]` of class texts with prompts `[P, L, D]` after their first token."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    mean, deviation = (torch.tensor(each)[:, None, None] for each in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    pixels = (torch.from_numpy(images / 255).float() - mean) / deviation
    scores = np.empty((len(vectors), len(images), len(TASK.classes)), np.float32)
    for (p, prompt), (k, text) in product(enumerate(vectors), enumerate(TASK.classes)):
        ids, length = tokenizer(text)["input_ids"], len(prompt)
        placed = torch.tensor([[ids[0], *[3] * length, *ids[1:]]])  # any word that does not end a text

        def insert(module: Any, inputs: Any, words: Any, prompt: Any = prompt) -> Any:
            words[0, 1 : 1 + len(prompt)] = torch.from_numpy(prompt)
            return words

        hook = model.text_model.embeddings.token_embedding.register_forward_hook(insert)
        with torch.inference_mode():
            scores[p, :, k] = model(input_ids=placed, pixel_values=pixels).logits_per_image[:, 0].numpy()
        hook.remove()
    return scores


def test_scores_of_prompts_in_the_class_texts_are_those_of_a_plain_forward_pass(
    checkpoint: Callable[[str], Path],
) -> None:
    """Kills: a prompt before the first token; a text that is read at the position it has without a prompt; no mask."""
    pytest.importorskip("torch")
    folder = checkpoint("clip")
    backend = load(str(folder), threads=1)
    vectors = DRAW.normal(0, 0.3, (2, 3, backend.describe().embedding_width)).astype(np.float32)
    rows = backend.prepare(TASK, Examples(images=IMAGES), 0, None)
    scores = score(backend, TASK, SoftPrompts(vectors, Injection.CLASS), rows)
    assert scores == pytest.approx(plain_class_scores(folder, vectors, IMAGES), rel=1e-4, abs=1e-4)


def test_pair_with_a_prompt_in_the_class_texts_scores_the_same_bits_alone(checkpoint: Callable[[str], Path]) -> None:
    backend = load(str(checkpoint("clip")), threads=2)
    vectors = DRAW.normal(0, 0.3, (5, 1, backend.describe().embedding_width)).astype(np.float32)
    together = score(
        backend, TASK, SoftPrompts(vectors, Injection.CLASS), backend.prepare(TASK, Examples(images=IMAGES), 0, None)
    )
    for p, b in np.ndindex(5, 3):
        row = backend.prepare(TASK, Examples(images=IMAGES[b : b + 1]), 0, None)
        alone = score(backend, TASK, SoftPrompts(vectors[p : p + 1], Injection.CLASS), row)
        assert np.array_equal(alone[0, 0], together[p, b])


def test_class_texts_need_room_for_the_prompt(checkpoint: Callable[[str], Path]) -> None:
    backend = load(str(checkpoint("clip")), threads=1)
    rows = backend.prepare(TASK, Examples(images=IMAGES), 0, None)
    vectors = np.zeros((1, MAX_TOKENS - 4, backend.describe().embedding_width), np.float32)
    with pytest.raises(PromptTooLong, match="class 'the good film'"):
        score(backend, TASK, SoftPrompts(vectors, Injection.CLASS), rows)

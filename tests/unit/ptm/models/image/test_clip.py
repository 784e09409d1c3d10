"""CLIP, compared with transformers' own forward pass, and the refusal of incomplete checkpoints."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput, InvalidTask
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, ImagePrompts, Precision, TaskSpec
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

"""Image classifiers, compared with transformers' own forward pass, and the refusal of unsupported preprocessing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, ImagePrompts, Precision, TaskSpec
from tests.jobs import score

TASK = TaskSpec("{prompt} {text}", ("ship", "cat", "truck"))
DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 256, (3, 3, 8, 8), np.uint8)
DELTAS = DRAW.normal(0, 0.3, (2, 3, 3, 8, 8)).astype(np.float32)

Copy = Callable[..., Path]


@pytest.fixture
def copy(checkpoint: Callable[[str], Path], tmp_path: Path) -> Copy:
    """Copies a checkpoint and changes its configuration and its preprocessor file."""

    def changed(name: str, config: dict[str, Any], preprocessor: dict[str, Any]) -> Path:
        folder = shutil.copytree(checkpoint(name), tmp_path / "copy", dirs_exist_ok=True)
        for file, changes in (("config.json", config), ("preprocessor_config.json", preprocessor)):
            settings = json.loads((folder / file).read_text()) | changes
            (folder / file).write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
        return folder

    return changed


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_scores_are_those_of_a_plain_forward_pass(checkpoint: Callable[[str], Path], name: str) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = checkpoint(name)
    backend = load(str(folder), threads=1)
    scores = score(backend, TASK, ImagePrompts(DELTAS), backend.prepare(TASK, Examples(images=IMAGES), 0, None))
    card = backend.describe()
    assert (card.family, card.labels) == ("image-classifier", ("cat", "dog", "ship", "truck"))
    assert backend.hidden_size == 32
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    mean, deviation = np.array([0.5, 0.4, 0.3])[:, None, None], np.array([0.2, 0.3, 0.4])[:, None, None]
    pixels = (np.clip(IMAGES / 255 + DELTAS, 0, 1) - mean) / deviation
    with torch.inference_mode():
        logits = model(torch.tensor(pixels.reshape(6, 3, 8, 8), dtype=torch.float32)).logits
    assert np.allclose(scores, logits.numpy().reshape(2, 3, 4)[:, :, [2, 0, 3]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "size", [{"height": 8, "width": 12}, {"shortest_edge": 16}, 10], ids=["height and width", "shortest edge", "number"]
)
def test_shape_is_that_of_the_preprocessor_if_the_model_states_none(copy: Copy, size: Any) -> None:
    wanted = {"height": (3, 8, 12), "shortest_edge": (3, 16, 16)}.get(
        next(iter(size)) if size != 10 else "", (3, 10, 10)
    )
    assert load(str(copy("resnet", {}, {"size": size}))).describe().image_shape == wanted
    cropped = {"size": 99, "crop_size": size, "do_center_crop": True}
    assert load(str(copy("resnet", {}, cropped))).describe().image_shape == wanted
    assert load(str(copy("vit", {}, {"size": size}))).describe().image_shape == (3, 8, 8)


def test_repeated_labels_get_their_numbers(copy: Copy) -> None:
    twice = {"id2label": {"0": "crane", "1": "ship", "2": "crane", "3": "truck"}}
    assert load(str(copy("vit", twice, {}))).describe().labels == ("crane (0)", "ship", "crane (2)", "truck")


def test_revision_depends_on_the_normalisation_of_pixels(copy: Copy) -> None:
    revision = load(str(copy("vit", {}, {}))).describe().revision
    assert load(str(copy("vit", {}, {}))).describe().revision == revision
    assert load(str(copy("vit", {}, {"image_std": [0.2, 0.3, 0.5]}))).describe().revision != revision
    assert load(str(copy("vit", {}, {"do_normalize": False}))).describe().revision != revision


@pytest.mark.parametrize(
    ("name", "preprocessor", "text"),
    [
        ("vit", {"image_mean": None}, "image_mean"),
        ("vit", {"image_std": [0.2, 0.3]}, "3 numbers each"),
        ("vit", {"image_std": [0.2, 0.3, 0.0]}, "3 numbers each"),
        ("vit", {"rescale_factor": 1 / 127.5}, "0 to 1"),
        ("vit", {"do_rescale": False}, "0 to 1"),
        ("vit", {"do_flip_channel_order": True}, "only scaling to 0 to 1 and normalising"),
        ("resnet", {"size": None}, "no size of images"),
        ("resnet", {"size": {"longest_edge": 9}}, "no size of images"),
    ],
)
def test_unsupported_preprocessing_is_refused(copy: Copy, name: str, preprocessor: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        load(str(copy(name, {}, preprocessor)))


def test_other_precisions_are_refused(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidInput, match="bfloat16"):
        load(str(checkpoint("vit")), precision=Precision.BFLOAT16)

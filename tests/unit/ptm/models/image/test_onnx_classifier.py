"""What ONNX models are taken, and what their card says."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.loading import load
from fedbbpt.tasks.sizes import examples_of_a_handle
from fedbbpt.types import Examples

onnx = pytest.importorskip("onnx")
RESNET = Path(__file__).parents[6] / "shared/weights/resnet20-cifar10.onnx"


def copy(model: Path, folder: Path, labels: object = None) -> Path:
    path = folder / "model.onnx"
    shutil.copy(model, path)
    if labels is not None:
        path.with_suffix(".labels.json").write_text(labels if isinstance(labels, str) else json.dumps(labels))
    return path


def test_without_a_file_of_labels_they_are_numbers(image_classifier: Path, tmp_path: Path) -> None:
    assert load(str(copy(image_classifier, tmp_path))).describe().labels == ("0", "1", "2", "3")


def test_the_revision_is_that_of_weights_and_labels(image_classifier: Path, tmp_path: Path) -> None:
    named = load(str(image_classifier)).describe().revision
    assert load(str(copy(image_classifier, tmp_path, ["cat", "dog", "ship", "truck"]))).describe().revision == named
    others = copy(image_classifier, tmp_path, ["dog", "cat", "ship", "truck"])
    assert load(str(others)).describe().revision != named
    model = onnx.load(others)
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[::-1]
    onnx.save(model, others)
    others.with_suffix(".labels.json").write_text('["cat", "dog", "ship", "truck"]')
    assert load(str(others)).describe().revision != named


@pytest.mark.parametrize(
    "labels", ["no JSON", {"cat": 0}, ["cat", "dog"], ["cat", "dog", "ship", "ship"], [1, 2, 3, 4]]
)
def test_labels_that_are_not_the_models_are_refused(image_classifier: Path, tmp_path: Path, labels: Any) -> None:
    with pytest.raises(InvalidInput, match=r"model\.labels\.json"):
        load(str(copy(image_classifier, tmp_path, labels)))


@pytest.mark.parametrize(
    ("shapes", "fix"),
    [
        ([["batch", 3, "height", "width"]], r"fixed C, H and W"),
        ([[8, 3, 4, 4]], r"fixed C, H and W"),
        ([["batch", 48]], r"fixed C, H and W"),
        ([["batch", 3, 4, 4], ["batch", 3, 4, 4]], r"fixed C, H and W"),
        ([["batch", 3, 4, 4]], r"float32 \[batch, classes\]"),
    ],
    ids=["sides that vary", "batches of eight", "no images", "two inputs", "images come out"],
)
def test_models_of_another_form_are_refused(tmp_path: Path, shapes: list[list[int | str]], fix: str) -> None:
    make, float32 = onnx.helper, onnx.TensorProto.FLOAT
    inputs = [make.make_tensor_value_info(f"in{i}", float32, shape) for i, shape in enumerate(shapes)]
    node = make.make_node("Sum", [one.name for one in inputs], ["out"])
    graph = make.make_graph([node], "sum", inputs, [make.make_tensor_value_info("out", float32, shapes[0])])
    path = tmp_path / "model.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(InvalidInput, match=fix):
        load(str(path))


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(InvalidInput, match=r"model\.onnx"):
        load(str(path))
    path.write_bytes(b"[run]\nseed = 0\n")
    with pytest.raises(InvalidInput, match=r"model\.onnx"):
        load(str(path))


@pytest.mark.skipif(not RESNET.exists(), reason="the weights are not here")
def test_a_real_classifier_scores_the_same_bits_in_any_company() -> None:
    card = load(str(RESNET), threads=2).describe()
    assert card.image_shape == (3, 32, 32) and len(card.labels) == 10 and card.score_noise == 0.0
    many = Examples(images=np.zeros((10_000, 3, 32, 32), np.uint8))
    assert np.isclose(examples_of_a_handle(card, many), card.max_message_bytes / (5 * 3 * 32 * 32), rtol=0.01)

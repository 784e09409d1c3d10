"""ONNX models: the supported form, their labels and their card."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, TaskSpec
from fedbbpt.types.call_sizes import examples_per_handle

onnx = pytest.importorskip("onnx")


def copy(model: Path, folder: Path, labels: object = None) -> Path:
    path = folder / "model.onnx"
    shutil.copy(model, path)
    if labels is not None:
        path.with_suffix(".labels.json").write_text(labels if isinstance(labels, str) else json.dumps(labels))
    return path


def test_labels_are_numbers_without_a_file_of_labels(image_classifier: Path, tmp_path: Path) -> None:
    assert load(str(copy(image_classifier, tmp_path))).describe().labels == ("0", "1", "2", "3")


def test_revision_depends_on_weights_and_labels(image_classifier: Path, tmp_path: Path) -> None:
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
def test_file_with_other_labels_is_refused(image_classifier: Path, tmp_path: Path, labels: Any) -> None:
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
def test_model_of_another_form_is_refused(tmp_path: Path, shapes: list[list[int | str]], fix: str) -> None:
    make, float32 = onnx.helper, onnx.TensorProto.FLOAT
    inputs = [make.make_tensor_value_info(f"in{i}", float32, shape) for i, shape in enumerate(shapes)]
    node = make.make_node("Sum", [one.name for one in inputs], ["out"])
    graph = make.make_graph([node], "sum", inputs, [make.make_tensor_value_info("out", float32, shapes[0])])
    path = tmp_path / "model.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(InvalidInput, match=fix):
        load(str(path))


def test_file_without_a_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(InvalidInput, match=r"model\.onnx"):
        load(str(path))
    path.write_bytes(b"[run]\nseed = 0\n")
    with pytest.raises(InvalidInput, match=r"model\.onnx"):
        load(str(path))


@pytest.fixture
def residual_network(tmp_path: Path) -> Path:
    """A classifier of images `[3, 32, 32]` into 10 classes: convolutions with a residual connection, then a pool."""
    draw = np.random.default_rng(5)
    shapes = {"stem": (16, 3, 3, 3), "first": (16, 16, 3, 3), "second": (16, 16, 3, 3), "head": (16, 10)}
    weights = [
        onnx.numpy_helper.from_array(draw.normal(0, 0.2, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    make = onnx.helper
    nodes = [
        make.make_node("Conv", ["pixels", "stem"], ["a"], pads=[1] * 4),
        make.make_node("Relu", ["a"], ["b"]),
        make.make_node("Conv", ["b", "first"], ["c"], pads=[1] * 4),
        make.make_node("Relu", ["c"], ["d"]),
        make.make_node("Conv", ["d", "second"], ["e"], pads=[1] * 4),
        make.make_node("Add", ["b", "e"], ["f"]),
        make.make_node("Relu", ["f"], ["g"]),
        make.make_node("GlobalAveragePool", ["g"], ["h"]),
        make.make_node("Flatten", ["h"], ["i"]),
        make.make_node("MatMul", ["i", "head"], ["logits"]),
    ]
    pixels = make.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["batch", 3, 32, 32])
    logits = make.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 10])
    graph = make.make_graph(nodes, "residual", [pixels], [logits], weights)
    path = tmp_path / "residual.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_residual_network_scores_the_same_bits_in_any_batch(residual_network: Path) -> None:
    card = load(str(residual_network), threads=2).describe()
    assert card.image_shape == (3, 32, 32) and len(card.labels) == 10 and card.score_noise == 0.0
    many = Examples(images=np.zeros((10_000, 3, 32, 32), np.uint8))
    task = TaskSpec("{text}", card.labels)
    assert np.isclose(examples_per_handle(card, task, many), card.max_message_bytes / (5 * 3 * 32 * 32), rtol=0.01)

"""Runtimes other than torch: equal scores up to rounding, other revisions, and the refusal of unsupported models."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, Precision, Runtime, Scores, SoftPrompts, TaskSpec
from tests.jobs import score

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

OTHERS = [Runtime.ONNXRUNTIME, Runtime.OPENVINO]
TEXTS = Examples(("the film was very good", "who wrote this book", "a story", "where is paris", "so long and so dull"))
TASKS = {
    "bert-encoder": TaskSpec("{prompt} {text}", ("a number", "a person", "a place")),
    "roberta-mlm": TaskSpec("{prompt} {text} It was {mask}.", ("bad", "great", "fine")),
    "bert-classifier": TaskSpec("{prompt} {text}", ("great", "bad", "fine")),
}


def scores(
    folder: Path, task: TaskSpec, runtime: Runtime, precision: Precision = Precision.FLOAT32
) -> tuple[str, Scores]:
    """Returns the revision and the scores."""
    backend = load(str(folder), threads=2, runtime=runtime, precision=precision)
    width = backend.describe().embedding_width
    prompts = SoftPrompts(np.random.default_rng(1).normal(0, 0.3, (4, 3, width)).astype(np.float32))
    rows = backend.prepare(task, TEXTS, 3, None)
    return backend.describe().revision, score(backend, task, prompts, rows)


@pytest.mark.parametrize("name", TASKS)
def test_scores_are_those_of_torch_up_to_rounding(checkpoint: Callable[[str], Path], name: str) -> None:
    found = [scores(checkpoint(name), TASKS[name], runtime) for runtime in (Runtime.TORCH, *OTHERS)]
    revisions = [revision for revision, _ in found]
    assert sorted(set(revisions)) == sorted(revisions)
    exact = found[0][1]
    for _, ours in found[1:]:
        assert 0 < np.abs(ours - exact).max() < 1e-4 * np.abs(exact).max()


def test_bfloat16_changes_scores_slightly(checkpoint: Callable[[str], Path]) -> None:
    """Kills: a precision that is accepted and then ignored."""
    folder, task = checkpoint("bert-encoder"), TASKS["bert-encoder"]
    try:
        low = scores(folder, task, Runtime.OPENVINO, Precision.BFLOAT16)
    except InvalidInput as error:
        assert "does not support bfloat16 on this machine" in str(error)
        pytest.skip("no bfloat16 on this machine")
    full = scores(folder, task, Runtime.OPENVINO)
    assert low[0] != full[0]
    assert 1e-3 < np.abs(low[1] - full[1]).mean() / np.abs(full[1]).mean() < 0.1


@pytest.mark.parametrize("runtime", OTHERS)
def test_threads_call_the_layers_in_parallel(checkpoint: Callable[[str], Path], runtime: Runtime) -> None:
    """Kills: one inference request for all threads; a result that the next one overwrites."""
    from fedbbpt.ptm.models.accelerate.exported_layers import export_body
    from fedbbpt.ptm.models.checkpoint import load as load_checkpoint
    from fedbbpt.ptm.models.text.split_model import split_model

    folder = checkpoint("bert-encoder")
    loaded = load_checkpoint("", folder, transformers.AutoModel, "dual-encoder", Precision.FLOAT32, runtime)
    model = export_body(split_model(loaded.model), loaded, 2)
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randn(3, 5 + i % 4, 32, generator=draw) for i in range(40)]

    def read(each: Any) -> Any:
        with torch.inference_mode():
            return model.run_body(each)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(read, inputs))
    assert all(torch.equal(ours, read(each)) for ours, each in zip(found, inputs, strict=True))


@pytest.mark.parametrize("runtime", OTHERS)
def test_layers_that_differ_from_torch_are_refused(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, runtime: Runtime
) -> None:
    from fedbbpt.ptm.models.accelerate.exported_layers import TOLERANCE

    monkeypatch.setitem(TOLERANCE, Precision.FLOAT32, 0.0)
    with pytest.raises(InvalidInput, match="gives other hidden states than torch"):
        load(str(checkpoint("bert-encoder")), runtime=runtime)


@pytest.mark.parametrize("runtime", OTHERS)
def test_missing_runtime_names_the_extra_to_install(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, runtime: Runtime
) -> None:
    for package in (runtime.value, "onnx"):
        with monkeypatch.context() as patch, pytest.raises(InvalidInput) as refused:
            patch.setitem(sys.modules, package, None)
            load(str(checkpoint("bert-encoder")), runtime=runtime)
        assert f"{package} is not installed; pip install 'fedbbpt[{runtime}]'" in str(refused.value)


@pytest.mark.parametrize("runtime", OTHERS)
@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("gpt2", "this is a causal-lm"),
        ("clip", "this is a clip"),
        ("gpt2-classifier", "this model reads from left to right"),
        ("fake", "text encoders only"),
        ("model.onnx", "text encoders only"),
    ],
)
def test_models_other_than_text_encoders_are_refused(
    checkpoint: Callable[[str], Path], runtime: Runtime, model: str, why: str
) -> None:
    with pytest.raises(InvalidInput, match=f"{runtime} .*{why}.*; --engine torch"):
        load(model if model in ("fake", "model.onnx") else str(checkpoint(model)), runtime=runtime)


def test_onnxruntime_has_no_bfloat16(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidInput, match="onnxruntime does not support bfloat16"):
        load(str(checkpoint("bert-encoder")), runtime=Runtime.ONNXRUNTIME, precision=Precision.BFLOAT16)


def test_openvino_is_loaded_without_telemetry(checkpoint: Callable[[str], Path]) -> None:
    load(str(checkpoint("bert-encoder")), runtime=Runtime.OPENVINO)
    assert sys.modules["openvino_telemetry"] is None

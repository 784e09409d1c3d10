"""Fused layers and graphs change scores by rounding only, and are left out if they fail or gain nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fedbbpt.ptm.models.accelerate.cuda_graphs import Launch  # noqa: E402
from fedbbpt.ptm.models.accelerate.fused_layers import fuse  # noqa: E402
from fedbbpt.ptm.models.accelerate.gpu import accelerate_body  # noqa: E402
from fedbbpt.ptm.models.loading import load  # noqa: E402
from fedbbpt.ptm.models.text.split_model import SplitModel, split_model  # noqa: E402
from fedbbpt.types import Examples, Injection, Scores, SoftPrompts, TaskSpec  # noqa: E402
from tests.jobs import score  # noqa: E402
from tests.slow import slow_except  # noqa: E402

Checkpoint = Callable[[str], Path]
TEXTS = ("the film was very good", "dull", "who wrote this long book", "it was great fine and very very long")
MODELS = {
    "bert-encoder": "{prompt} {text}",
    "roberta-mlm": "{prompt} {text} It was {mask}.",
    "bert-classifier": "{prompt} {text}",
    "llama": "{text} {prompt} {mask}",
    "gpt2": "{prompt} {text} {mask}",
}
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's compiler imports it
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def encoder(folder: Path) -> SplitModel:
    return split_model(transformers.AutoModelForMaskedLM.from_pretrained(folder).eval())


def probe(model: SplitModel) -> Callable[[int, int], Any]:
    def inputs(count: int, tokens: int) -> Any:
        noise = torch.randn(
            count, min(tokens, 24), model.word_embeddings.embedding_dim, generator=torch.Generator().manual_seed(0)
        )
        return model.apply_embedding_block(noise)

    return inputs


def by_hand(launch: Launch) -> Launch:
    return launch


@pytest.mark.parametrize("compiler", slow_except(["none", "no list of layers"], "no list of layers"))
def test_machine_that_cannot_fuse_runs_the_plain_layers(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: str
) -> None:
    """Kills: a service that needs a C compiler to start; layers that stay compiled, and fail in the first job."""
    model = encoder(checkpoint("bert-mlm"))
    inputs = probe(model)
    if compiler == "none":
        monkeypatch.setattr("torch._inductor.config.cpp.cxx", (str(tmp_path / "cc"),))
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    else:
        model.body.config.num_hidden_layers = 77
    with torch.inference_mode():
        plain = model.run_body(inputs(3, 9))
        for _ in range(3):
            assert torch.equal(accelerate_body(model, inputs, by_hand).run_body(inputs(3, 9)), plain)


def test_undoing_the_fusion_restores_the_layers(checkpoint: Checkpoint) -> None:
    model = encoder(checkpoint("bert-mlm"))
    layers = list(model.body.encoder.layer)
    undo = fuse(model.body)
    assert not any(one is other for one, other in zip(model.body.encoder.layer, layers, strict=True))
    undo()
    assert all(one is other for one, other in zip(model.body.encoder.layer, layers, strict=True))


def test_body_that_cannot_be_recorded_runs_without_graphs(checkpoint: Checkpoint) -> None:
    model = encoder(checkpoint("bert-mlm"))
    model.body.config.num_hidden_layers = 77  # fused layers would be kept on a machine where they are faster

    def record(launch: Launch) -> Launch:
        raise RuntimeError("operation not permitted when stream is capturing")

    with torch.inference_mode():
        plain = model.run_body(probe(model)(3, 9))
        found = accelerate_body(model, probe(model), record)
        for _ in range(3):
            assert torch.equal(found.run_body(probe(model)(3, 9)), plain)


def ask(folder: Path, template: str, device: str) -> list[Scores]:
    """Scores each job three times, so that each shape is also recorded and replayed."""
    backend, task = load(str(folder), threads=1, device=device), TaskSpec(template, ("bad", "great"))
    rows = backend.prepare(task, Examples(TEXTS), 5, None)
    width = backend.describe().embedding_width
    found = []
    for injection in sorted(backend.describe().injections):
        vectors = np.random.default_rng(0).normal(0, 0.3, (3, 5, width)).astype(np.float32)
        found += [score(backend, task, SoftPrompts(vectors, injection), rows) for _ in range(3)]
    return found


@on_a_gpu
@pytest.mark.parametrize("name", MODELS)
def test_gpu_scores_as_a_cpu_with_all_injections(checkpoint: Checkpoint, name: str) -> None:
    """Kills: an embedding block that is lost on the GPU, and `add` and `concat` with it."""
    ours, theirs = (ask(checkpoint(name), MODELS[name], device) for device in ("cuda", "cpu"))
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@on_a_gpu
def test_gpu_supports_the_injections_of_a_cpu(checkpoint: Checkpoint) -> None:
    backend = load(str(checkpoint("roberta-mlm")), device="cuda")
    assert backend.describe().injections == set(Injection) - {Injection.CLASS}

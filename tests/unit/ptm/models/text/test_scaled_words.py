"""Models that multiply the word vectors that they store: prompts have the scale of the vectors that enter the model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.prompts.projection import project
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, Injection, LatentPrompts, Projection, ProjectionKind, SoftPrompts, TaskSpec
from tests.jobs import score

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fedbbpt.ptm.models.accelerate.latent_projection import deviation_of_words  # noqa: E402

SCALED = ("gemma", "gemma2", "gemma3", "biogpt", "xglm")
TASK = TaskSpec("{prompt} {text} It was {mask}", ("bad", "great"))
EXAMPLES = Examples(("the film was very good", "dull"))


@pytest.fixture(autouse=True)
def _load_the_tokenizer_as_it_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizers of these models are of other classes, which need other files."""
    monkeypatch.setattr(
        transformers.AutoTokenizer, "from_pretrained", transformers.PreTrainedTokenizerFast.from_pretrained
    )


@pytest.mark.parametrize("name", ["llama", *SCALED])
def test_scale_one_gives_a_prompt_the_deviation_of_the_words(checkpoint: Callable[[str], Path], name: str) -> None:
    folder = checkpoint(name)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).requires_grad_(False)
    embeddings = model.get_input_embeddings()
    words = embeddings(torch.arange(embeddings.num_embeddings))
    stored = float(embeddings.weight.std())
    assert deviation_of_words(embeddings) == pytest.approx(float(words.std()), rel=1e-5)
    assert (float(words.std()) > 5 * stored) == (name in SCALED), "the model scales its words"

    z = np.random.default_rng(0).standard_normal((20, 100)).astype(np.float32)
    prompts = LatentPrompts(z, Projection(ProjectionKind.NORMAL, 1, 8, 1.0, "", Injection.PREFIX))
    backend = load(str(folder), threads=1)
    latent = score(backend, TASK, prompts, backend.prepare(TASK, EXAMPLES, 8, None))
    vectors = project(prompts.projection, z, np.zeros((8, words.shape[1]), np.float32), float(words.std()))
    assert vectors.std() / float(words.std()) == pytest.approx(1, rel=0.05)
    soft = score(backend, TASK, SoftPrompts(vectors), backend.prepare(TASK, EXAMPLES, 8, None))
    np.testing.assert_allclose(latent, soft, atol=1e-3 * max(1.0, float(np.abs(soft).max())))

"""Injections, compared with the plain transformers model on hidden states that are assembled by hand."""

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import UnsupportedPrompt
from fedbbpt.prompts.projection import project
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import (
    Examples,
    Injection,
    LatentPrompts,
    Projection,
    ProjectionKind,
    Prompts,
    Scores,
    SoftPrompts,
    TaskSpec,
    TokenPrompts,
)
from tests.jobs import score
from tests.tenants import local_ptm

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

Checkpoint = Callable[[str], Path]
MODELS = ["bert-mlm", "roberta-mlm"]
WORDS = ("bad", "great", "fine")
TEXTS = ("the film was very good", "dull", "who wrote this long book")
Z = np.random.default_rng(0).normal(size=(2, 10)).astype(np.float32)
TOKENS = 5
INITIAL = "which kind of"  # three tokens, hence repeated


def ask(folder: Path, prompts: Prompts, template: str = "{prompt} {text} It was {mask}.") -> Scores:
    backend, task = load(str(folder), threads=1), TaskSpec(template, WORDS)
    rows = backend.prepare(task, Examples(TEXTS), TOKENS, None)
    return score(backend, task, prompts, rows)


INTO_TEXTS = sorted(set(Injection) - {Injection.CLASS})


def latent(injection: Injection, initial_text: str = INITIAL) -> LatentPrompts:
    return LatentPrompts(Z, Projection(ProjectionKind.NORMAL, 3, TOKENS, 2.0, initial_text, injection))


class Plain:
    """An unsplit model, with a hook that changes the hidden states after the embedding LayerNorm."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
        self.words = self.model.get_input_embeddings()
        initial = self.tokenizer(INITIAL, add_special_tokens=False)["input_ids"]
        self.carrier_words = [int(token) for token in np.resize(initial, TOKENS)]

    def az(self) -> Any:
        """Returns scale x std x (A z) / sqrt(n), `[P, L, D]`."""
        zeros = np.zeros((TOKENS, self.words.embedding_dim), np.float32)
        std = float(self.words.weight.detach().std())
        return torch.from_numpy(project(latent(Injection.PREFIX).projection, Z, zeros, std))

    def inputs(self) -> Iterator[list[int]]:
        for text in TEXTS:
            yield self.tokenizer(f" {text} It was {self.tokenizer.mask_token}.")["input_ids"]

    def scores(self, ids: list[int], change: Callable[[Any], Any]) -> list[Any]:
        """Returns the label words' logits at the mask, after `change` is applied to the embeddings' output `[T, D]`."""
        hook = self.model.base_model.embeddings.register_forward_hook(lambda _m, _i, out: change(out[0])[None])
        with torch.no_grad():
            logits = self.model(input_ids=torch.tensor([ids])).logits[0]
        hook.remove()
        at = len(logits) - len(ids) + ids.index(self.tokenizer.mask_token_id)
        columns = [self.tokenizer(" " + word, add_special_tokens=False)["input_ids"][0] for word in WORDS]
        return [logits[at, column].item() for column in columns]


def assert_close(ours: Scores, theirs: list[list[Any]]) -> None:
    assert np.abs(ours - np.reshape(theirs, ours.shape)).max() < 1e-5 * max(1.0, np.abs(ours).max())


@pytest.mark.parametrize("name", MODELS)
def test_add_puts_words_in_the_text_and_adds_a_z_after_their_layernorm(checkpoint: Checkpoint, name: str) -> None:
    plain = Plain(checkpoint(name))
    theirs = []
    for az in plain.az():
        for ids in plain.inputs():

            def change(hidden: Any, az: Any = az) -> Any:
                return torch.cat([hidden[:1], hidden[1 : 1 + TOKENS] + az, hidden[1 + TOKENS :]])

            theirs.append(plain.scores([ids[0], *plain.carrier_words, *ids[1:]], change))
    assert_close(ask(checkpoint(name), latent(Injection.ADD)), theirs)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("place", [1, 0], ids=["after the first special token", "before it"])
def test_concat_leaves_the_input_its_positions(checkpoint: Checkpoint, name: str, place: int) -> None:
    """The published code puts the vectors before the first special token, which is the same without positions."""
    plain = Plain(checkpoint(name))
    initial = plain.words(torch.tensor(plain.carrier_words)).detach()
    theirs = []
    for az in plain.az():
        for ids in plain.inputs():

            def change(hidden: Any, vectors: Any = initial + az) -> Any:
                return torch.cat([hidden[:place], vectors, hidden[place:]])

            theirs.append(plain.scores(ids, change))
    assert_close(ask(checkpoint(name), latent(Injection.CONCAT)), theirs)


def test_vectors_join_after_a_special_token_of_the_template(checkpoint: Checkpoint) -> None:
    """Tokenizers such as Llama's may leave <s> to the user."""
    backend = load(str(checkpoint("llama")), threads=1)
    for template, front in (("<s>{text}", 1), ("so <s>{text}", 0), ("{text}", 0)):
        (row,) = backend.prepare(TaskSpec(template, ("bad", "great")), Examples(("<s> dull",)), TOKENS, None)
        assert row.front_index == front


@pytest.mark.parametrize("injection", INTO_TEXTS)
def test_latent_prompts_without_words_are_soft_prompts(checkpoint: Checkpoint, injection: Injection) -> None:
    folder = checkpoint("bert-mlm")
    az = Plain(folder).az().numpy()
    assert np.array_equal(ask(folder, latent(injection, "")), ask(folder, SoftPrompts(az, injection)))


def test_each_injection_gives_other_scores(checkpoint: Checkpoint) -> None:
    template = "{text} {prompt} It was {mask}."
    found = [ask(checkpoint("bert-mlm"), latent(injection), template) for injection in INTO_TEXTS]
    assert not any(np.allclose(one, other) for one, other in combinations(found, 2))


@pytest.mark.parametrize("name", [*MODELS, "gpt2", "llama"])
def test_vectors_with_the_place_injection_join_where_tokens_do(checkpoint: Checkpoint, name: str) -> None:
    """Kills: vectors in front; a mask that vectors before it do not move; a mask that vectors after it move."""
    folder, ids = checkpoint(name), np.array([[9, 30, 31], [12, 13, 9]], np.int32)
    table = transformers.AutoModel.from_pretrained(folder).get_input_embeddings().weight.detach().numpy()
    for template in ("{text} {prompt} It was {mask}", "{prompt} {text} {mask}"):
        places = SoftPrompts(table[ids], Injection.PLACE)
        assert np.array_equal(ask(folder, places, template), ask(folder, TokenPrompts(ids), template))


@pytest.mark.parametrize(
    ("name", "injections"),
    [
        ("bert-encoder", set(Injection)),
        ("roberta-mlm", set(INTO_TEXTS)),
        ("bert-classifier", set(INTO_TEXTS)),
        ("gpt2", {Injection.PREFIX, Injection.PLACE}),
        ("llama", {Injection.PREFIX, Injection.PLACE}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_card_lists_the_injections_that_the_model_supports(
    checkpoint: Checkpoint, name: str, injections: set[Injection]
) -> None:
    backend = load(str(checkpoint(name)), threads=1)
    assert backend.describe().injections == injections
    engine = local_ptm(backend)
    classes = ("great", "fine")
    handle = engine.register_examples(
        engine.register_task(TaskSpec("{text}" if "bert-" in name and "mlm" not in name else "{text} {mask}", classes)),
        Examples(TEXTS),
        TOKENS,
    )
    for injection in Injection:
        if injection in injections:
            assert np.isfinite(engine.score(handle.id, latent(injection)).scores).all()
        else:
            with pytest.raises(UnsupportedPrompt, match="injection"):
                engine.score(handle.id, latent(injection))

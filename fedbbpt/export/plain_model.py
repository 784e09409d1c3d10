"""A model twice: as the PTM service scores with it, and as plain transformers computes it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import DynamicCache

from fedbbpt.api.ptm import open_ptm
from fedbbpt.client.asking import PromptScorer
from fedbbpt.errors import RevisionChanged, UnsupportedPrompt
from fedbbpt.export.plain_inputs import PlainInput, find_input, probes
from fedbbpt.export.tuned import Tuned
from fedbbpt.ptm.models.checkpoint import load
from fedbbpt.ptm.models.families import FAMILIES, family_of
from fedbbpt.ptm.models.sources import locate
from fedbbpt.ptm.models.text.agreement import difference
from fedbbpt.ptm.models.text.language_model import LanguageModel
from fedbbpt.types import (
    DeepPrompts,
    Examples,
    Injection,
    LabelledExamples,
    Precision,
    Prompts,
    Scores,
    TextPrompts,
)

LANGUAGE_MODELS = ("causal-lm", "masked-lm")


@dataclass(frozen=True, slots=True)
class PlainModel:
    """A model as plain transformers has it, and what its inputs and columns are for one tuned prompt."""

    tuned: Tuned
    model: Any
    tokenizer: Any
    causal: bool
    inputs: tuple[PlainInput, ...]
    """One for each view, and one for the prompt, if it is used."""
    label_tokens: tuple[int, ...]
    """The token of each of the V columns."""
    prompt: npt.NDArray[np.float32]
    """The vectors of the prompt, `[L, D]`, or its keys and values, `[layers, 2, heads, L, width]`; else `[0, D]`."""
    max_tokens: int
    expected: Scores
    """The class scores `[B, K]` of the probes, as fedbbpt computes them in float32."""

    @property
    def deep(self) -> bool:
        """Whether the prompt is one of keys and values."""
        return self.prompt.ndim > 2

    def ids(self, each: PlainInput, text: str, text_pair: str = "") -> list[int]:
        """Returns the token ids of an example, without the prompt."""
        return each.ids(self.tokenise, text, text_pair)

    def tokenise(self, text: str) -> list[int]:
        """Returns the token ids of a text, with the special tokens of the model."""
        return list(self.tokenizer(text, verbose=False)["input_ids"])

    def word_vectors(self, ids: Sequence[int]) -> Tensor:
        """Returns the word vectors `[1, T, D]` of token ids."""
        found: Tensor = self.model.get_input_embeddings()(torch.tensor([list(ids)], dtype=torch.long))
        return found

    def position(self, ids: Sequence[int]) -> int:
        """Returns the index of the token that is scored, in an input without its prompt."""
        return len(ids) - 1 if self.causal else int(np.flatnonzero(np.equal(ids, self.tokenizer.mask_token_id)).max())

    def scores(self, each: PlainInput, ids: Sequence[int], prompt: Tensor) -> Tensor:
        """Returns the scores `[V]` of the columns for one input under the prompt, or without it."""
        at, position = each.at, self.position(ids)
        if not each.prompted:
            output = self.model(input_ids=torch.tensor([list(ids)]))
        elif self.deep:
            past = DynamicCache()
            for layer, (keys, values) in enumerate(prompt):
                past.update(keys[None], values[None], layer)
            output = self.model(input_ids=torch.tensor([list(ids)]), cache=past, use_cache=True)
        else:
            parts = [self.word_vectors(ids[:at]), prompt[None], self.word_vectors(ids[at:])]
            output = self.model(inputs_embeds=torch.cat(parts, dim=1))
            position += len(prompt) * (position >= at)
        found: Tensor = output.logits[0, position, list(self.label_tokens)]
        return found

    def check(self, columns: Sequence[Tensor], what: str) -> None:
        """Raises UnsupportedPrompt if the scores `[C]` of the probes' columns give other class scores than fedbbpt."""
        scores = torch.stack([*columns]) @ torch.from_numpy(self.tuned.weights).T + torch.from_numpy(self.tuned.bias)
        if (gap := difference(scores, torch.from_numpy(self.expected))) is not None:
            found = f"{what} computes other scores than fedbbpt, {gap}"
            raise UnsupportedPrompt(found, where=self.tuned.card.ptm, fix="`fedbbpt predict`")


def read_back(plain: PlainModel, prompt: Tensor) -> list[Tensor]:
    """Returns the scores `[C]` of each probe, computed by plain transformers under a prompt read from a file."""
    found = []
    with torch.inference_mode():
        for text, pair in probes(plain.tuned.card.task()).text_pairs:
            parts = [plain.scores(each, plain.ids(each, text, pair), prompt) for each in plain.inputs]
            found.append(torch.cat(parts))
    return found


def open_plain(tuned: Tuned, model: str, *, any_revision: bool) -> PlainModel:
    """Loads the model of a tuned prompt, on the CPU in float32.

    Args:
        tuned: The tuned prompt.
        model: The model's name.
        any_revision: Whether another revision than the card's will do.

    Raises:
        UnsupportedPrompt: The prompt, the family or the template cannot be expressed for plain transformers.
        RevisionChanged: The model has another revision than the card's.
        InvalidInput: The model cannot be loaded.
    """
    card = tuned.card
    folder = locate(model)
    options = card.model_options()
    family = options["family"] or family_of(folder)
    if family not in LANGUAGE_MODELS:
        what = f"a model of the family {family} has no label words, whose scores plain transformers could give"
        raise UnsupportedPrompt(what, where=model, fix="`fedbbpt predict`, or a causal or masked language model")
    stated = Precision(options["precision"]) if options["precision"] in set(Precision) else Precision.FLOAT32
    backend_class, auto_class = FAMILIES[family]
    checkpoint, untouched = (
        load(model, folder, auto_class, family, stated, max_length=options["max_length"]) for _ in range(2)
    )
    if card.ptm_revision and card.ptm_revision != checkpoint.revision and not any_revision:
        what = f"the model has revision {checkpoint.revision} here, and the prompt was tuned for {card.ptm_revision}"
        fix = "the same files; --any-revision if the prompt was tuned on a GPU or another runtime with them"
        raise RevisionChanged(what, where=model, fix=fix)
    backend = backend_class(replace(checkpoint, precision=Precision.FLOAT32))
    assert isinstance(backend, LanguageModel), "both families are language models"
    task, causal = card.task(), family == "causal-lm"
    prompts = tuned.space.prompts(tuned.z[None], Examples())
    words = _label_tokens(backend.columns(task), task.classes)
    rows = backend.prepare(task, probes(task), 0, None)
    mask = "" if causal else untouched.tokenizer.mask_token

    def tokenise(text: str) -> list[int]:
        return list(untouched.tokenizer(text, verbose=False)["input_ids"])

    prompt = np.zeros((0, backend.describe().embedding_width), np.float32)
    inputs = [find_input(tokenise, task, rows, mask, view, in_front=False) for view in tuned.views]
    if tuned.prompted:
        view = None
        if isinstance(prompts, TextPrompts):
            view = prompts.texts[0]
        elif isinstance(prompts, DeepPrompts):
            prompt = prompts.prefixes[0]
        else:
            prompt = _vectors(backend, prompts, model)
        in_front = prompts.injection is not Injection.PLACE
        inputs.append(find_input(tokenise, task, rows, mask, view, in_front=in_front and view is None))
    scored = LabelledExamples(probes(task), np.zeros(len(probes(task)), np.int64))
    with open_ptm(backend) as ptm:
        scorer = PromptScorer(ptm, task, card.space)
        expected = scorer.scores(scored, tuned.whole[None], use_labels=False)[0]
    limit = checkpoint.max_tokens
    return PlainModel(
        tuned, untouched.model, untouched.tokenizer, causal, tuple(inputs), words, prompt, limit, expected
    )


def _vectors(backend: LanguageModel, prompts: Prompts, model: str) -> npt.NDArray[np.float32]:
    if prompts.injection not in (Injection.PREFIX, Injection.PLACE):
        what = f"the injection {prompts.injection} joins the prompt after the embedding block, where nothing else can"
        raise UnsupportedPrompt(what, where=model, fix='`fedbbpt predict`, or a run with injection = "prefix"')
    vectors: npt.NDArray[np.float32] = backend.prompt_vectors(prompts)[0]
    return vectors


def _label_tokens(columns: Sequence[Sequence[str]], texts: Sequence[str]) -> tuple[int, ...]:
    for tokens, text in zip(columns, texts, strict=True):
        if len(tokens) > 1:
            what = f"the label word {text!r} has {len(tokens)} tokens, whose scores take further passes of the model"
            raise UnsupportedPrompt(what, where="task.classes", fix="`fedbbpt predict`, or words of one token")
    return tuple(int(token) for (token,) in columns)

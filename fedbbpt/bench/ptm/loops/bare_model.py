"""A model and B texts of a task, with nothing around them. Needs torch.

For dual encoders, and for masked and causal language models whose label words are one token each.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.prompts.projection import project
from fedbbpt.ptm.models.accelerate.packed_linear import pack
from fedbbpt.ptm.models.checkpoint import load, locate
from fedbbpt.ptm.models.families import FAMILIES
from fedbbpt.ptm.models.text.dual_encoder import LOGIT_SCALE
from fedbbpt.ptm.models.text.encoding import ExampleEncoder, TokenisedExample
from fedbbpt.ptm.models.text.split_model import split_model
from fedbbpt.types import Injection, LatentPrompts, Precision, TaskSpec

Pairs: TypeAlias = Sequence[tuple[int, int]]
"""(prompt, text)"""


class BareModel:
    """Reads label columns only, and of each input one position only. `packed` layers are the service's own."""

    def __init__(
        self, model: str, family: str, task: TaskSpec, workload: Workload, precision: Precision, *, packed: bool = True
    ) -> None:
        checkpoint = load(model, locate(model), FAMILIES[family][1], family, precision)
        encoder = ExampleEncoder(checkpoint.tokenizer, checkpoint.max_tokens, causal=family == "causal-lm")
        self._rows: Sequence[TokenisedExample] = encoder.encode(task, workload.texts(), workload.prompt_tokens, None)
        self._prompt_tokens, self._in_front = workload.prompt_tokens, workload.injection is Injection.PREFIX
        self.lengths = [len(row.ids) + workload.prompt_tokens for row in self._rows]
        """Of each text, in tokens, with a prompt."""
        if family != "dual-encoder":
            _keep_columns(checkpoint.model, [word[0] for word in encoder.label_words(task)])
        self._model = split_model(checkpoint.model)
        if precision is Precision.BFLOAT16:
            self._model = self._model.with_dtype(torch.bfloat16)
        elif packed:
            pack(self._model.body)
        self._std = float(self._model.word_embeddings.weight.std())
        self._classes: Tensor | None = None
        with torch.inference_mode():
            self._words: list[Tensor] = [self._model.word_embeddings(torch.tensor(row.ids)) for row in self._rows]
            if family == "dual-encoder":
                described = [torch.tensor([encoder.encode_text(text)]) for text in task.classes]
                means = [self.read(self._model.word_embeddings(ids)).mean(1) for ids in described]
                self._classes = _unit(torch.cat(means))

    def vectors(self, prompts: LatentPrompts) -> list[Tensor]:
        """Of each prompt, `[L, D]`."""
        initial = np.zeros((self._prompt_tokens, self._model.word_embeddings.embedding_dim), np.float32)
        return list(torch.from_numpy(project(prompts.projection, prompts.z, initial, self._std)))

    def joined(self, vectors: Sequence[Tensor], pairs: Pairs) -> list[Tensor]:
        """Of each pair, `[L + T, D]`."""
        found = []
        for p, b in pairs:
            joint = self._joint(self._rows[b])
            found.append(torch.cat([self._words[b][:joint], vectors[p], self._words[b][joint:]]))
        return found

    def _joint(self, row: TokenisedExample) -> int:
        return row.front_index if self._in_front else row.prompt_index

    def read(self, inputs: Tensor, **mask: Tensor) -> Tensor:
        """The last hidden states `[N, T, D]` of `inputs` `[N, T, D]`."""
        return self._model.run_body(self._model.apply_embedding_block(inputs), **mask)

    def scores(self, hidden: Tensor, pairs: Pairs, mask: Tensor | None = None) -> Tensor:
        """`[N, K]`; `mask` `[N, T]` is 0 where an input has ended."""
        if self._classes is not None:
            means = hidden.mean(1) if mask is None else (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None]
            return LOGIT_SCALE * (_unit(means)[:, None] * self._classes).sum(-1)
        places = [self._place(self._rows[b]) for _, b in pairs]
        read = hidden[torch.arange(len(places)), places]
        logits: Tensor = self._model.head(inputs_embeds=read[:, None]).logits[:, 0]
        return logits

    def _place(self, row: TokenisedExample) -> int:
        """Of the mask, or of the last token."""
        if row.mask_index is None:
            return len(row.ids) - 1 + self._prompt_tokens
        return row.mask_index + self._prompt_tokens * (row.mask_index >= self._joint(row))


def _keep_columns(model: nn.Module, ids: list[int]) -> None:
    """Of the decoder, those of the label words."""
    whole = model.get_output_embeddings()  # type: ignore[operator]  # transformers' models have it, torch's do not
    kept = nn.Linear(whole.in_features, len(ids), bias=whole.bias is not None)
    kept.weight = nn.Parameter(whole.weight[ids], requires_grad=False)
    if whole.bias is not None:
        kept.bias = nn.Parameter(whole.bias[ids], requires_grad=False)
    model.set_output_embeddings(kept)  # type: ignore[operator]  # as above


def _unit(vectors: Tensor) -> Tensor:
    unit: Tensor = vectors / vectors.norm(dim=-1, keepdim=True)
    return unit

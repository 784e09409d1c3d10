"""Base of masked and causal language models: label words, and a copy of the head that computes only their logits."""

from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.text.transformer import Transformer, copies_to_fill
from fedbbpt.types import TaskSpec

LabelTokens: TypeAlias = tuple[tuple[int, ...], ...]
"""The token ids of each class's label word."""


@dataclass(frozen=True, slots=True)
class LabelHead:
    """A task's label words, and the head that scores them.

    The head gives the logits of the label words if each is one token, otherwise those of the whole vocabulary.
    """

    words: LabelTokens
    head: Any

    @property
    def extra_tokens(self) -> int:
        """Tokens of the longest word that the model reads: all except the last, which it only predicts."""
        return max(map(len, self.words)) - 1


class LanguageModel(Transformer[LabelHead]):
    """A class scores by the logit of its label word, if each word is one token.

    The head runs on one hidden state per pair, and its decoder has the rows of the label words only.
    """

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 0) -> None:
        decoder = checkpoint.model.get_output_embeddings()
        if not isinstance(decoder, nn.Linear):
            what = f"{type(checkpoint.model).__name__} has no linear decoder"
            raise InvalidInput(what, where=checkpoint.name, fix="another model")
        self._decoder = decoder
        self._label_head = lru_cache(maxsize=64)(self._fit_head)
        super().__init__(checkpoint, threads=threads, token_budget=token_budget)
        self.hidden_size = decoder.in_features

    def columns(self, task: TaskSpec) -> frozenset[str]:
        return frozenset(str(token) for word in self._encoder.label_words(task) for token in word)

    def _columns(self, task: TaskSpec) -> LabelHead:
        return self._label_head(self._encoder.label_words(task))

    def _probe_columns(self) -> LabelHead:
        return self._label_head(((0,), (1,)))

    def _fit_head(self, words: LabelTokens) -> LabelHead:
        """Makes a head for these words.

        Each task has a head of its own, so that tasks can run in parallel; all heads share their weights.
        """
        head = self._model.head
        if any(len(word) > 1 for word in words):
            return LabelHead(words, head)
        weight, bias = self._decoder.weight, self._decoder.bias
        ids = [word[0] for word in words]
        decoder = nn.Linear(weight.shape[1], len(ids), bias=bias is not None)
        decoder.weight = nn.Parameter(weight[ids], requires_grad=False)
        if bias is not None:
            decoder.bias = nn.Parameter(bias[ids], requires_grad=False)
        shared = (head.config, *head.parameters(), *head.buffers())
        fitted = deepcopy(head, {id(each): each for each in shared})
        fitted.set_output_embeddings(decoder)
        return LabelHead(words, fitted)

    def _score_hidden(self, hidden: Tensor, positions: Tensor, columns: LabelHead) -> Tensor:
        return self._logits(hidden[torch.arange(len(hidden), device=hidden.device), positions], columns)

    def _logits(self, states: Tensor, columns: LabelHead) -> Tensor:
        """Returns the logits `[N, K]`, or `[N, vocabulary]`, of hidden states `[N, D]`."""
        copies = copies_to_fill(len(states))
        logits: Tensor = columns.head(inputs_embeds=states.repeat(copies, 1)[None]).logits
        return logits[0, : len(states)]

"""Base of masked and causal language models: label words, and a copy of the head that computes only their logits."""

from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.text.agreement import difference
from fedbbpt.ptm.models.text.tokenisation_check import check_tokenisation
from fedbbpt.ptm.models.text.transformer import LabelTokens, Transformer, copies_to_fill
from fedbbpt.types import TaskSpec


@dataclass(frozen=True, slots=True)
class LabelHead:
    """A task's label words, and the head that scores them."""

    words: LabelTokens
    head: Any
    fitted: bool
    """True if the head gives the logits of the label words only, False if it gives those of the whole vocabulary."""

    @property
    def extra_tokens(self) -> int:
        """Tokens of the longest word that the model reads: all except the last, which it only predicts."""
        return max(map(len, self.words)) - 1


class LanguageModel(Transformer[LabelHead]):
    """A class scores by the logit of its label word, if each word is one token.

    The head runs on one hidden state per pair, and its decoder has the rows of the label words only.
    """

    _typical_template = "{text} It was"
    """A template without a prompt, to test the tokenizer with."""

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 0) -> None:
        self._decoder = checkpoint.model.get_output_embeddings()
        self._fits_heads = False
        self._label_head = lru_cache(maxsize=64)(self._fit_head)
        super().__init__(checkpoint, threads=threads, token_budget=token_budget)
        tokenizer, template = checkpoint.tokenizer, self._typical_template
        check_tokenisation(checkpoint.name, tokenizer, self._encoder, template, causal=self.causal)
        if isinstance(self._decoder, nn.Linear):
            self.hidden_size = self._decoder.in_features

    def columns(self, task: TaskSpec) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(map(str, word)) for word in self._encoder.label_words(task))

    def _columns(self, task: TaskSpec) -> LabelHead:
        return self._label_head(self._encoder.label_words(task))

    def _probe_columns(self) -> LabelHead:
        return self._label_head(((0,), (1,)))

    def _self_test_columns(self, words: LabelTokens) -> LabelHead | None:
        return self._label_head(words)

    def _score_output(self, output: Tensor, columns: LabelHead) -> Tensor:
        return output[0, [word[0] for word in columns.words]]

    def _explore(self, vectors: Tensor) -> None:
        """Finds out whether the decoder can be replaced by one of fewer rows: some heads use it in other ways."""
        if not isinstance(self._decoder, nn.Linear):
            return
        hidden = self._model.run_body(self._model.apply_embedding_block(vectors))
        last = torch.tensor([hidden.shape[1] - 1], device=hidden.device)
        words = tuple((token,) for token in range(0, self._decoder.out_features, 7))
        whole = self._score_hidden(hidden, last, LabelHead(words, self._model.head, fitted=False))
        self._fits_heads = True
        try:
            self._fits_heads = difference(self._score_hidden(hidden, last, self._fit_head(words)), whole) is None
        except (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError):
            self._fits_heads = False

    def _fit_head(self, words: LabelTokens) -> LabelHead:
        """Makes a head for these words.

        Each task has a head of its own, so that tasks can run in parallel; all heads share their weights.
        """
        head = self._model.head
        if not self._fits_heads or any(len(word) > 1 for word in words):
            return LabelHead(words, head, fitted=False)
        weight, bias = self._decoder.weight, self._decoder.bias
        ids = [word[0] for word in words]
        decoder = nn.Linear(weight.shape[1], len(ids), bias=bias is not None)
        decoder.weight = nn.Parameter(weight[ids], requires_grad=False)
        if bias is not None:
            decoder.bias = nn.Parameter(bias[ids], requires_grad=False)
        shared = (head.config, *head.parameters(), *head.buffers())
        fitted = deepcopy(head, {id(each): each for each in shared})
        fitted.set_output_embeddings(decoder)
        return LabelHead(words, fitted, fitted=True)

    def _score_hidden(self, hidden: Tensor, positions: Tensor, columns: LabelHead) -> Tensor:
        return self._logits(hidden[torch.arange(len(hidden), device=hidden.device), positions], columns)

    def _logits(self, states: Tensor, columns: LabelHead) -> Tensor:
        """Returns the logits `[N, K]` of hidden states `[N, D]`; `[N, vocabulary]` if a word has several tokens."""
        copies = copies_to_fill(len(states))
        logits: Tensor = columns.head(inputs_embeds=states.repeat(copies, 1)[None]).logits[0, : len(states)]
        if columns.fitted or columns.extra_tokens:
            return logits
        return logits[:, [word[0] for word in columns.words]]

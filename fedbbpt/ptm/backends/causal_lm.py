"""Causal language models (GPT-2, Llama and their like): how likely each label word is behind the input."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from fedbbpt.errors import InvalidTask
from fedbbpt.ptm.backends.checkpoint import Checkpoint
from fedbbpt.ptm.backends.encoding import Row
from fedbbpt.ptm.backends.injection import Vectors
from fedbbpt.ptm.backends.language_model import LanguageModel, Words
from fedbbpt.ptm.backends.transformer import FEWEST_TOKENS
from fedbbpt.ptm.planner import MicroBatch
from fedbbpt.ptm.template import Place, parse
from fedbbpt.types import Examples, Perturbation, PromptKind, Prompts, Scores, TaskSpec


class CausalLM(LanguageModel):
    """For example "{prompt} {text} Sentiment: {mask}" with the classes "negative" and "positive".

    {mask} is the end, and may be left out; the white space before it belongs to the label words (" positive").

    Where all label words are single tokens, the scores are their logits. Where one has several, all words score by
    teacher forcing, score_k = sum_j log p(w_kj | prompt, input, w_k1 .. w_k(j-1)): the logarithm of the word's
    probability, hence a sum and no mean. Logits are the same but for one number a pair, which no softmax over classes
    sees, and need no pass over the vocabulary.
    """

    family = "causal-lm"
    causal = True

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 1024) -> None:
        super().__init__(checkpoint, threads=threads, token_budget=token_budget)
        shape = self._prefix_shape() if self._continues else None
        if shape is not None:
            kinds = self._card.prompt_kinds | {PromptKind.DEEP}
            self._card = replace(self._card, prompt_kinds=kinds, prefix_shape=shape)

    def check(self, task: TaskSpec) -> None:
        if any(piece.place is Place.MASK for piece in parse(task)[:-1]):
            raise InvalidTask("{mask} before the end", where="template", fix='"{prompt} {text} Sentiment: {mask}"')
        behind = self._behind(self._encoder.label_words(task))
        if behind > self._card.max_tokens - 2:
            fix = f"at most {self._card.max_tokens - 1}"
            raise InvalidTask(f"a label word of {behind + 1} tokens", where="classes", fix=fix)
        if behind and not self._continues:
            what = "label words of several tokens, and the model does not go on from what it has read"
            raise InvalidTask(what, where="classes", fix="words of one token each")

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[Row]:
        behind = self._behind(self._encoder.label_words(task))
        return super().prepare(task, examples, prompt_tokens + behind, perturbation)

    def score(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[Row], check: Callable[[], None]
    ) -> tuple[Scores, int]:
        scores, tokens = super().score(task, prompts, rows, check)
        continued = sum(len(word) - 1 for word in self._encoder.label_words(task))
        return scores, tokens + continued * scores.shape[0] * scores.shape[1]

    def _behind(self, columns: Words) -> int:
        """A word's last token is never read, only predicted."""
        return max(len(word) for word in columns) - 1

    def _noise_columns(self) -> Words:
        if not self._continues:
            return super()._noise_columns()
        words = (0,), (1, 0, 1)
        self._fit_decoder(words)
        return words

    @cached_property
    def _continues(self) -> bool:
        """Whether the model, going on from the keys and values of a beginning, ends where it does in one go."""
        words = self._entrance.words(range(FEWEST_TOKENS))[None]
        first, second = (self._parts.lift(half) for half in words.chunk(2, dim=1))
        try:
            with torch.inference_mode():
                whole = self._parts.read(self._parts.lift(words))
                _, past = self._read_on(first, DynamicCache())
                hidden, _ = self._read_on(second, past)
                return torch.allclose(hidden, whole[:, first.shape[1] :], rtol=1e-3, atol=1e-3)
        except (AttributeError, IndexError, TypeError, ValueError, RuntimeError):
            return False

    def _prefix_shape(self) -> tuple[int, int, int] | None:
        """(layers, heads, width) of keys and values; None where layers differ."""
        with torch.inference_mode():
            _, past = self._read_on(self._parts.lift(self._entrance.words(range(FEWEST_TOKENS))[None]), DynamicCache())
        layers: list[Any] = past.layers
        shapes = {(each.shape[1], each.shape[3]) for layer in layers for each in (layer.keys, layer.values)}
        (heads, width), *others = shapes
        return None if others else (len(layers), heads, width)

    def _read_on(self, inputs: Tensor, past: DynamicCache) -> tuple[Tensor, DynamicCache]:
        """The last hidden states `[N, T, D]` of what follows on `past`, and the past with it."""
        past = deepcopy(past)
        hidden = self._parts.read(inputs, past_key_values=past, use_cache=True)
        return hidden, past

    def _run(self, inputs: Tensor, positions: Sequence[int], columns: Words) -> Tensor:
        """Each input is read once, and each word of several tokens behind it."""
        if not self._behind(columns):
            return super()._run(inputs, positions, columns)
        hidden, past = self._read_on(inputs, DynamicCache())
        return self._read_words(hidden, past, len(positions), columns)

    def _forward(self, batch: MicroBatch, vectors: Vectors, rows: Sequence[Row], columns: Words) -> Scores:
        """Of deep prompts: each input goes on from its prompt's keys and values."""
        if vectors.deep is None:
            return super()._forward(batch, vectors, rows, columns)
        inputs = self._parts.lift(torch.stack([self._entrance.words(rows[row].ids) for row in batch.rows]))
        count, tokens, _ = inputs.shape
        copies = -(-FEWEST_TOKENS // (count * tokens))
        prefixes = vectors.deep[torch.from_numpy(batch.prompts)].repeat(copies, 1, 1, 1, 1, 1).to(self._parts.dtype)
        past = DynamicCache()
        for index, (keys, values) in enumerate(layer.unbind(1) for layer in prefixes.unbind(1)):
            past.update(keys, values, index)
        hidden, past = self._read_on(inputs.repeat(copies, 1, 1), past)
        if self._behind(columns):
            found = self._read_words(hidden, past, count, columns)
        else:
            found = torch.stack([self._read(one, tokens - 1, columns) for one in hidden[:count]])
        scores: Scores = found.numpy()
        return scores

    def _read_words(self, hidden: Tensor, past: DynamicCache, count: int, columns: Words) -> Tensor:
        """The scores `[count, K]` of words behind inputs that ended in `hidden` `[N, T, D]` and left `past`."""
        continued = [word[:-1] for word in columns if len(word) > 1]
        copies = -(-FEWEST_TOKENS // (len(hidden) * min(map(len, continued))))
        past.batch_repeat_interleave(copies)
        states = [hidden[:, -1:]]
        for ids in continued:
            words = self._parts.lift(self._entrance.words(ids)[None]).repeat(len(hidden) * copies, 1, 1)
            states.append(self._read_on(words, past)[0][::copies])
        read = torch.cat(states, dim=1)  # [N, 1 + sum (len w_k - 1), D]
        return torch.stack([self._log_probabilities(one, columns) for one in read[:count]])

    def _log_probabilities(self, states: Tensor, words: Words) -> Tensor:
        """Of each word, `[K]`: `states` stand behind the input, then behind each word's tokens but its last."""
        logs = self._parts.head(inputs_embeds=states[None]).logits[0].log_softmax(-1)
        scores, start = [], 1
        for word in words:
            end = start + len(word) - 1
            scores.append(logs[[0, *range(start, end)], list(word)].sum())
            start = end
        return torch.stack(scores)

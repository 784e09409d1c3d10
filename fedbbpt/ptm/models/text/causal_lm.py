"""Causal language models (GPT-2, Llama and their like): how likely each label word is behind the input."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbbpt.errors import InvalidTask
from fedbbpt.ptm.models.accelerate.micro_batch_size import split_on_out_of_memory
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.template import Placeholder, parse
from fedbbpt.ptm.models.text import key_values
from fedbbpt.ptm.models.text.encoding import TokenisedExample
from fedbbpt.ptm.models.text.injection import PromptVectors
from fedbbpt.ptm.models.text.key_value_cache import KeyValueCache, Prefix
from fedbbpt.ptm.models.text.key_values import KeyValues, forward_with_cache
from fedbbpt.ptm.models.text.language_model import LabelHead, LabelTokens, LanguageModel
from fedbbpt.ptm.models.text.shared_prefix import find_shared_prefixes, remainder
from fedbbpt.ptm.models.text.transformer import FEWEST_TOKENS
from fedbbpt.ptm.scheduling.planner import PlannedJob
from fedbbpt.types import Examples, MicroBatch, Perturbation, PromptKind, Scores, TaskSpec

CACHE_BYTES = 512 * 2**20
"""Of what rows begin with, kept from job to job."""

MAX_CONTINUED = 1024
"""Tokens behind the first of all label words together: at each the whole vocabulary is scored."""


class CausalLM(LanguageModel):
    """For example "{prompt} {text} Sentiment: {mask}" with the classes "negative" and "positive".

    {mask} is the end, and may be left out; the white space before it belongs to the label words (" positive").

    Where all label words are single tokens, the scores are their logits. Where one has several, all words score by
    teacher forcing, score_k = sum_j log p(w_kj | prompt, input, w_k1 .. w_k(j-1)): the logarithm of the word's
    probability, hence a sum and no mean. Logits are the same but for one number a pair, which no softmax over classes
    sees, and need no pass over the vocabulary.

    What pairs begin with is read once for all of them (`cut`), each beginning alone.
    """

    family = "causal-lm"
    causal = True

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 0) -> None:
        self._cache = KeyValueCache(CACHE_BYTES, self._compute_prefixes)
        super().__init__(checkpoint, threads=threads, token_budget=token_budget)
        if self._reuses_key_values:
            with torch.inference_mode():
                shape = key_values.layer_shape(self._model, self._probe_words())
            kinds = self._card.prompt_kinds | ({PromptKind.DEEP} if shape else set())
            self._card = replace(self._card, prompt_kinds=kinds, prefix_shape=shape)

    def check(self, task: TaskSpec) -> None:
        if any(piece.placeholder is Placeholder.MASK for piece in parse(task)[:-1]):
            raise InvalidTask("{mask} before the end", where="template", fix='"{prompt} {text} Sentiment: {mask}"')
        words = self._encoder.label_words(task)
        behind = max(map(len, words)) - 1
        if (continued := sum(map(len, words)) - len(words)) > MAX_CONTINUED:
            what, fix = f"label words of {continued + len(words)} tokens", f"at most {MAX_CONTINUED} behind their first"
            raise InvalidTask(what, where="classes", fix=fix)
        if behind > self._card.max_tokens - 2:
            fix = f"at most {self._card.max_tokens - 1}"
            raise InvalidTask(f"a label word of {behind + 1} tokens", where="classes", fix=fix)
        if behind and not self._reuses_key_values:
            what = "label words of several tokens, and the model does not go on from what it has read"
            raise InvalidTask(what, where="classes", fix="words of one token each")

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[TokenisedExample]:
        behind = max(map(len, self._encoder.label_words(task))) - 1
        return super().prepare(task, examples, prompt_tokens + behind, perturbation)

    def _extra_tokens(self, columns: LabelHead) -> int:
        return columns.extra_tokens

    def _check_split(self, probe: Tensor, whole: Tensor | None) -> None:
        super()._check_split(probe, whole)
        with torch.inference_mode():
            self._reuses_key_values = key_values.supports_key_values(self._model, self._probe_words())

    def _probe_words(self) -> Tensor:
        return self._injector.embed_tokens(range(FEWEST_TOKENS))[None]

    def _noise_columns(self) -> LabelHead:
        return self._labels(((0,), (1, 0, 1))) if self._reuses_key_values else super()._noise_columns()

    def _job(
        self,
        vectors: PromptVectors,
        rows: Sequence[TokenisedExample],
        columns: LabelHead,
        wanted: npt.NDArray[np.bool_],
    ) -> PlannedJob:
        if not self._reuses_key_values:
            return super()._job(vectors, rows, columns, wanted)
        if vectors.deep is not None:
            vectors = replace(vectors, deep=vectors.deep.to(self._model.dtype))
        pieces = find_shared_prefixes(vectors, rows, self._injector.embed_tokens, fewest=FEWEST_TOKENS)
        continued = sum(len(word) - 1 for word in columns.words)
        batches = self._plan(vectors, rows, columns, wanted, shared=pieces.lengths, behind=continued)

        def run(batch: MicroBatch) -> Scores:
            with torch.inference_mode():
                if not (starts := pieces.of(batch)):
                    return self._forward(batch, vectors, rows, columns)
                pairs = list(zip(batch.prompts.tolist(), batch.rows.tolist(), strict=True))
                rests = [
                    remainder(vectors, p, rows[b], int(pieces.lengths[p, b]), self._injector.embed_tokens)
                    for p, b in pairs
                ]
                pasts = self._cache.get(starts, batch_size=self._prefixes_per_pass(int(pieces.lengths[pairs[0]])))
                scores: Scores = self._score_remainders(pasts, torch.stack(rests), columns).cpu().numpy()
                return scores

        return PlannedJob(pieces.counted(batches), split_on_out_of_memory(run))

    def _prefixes_per_pass(self, tokens: int) -> int:
        """How many beginnings of so many tokens. On a CPU, threads share them out."""
        return 1 if self._on_cpu else max(1, self._token_budget // tokens)

    def _compute_prefixes(self, starts: Sequence[Prefix]) -> list[KeyValues]:
        words = torch.stack([start.words() for start in starts])
        _, read = forward_with_cache(self._model, self._model.apply_embedding_block(words))
        if len(starts) == 1:
            return [read]
        return [tuple((k[i : i + 1].clone(), v[i : i + 1].clone()) for k, v in read) for i in range(len(starts))]

    def _score_remainders(self, pasts: Sequence[KeyValues], words: Tensor, columns: LabelHead) -> Tensor:
        """The scores `[N, K]` of `words` `[N, T, D]`, each behind its past."""
        count, tokens, _ = words.shape
        copies = -(-FEWEST_TOKENS // (count * tokens))
        inputs = self._model.apply_embedding_block(words).repeat(copies, 1, 1)
        hidden, read = forward_with_cache(self._model, inputs, key_values.stack([*pasts] * copies))
        if columns.extra_tokens:
            return self._score_label_words(hidden[:count], read, columns)
        return self._logits(hidden[:count, -1], columns)

    def _run(self, inputs: Tensor, positions: Tensor, columns: LabelHead) -> Tensor:
        """Each input is read once, and each word of several tokens behind it."""
        if not columns.extra_tokens:
            return super()._run(inputs, positions, columns)
        hidden, read = forward_with_cache(self._model, inputs)
        return self._score_label_words(hidden[: len(positions)], read, columns)

    def _score_label_words(self, hidden: Tensor, read: KeyValues, columns: LabelHead) -> Tensor:
        """The scores `[N, K]` of words behind inputs that ended in `hidden` `[N, T, D]` and left `read`."""
        count = len(hidden)
        continued = [word[:-1] for word in columns.words if len(word) > 1]
        copies = -(-FEWEST_TOKENS // (count * min(map(len, continued))))
        behind = tuple((k[:count].repeat(copies, 1, 1, 1), v[:count].repeat(copies, 1, 1, 1)) for k, v in read)
        states = [hidden[:, -1:]]
        for ids in continued:
            words = self._model.apply_embedding_block(self._injector.embed_tokens(ids)[None]).repeat(
                count * copies, 1, 1
            )
            states.append(forward_with_cache(self._model, words, behind)[0][:count])
        ends = torch.cat(states, dim=1)  # [N, 1 + sum (len w_k - 1), D]
        logs = self._logits(ends.flatten(0, 1), columns).log_softmax(-1)
        return torch.stack(_word_scores(logs.reshape(*ends.shape[:2], -1), columns.words), dim=1)


def _word_scores(logs: Tensor, words: LabelTokens) -> list[Tensor]:
    """Of each word, `[N]`: `logs` `[N, S, vocabulary]` stand behind the input, then behind each word's tokens but its
    last."""
    scores, start = [], 1
    for word in words:
        end = start + len(word) - 1
        scores.append(logs[:, [0, *range(start, end)], list(word)].sum(1))
        start = end
    return scores

"""Causal language models (GPT-2, Llama and others): a class scores by how likely its label word is after the input.

Pairs that begin alike share that beginning: its keys and values are computed once (`shared_prefix`), kept in a cache
(`key_value_cache`), and each pair continues from them (`key_values`).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbbpt.errors import InvalidTask
from fedbbpt.limits import MAX_CONTINUATION_TOKENS
from fedbbpt.ptm.models.accelerate.micro_batch_size import split_on_out_of_memory
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.template import check_mask_at_end, parse
from fedbbpt.ptm.models.text import key_values
from fedbbpt.ptm.models.text.encoding import TokenisedExample
from fedbbpt.ptm.models.text.injection import PromptVectors
from fedbbpt.ptm.models.text.key_value_cache import KeyValueCache, Prefix
from fedbbpt.ptm.models.text.key_values import KeyValues, forward_with_cache
from fedbbpt.ptm.models.text.language_model import LabelHead, LanguageModel
from fedbbpt.ptm.models.text.shared_prefix import find_shared_prefixes, remainder
from fedbbpt.ptm.models.text.transformer import FEWEST_TOKENS, LabelTokens, copies_to_fill
from fedbbpt.ptm.scheduling.planner import PlannedJob
from fedbbpt.types import Examples, MicroBatch, Perturbation, PromptKind, Scores, TaskSpec

CACHE_BYTES = 512 * 2**20
"""Size of the cache for keys and values of examples, which outlive a job."""


class CausalLM(LanguageModel):
    """Scores for example "{prompt} {text} Sentiment: {mask}" with the classes "negative" and "positive".

    {mask} is the end of the template. The white space before it belongs to the label words (" positive").

    If all label words are single tokens, their scores are their logits. If one has several, all words are scored by
    teacher forcing, score_k = sum_j log p(w_kj | prompt, input, w_k1 .. w_k(j-1)). This is the logarithm of the word's
    probability, hence a sum and not a mean. Logits differ from it by one number per pair, which no softmax over classes
    sees, and need no pass over the vocabulary.
    """

    family = "causal-lm"
    causal = True
    _typical_template = "{text} It was {mask}"

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 0) -> None:
        self._cache = KeyValueCache(CACHE_BYTES, self._compute_prefixes)
        super().__init__(checkpoint, threads=threads, token_budget=token_budget)
        if self._reuses_key_values:
            with torch.inference_mode():
                shape = key_values.layer_shape(self._model, self._probe_words())
            kinds = self._card.prompt_kinds | ({PromptKind.DEEP} if shape else set())
            self._card = replace(self._card, prompt_kinds=kinds, prefix_shape=shape)

    def check(self, task: TaskSpec) -> None:
        check_mask_at_end(parse(task))
        words = self._encoder.label_words(task)
        extra_tokens = max(map(len, words)) - 1
        if (continued := sum(map(len, words)) - len(words)) > MAX_CONTINUATION_TOKENS:
            what, fix = (
                f"label words of {continued + len(words)} tokens",
                f"at most {MAX_CONTINUATION_TOKENS} after the first ones",
            )
            raise InvalidTask(what, where="classes", fix=fix)
        if extra_tokens > self._card.max_tokens - 2:
            fix = f"at most {self._card.max_tokens - 1}"
            raise InvalidTask(f"a label word of {extra_tokens + 1} tokens", where="classes", fix=fix)
        if extra_tokens and not self._reuses_key_values:
            what = "label words of several tokens, but this model cannot continue from cached keys and values"
            raise InvalidTask(what, where="classes", fix="words of one token each")

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[TokenisedExample]:
        extra_tokens = max(map(len, self._encoder.label_words(task))) - 1
        return super().prepare(task, examples, prompt_tokens + extra_tokens, perturbation)

    def _extra_tokens(self, columns: LabelHead) -> int:
        return columns.extra_tokens

    def _explore(self, vectors: Tensor) -> None:
        super()._explore(vectors)
        self._reuses_key_values = key_values.supports_reuse(self._model, vectors)

    def _self_test_columns(self, words: LabelTokens) -> LabelHead | None:
        several = any(len(word) > 1 for word in words)
        return None if several and not self._reuses_key_values else self._label_head(words)

    def _score_output(self, output: Tensor, columns: LabelHead) -> Tensor:
        if not columns.extra_tokens:
            return super()._score_output(output, columns)
        log_probabilities = output.log_softmax(-1)
        return torch.stack([log_probabilities[range(len(word)), list(word)].sum() for word in columns.words])

    def _probe_words(self) -> Tensor:
        return self._injector.embed_tokens(range(FEWEST_TOKENS))[None]

    def _noise_columns(self) -> LabelHead:
        return self._label_head(((0,), (1, 0, 1))) if self._reuses_key_values else super()._noise_columns()

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
        embed = self._injector.embed_tokens
        shared = find_shared_prefixes(vectors, rows, embed, fewest=FEWEST_TOKENS)
        continued = sum(len(word) - 1 for word in columns.words)
        batches = self._plan(vectors, rows, columns, wanted, shared=shared.lengths, suffix=continued)

        def run(batch: MicroBatch) -> Scores:
            with torch.inference_mode():
                if not (prefixes := shared.of(batch)):
                    return self._forward(batch, vectors, rows, columns)
                pairs = list(zip(batch.prompts.tolist(), batch.rows.tolist(), strict=True))
                remainders = [remainder(vectors, p, rows[b], int(shared.lengths[p, b]), embed) for p, b in pairs]
                pasts = self._cache.get(prefixes, batch_size=self._prefixes_per_pass(int(shared.lengths[pairs[0]])))
                scores: Scores = self._score_remainders(pasts, torch.stack(remainders), columns).cpu().numpy()
                return scores

        return PlannedJob(shared.add_prefix_tokens(batches), split_on_out_of_memory(run))

    def _prefixes_per_pass(self, tokens: int) -> int:
        """Returns how many prefixes of `tokens` tokens to compute at a time: one on a CPU, where threads share them."""
        return 1 if self._on_cpu else max(1, self._token_budget // tokens)

    def _compute_prefixes(self, prefixes: Sequence[Prefix]) -> list[KeyValues]:
        words = torch.stack([prefix.embed() for prefix in prefixes])
        _, computed = forward_with_cache(self._model, self._model.apply_embedding_block(words))
        if len(prefixes) == 1:
            return [computed]
        return [tuple((k[i : i + 1].clone(), v[i : i + 1].clone()) for k, v in computed) for i in range(len(prefixes))]

    def _score_remainders(self, pasts: Sequence[KeyValues], words: Tensor, columns: LabelHead) -> Tensor:
        """Returns the scores `[N, K]` of pairs with the remainders `words` `[N, T, D]`, each after its prefix."""
        count, tokens, _ = words.shape
        copies = copies_to_fill(count * tokens)
        inputs = self._model.apply_embedding_block(words).repeat(copies, 1, 1)
        hidden, past = forward_with_cache(self._model, inputs, key_values.stack([*pasts] * copies))
        if columns.extra_tokens:
            return self._score_label_words(hidden[:count], past, columns)
        return self._logits(hidden[:count, -1], columns)

    def _score_inputs(self, inputs: Tensor, positions: Tensor, columns: LabelHead) -> Tensor:
        """Runs each input once, and each label word of several tokens after it."""
        if not columns.extra_tokens:
            return super()._score_inputs(inputs, positions, columns)
        hidden, past = forward_with_cache(self._model, inputs)
        return self._score_label_words(hidden[: len(positions)], past, columns)

    def _score_label_words(self, hidden: Tensor, past: KeyValues, columns: LabelHead) -> Tensor:
        """Returns the scores `[N, K]` of label words after inputs with the hidden states `[N, T, D]`."""
        count = len(hidden)
        continued = [word[:-1] for word in columns.words if len(word) > 1]
        copies = copies_to_fill(count * min(map(len, continued)))
        repeated = tuple((k[:count].repeat(copies, 1, 1, 1), v[:count].repeat(copies, 1, 1, 1)) for k, v in past)
        states = [hidden[:, -1:]]
        for ids in continued:
            words = self._model.apply_embedding_block(self._injector.embed_tokens(ids)[None])
            inputs = words.repeat(count * copies, 1, 1)
            states.append(forward_with_cache(self._model, inputs, repeated)[0][:count])
        ends = torch.cat(states, dim=1)  # [N, 1 + sum (len w_k - 1), D]
        log_probabilities = self._logits(ends.flatten(0, 1), columns).log_softmax(-1)
        log_probabilities = log_probabilities.reshape(*ends.shape[:2], -1)
        return torch.stack(_word_scores(log_probabilities, columns.words), dim=1)


def _word_scores(log_probabilities: Tensor, words: LabelTokens) -> list[Tensor]:
    """Returns the score of each word, `[N]`.

    `log_probabilities` `[N, S, vocabulary]` are those of the token after the input, then, for one word after another,
    of the token after each of the word's tokens except its last.
    """
    scores, start = [], 1
    for word in words:
        end = start + len(word) - 1
        scores.append(log_probabilities[:, [0, *range(start, end)], list(word)].sum(1))
        start = end
    return scores

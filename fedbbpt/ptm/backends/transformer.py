"""What all families share: prompts join inputs as embeddings, and pairs of one length run through the body together.

A pair's scores are the same bits alone and in company, whatever `threads` is:

- Each micro-batch runs on one thread, so that no kernel splits its rows by their number; `threads` micro-batches run
  side by side.
- A matrix product of less than four rows takes another kernel than larger ones: small micro-batches are filled up with
  copies (`FEWEST_TOKENS`).
- What comes behind the body, where a pair is one row, is computed pair by pair.
- Some activations (SiLU, tanh-GELU) round the last elements of an array otherwise. Widths that are multiples of 32, as
  those of published models are, leave no such rest.

Whether all this holds for the model and the machine at hand is measured at the start: `score_noise`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from os import cpu_count
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions as BodyOutput

from fedbbpt import seeds
from fedbbpt.errors import InvalidInput, InvalidTensor
from fedbbpt.prompts.projection import project
from fedbbpt.ptm.backends.checkpoint import Checkpoint
from fedbbpt.ptm.backends.encoding import Encoder, Row
from fedbbpt.ptm.planner import MicroBatch, plan
from fedbbpt.ptm.validation import MAX_EXAMPLES, MAX_MESSAGE_BYTES, MAX_PROMPTS
from fedbbpt.types import (
    Examples,
    Injection,
    LatentPrompts,
    ModelCard,
    Perturbation,
    PromptKind,
    Prompts,
    Scores,
    SoftPrompts,
    TaskSpec,
    TokenPrompts,
)

FEWEST_TOKENS = 16
PROBE_TOKENS = 4
C = TypeVar("C")


class Transformer(ABC, Generic[C]):
    """Implements interfaces.Backend for one family; C is what the family makes of a task's classes.

    `token_budget` bounds a micro-batch: on a CPU, larger ones leave the caches and gain nothing. One call at a time.
    Torch's own threads are set to one, for the whole process.
    """

    family: str
    causal = False

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 1024) -> None:
        torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(threads or cpu_count() or 1, thread_name_prefix="forward")
        self._token_budget = token_budget
        self._encoder = Encoder(checkpoint.tokenizer, checkpoint.max_tokens, causal=self.causal)
        self._embedding: nn.Embedding = checkpoint.model.get_input_embeddings()
        self._std = float(self._embedding.weight.std())
        probe = self._probe((1, FEWEST_TOKENS))
        whole = _forward_whole(checkpoint, probe)
        self._body, self._head = _split(checkpoint.model)
        self._card = ModelCard(
            model=checkpoint.name,
            revision=checkpoint.revision,
            family=self.family,
            prompt_kinds=frozenset(PromptKind),
            injections=frozenset({Injection.PREFIX}),
            max_tokens=checkpoint.max_tokens,
            max_prompts=MAX_PROMPTS,
            max_examples=MAX_EXAMPLES,
            max_message_bytes=MAX_MESSAGE_BYTES,
            embedding_width=self._embedding.embedding_dim,
            score_noise=0.0,
        )
        self._check_split(probe, whole)
        self._card = replace(self._card, score_noise=self._measure_noise())

    @abstractmethod
    def check(self, task: TaskSpec) -> None:
        """Raises InvalidTask."""

    @abstractmethod
    def _columns(self, task: TaskSpec) -> C:
        """What `_read` must know of the classes."""

    @abstractmethod
    def _probe_columns(self) -> C:
        """The columns of any two classes, to measure with."""

    @abstractmethod
    def _read(self, hidden: Tensor, position: int, columns: C) -> Tensor:
        """The scores `[K]` of one pair from its last hidden states `[T, D]`."""

    def describe(self) -> ModelCard:
        return self._card

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[Row]:
        return self._encoder.rows(task, examples, prompt_tokens, perturbation)

    def tokens(self, row: Row) -> int:
        return len(row.ids)

    def score(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[Row], check: Callable[[], None]
    ) -> tuple[Scores, int]:
        with torch.inference_mode():
            vectors, joints = self._vectors(prompts), _joints(prompts, rows)
            return self._score(vectors, rows, joints, self._columns(task), check)

    def _vectors(self, prompts: Prompts) -> list[Tensor]:
        """Each prompt as vectors `[L, D]`."""
        if isinstance(prompts, LatentPrompts):
            tokens, width = prompts.projection.tokens, self._embedding.embedding_dim
            initial = np.zeros((tokens, width), np.float32)
            if ids := self._encoder.tokenise([prompts.projection.initial_text])[0]:
                initial = self._embed(np.resize(ids, tokens)).numpy()
            return list(torch.from_numpy(project(prompts.projection, prompts.z, initial, self._std)))
        if isinstance(prompts, SoftPrompts):
            return [torch.tensor(vectors) for vectors in prompts.embeddings]
        if isinstance(prompts, TokenPrompts):
            last = self._embedding.num_embeddings - 1
            if not 0 <= prompts.ids.min() <= prompts.ids.max() <= last:
                raise InvalidTensor("a token outside the vocabulary", where="tokens.ids", fix=f"ids from 0 to {last}")
            return [self._embed(ids) for ids in prompts.ids]
        return [self._embed(ids) for ids in self._encoder.tokenise(prompts.texts)]

    def _embed(self, ids: npt.ArrayLike) -> Tensor:
        vectors: Tensor = self._embedding(torch.tensor(np.asarray(ids, np.int64)))
        return vectors

    def _score(
        self,
        vectors: Sequence[Tensor],
        rows: Sequence[Row],
        joints: Sequence[int],
        columns: C,
        check: Callable[[], None],
    ) -> tuple[Scores, int]:
        batches = plan(
            [len(v) for v in vectors],
            [len(row.ids) for row in rows],
            max_tokens=self._card.max_tokens,
            token_budget=self._token_budget,
        )

        def run(batch: MicroBatch) -> Scores:
            check()
            with torch.inference_mode():
                return self._forward(batch, vectors, rows, joints, columns)

        parts = list(self._pool.map(run, batches))
        scores = np.empty((len(vectors), len(rows), parts[0].shape[1]), np.float32)
        for batch, part in zip(batches, parts, strict=True):
            scores[batch.prompts, batch.rows] = part
        return scores, sum(batch.tokens for batch in batches)

    def _forward(
        self,
        batch: MicroBatch,
        vectors: Sequence[Tensor],
        rows: Sequence[Row],
        joints: Sequence[int],
        columns: C,
    ) -> Scores:
        """The scores `[N, K]` of the pairs."""
        inputs, positions = [], []
        for p, b in zip(batch.prompts, batch.rows, strict=True):
            row, joint, prompt = rows[b], joints[b], vectors[p]
            input = self._embed(row.ids)
            inputs.append(torch.cat([input[:joint], prompt, input[joint:]]))
            after = row.mask is not None and row.mask >= joint
            positions.append(batch.length - 1 if row.mask is None else row.mask + len(prompt) * after)
        copies = -(-FEWEST_TOKENS // batch.tokens)
        hidden = self._body(inputs_embeds=torch.stack(inputs * copies)).last_hidden_state  # [N, T, D]
        read = [self._read(hidden[i], position, columns) for i, position in enumerate(positions)]
        scores: Scores = torch.stack(read).numpy()
        return scores

    def _probe(self, shape: tuple[int, int]) -> Tensor:
        """Random vectors `[*shape, D]` like the model's own."""
        noise = seeds.rng(0, "probe").standard_normal((*shape, self._embedding.embedding_dim), np.float32)
        return torch.from_numpy(self._std * noise)

    def _check_split(self, probe: Tensor, whole: Tensor | None) -> None:
        """Raises InvalidInput where body and head, taken apart, do not give the logits that the whole model gave."""
        if whole is None:
            return
        theirs = whole[0, -1, [0, 1]] if whole.ndim == 3 else whole[0, [0, -1]]
        try:
            with torch.inference_mode():
                hidden = self._body(inputs_embeds=probe).last_hidden_state[0]
                ours = self._read(hidden, FEWEST_TOKENS - 1, self._probe_columns())
            same = torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)
        except (AttributeError, TypeError, ValueError):
            same = False
        if not same:
            what = f"a {self.family} whose head cannot be taken from its body"
            raise InvalidInput(what, where=self._card.model, fix="another model")

    def _measure_noise(self) -> float:
        """The standard deviation between the scores of pairs alone and in company."""
        rng = seeds.rng(0, "score-noise")
        longest = min(40, self._card.max_tokens - PROBE_TOKENS)
        lengths = rng.integers(1, longest + 1, 6).repeat(2)
        ids = [tuple(rng.integers(0, self._embedding.num_embeddings, n).tolist()) for n in lengths]
        rows = [Row(row, 0, 0, None) for row in ids]
        with torch.inference_mode():
            vectors = list(self._probe((3, PROBE_TOKENS)))
            columns = self._probe_columns()

            def ask(p: Sequence[Tensor], b: Sequence[Row]) -> Scores:
                return self._score(p, b, [0] * len(b), columns, lambda: None)[0]

            together = ask(vectors, rows)
            alone = np.array([[ask([v], [row])[0, 0] for row in rows] for v in vectors])
        return float(np.std(together - alone))


def _forward_whole(checkpoint: Checkpoint, probe: Tensor) -> Tensor | None:
    """The model's own logits, None where it has no head. Raises InvalidInput where it takes no vectors."""
    try:
        with torch.inference_mode():
            return getattr(checkpoint.model(inputs_embeds=probe), "logits", None)
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise InvalidInput(f"it takes no vectors: {error}", where=checkpoint.name, fix="another model") from None


def _split(model: Any) -> tuple[Any, Any]:
    """A model's body, and the model with a stand-in where its body was: given the body's hidden states as
    `inputs_embeds`, it computes what comes behind them, whatever the architecture."""
    body = model.base_model
    if body is model:
        return body, None
    setattr(model, model.base_model_prefix, _StandIn(getattr(body, "pooler", None)))
    if getattr(body, "pooler", None) is not None:
        body.pooler = None
    return body, model


class _StandIn(nn.Module):
    """Hands on what the body has computed before, and adds the body's pooler."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BodyOutput:
        pooled = None if self.pooler is None else self.pooler(inputs_embeds)
        return BodyOutput(last_hidden_state=inputs_embeds, pooler_output=pooled)


def _joints(prompts: Prompts, rows: Sequence[Row]) -> list[int]:
    """Where the prompt joins each row: vectors in front, tokens and text at the template's place."""
    continuous = isinstance(prompts, LatentPrompts | SoftPrompts)
    return [row.front if continuous else row.slot for row in rows]

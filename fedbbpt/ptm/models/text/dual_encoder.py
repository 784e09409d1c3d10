"""Encoders without a head: a class scores by the cosine between its description and the input.

The embedding of a text is that of sentence-transformers (`sentence_encoder`), and the score is LOGIT_SCALE times the
cosine of two embeddings. A prompt is a part of the input that is pooled, like its text: a mean includes it, and the
first or the last token is that of the whole input. Where the tokenizer has special tokens, these are the first and the
last, and stay so: prompts join between them. Otherwise, the first vector of a prompt at the front is the first token.

A prompt in the class texts (injection `class`) is such a part of each description instead, and the inputs have none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedbbpt.errors import InvalidInput, InvalidTask
from fedbbpt.interfaces import ScoringJob
from fedbbpt.ptm.models.accelerate.micro_batch_size import split_on_out_of_memory
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.class_prompts import ClassPromptJob, Indices, check_class_lengths
from fedbbpt.ptm.models.embedding_cache import EmbeddingCache, Vectors
from fedbbpt.ptm.models.template import forbid_mask, parse
from fedbbpt.ptm.models.text.encoding import TokenisedExample
from fedbbpt.ptm.models.text.injection import PromptVectors
from fedbbpt.ptm.models.text.transformer import Transformer, copies_to_fill
from fedbbpt.ptm.scheduling.planner import plan
from fedbbpt.types import Examples, Injection, MicroBatch, Perturbation, Prompts, TaskSpec

LOGIT_SCALE = 20.0
CACHED_TEXTS = 8192
"""Size of the cache for vectors of class descriptions."""


class DualEncoder(Transformer[Tensor]):
    """score = 20 x cosine(embedding of prompt + text, embedding of the class's description)."""

    family = "dual-encoder"

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 0) -> None:
        if getattr(checkpoint.model, "pooler", None) is not None:
            checkpoint.model.pooler = None
        self._sentence = checkpoint.sentence_encoder
        self._modules = nn.Sequential(*self._sentence.modules).to(checkpoint.model.device)
        _check_widths(checkpoint, self._modules)
        # The cache holds texts, not tasks: a task that recombines known descriptions computes none of them again.
        self._encode = lru_cache(maxsize=CACHED_TEXTS)(self._encode_text)
        super().__init__(checkpoint, threads=threads, token_budget=token_budget)
        self._card = replace(self._card, injections=self._card.injections | {Injection.CLASS})
        self._embeddings = EmbeddingCache()

    def check(self, task: TaskSpec) -> None:
        forbid_mask(parse(task))
        for text in task.classes:
            tokens = len(self._class_text(text).ids)
            if tokens > self._card.max_tokens:
                what = f"a description of {tokens} tokens"
                raise InvalidTask(what, where="classes", fix=f"at most {self._card.max_tokens}")

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[TokenisedExample]:
        own_prompt = self._sentence.prompt.replace("{", "{{").replace("}", "}}")
        task = replace(task, template=own_prompt + task.template)
        return super().prepare(task, examples, prompt_tokens, perturbation)

    def columns(self, task: TaskSpec) -> tuple[tuple[str, ...], ...]:
        """Names each description by its token ids, so that descriptions that the model reads alike count as one."""
        return tuple((" ".join(map(str, self._class_text(text).ids)),) for text in task.classes)

    def _columns(self, task: TaskSpec) -> Tensor:
        return torch.stack([self._encode(text) for text in task.classes])

    def _probe_columns(self) -> Tensor:
        return torch.stack([self._encode_text(text) for text in ("a", "b")])

    def job(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[TokenisedExample], wanted: npt.NDArray[np.bool_]
    ) -> ScoringJob:
        if not prompts.in_classes:
            return super().job(task, prompts, rows, wanted)
        with torch.inference_mode():
            vectors = self._injector.prompt_vectors(prompts)
            no_prompt = PromptVectors([self._injector.embed_tokens(())])
        classes = [self._class_text(text) for text in task.classes]
        lengths, prompt_length = [len(row.ids) for row in classes], len(vectors.each[0])
        check_class_lengths(task, lengths, prompt_length, self._card.max_tokens)
        return ClassPromptJob(
            _Texts(self, vectors, classes, rows, no_prompt, self._token_budget),
            task,
            prompts,
            wanted,
            prompt_tokens=sum(lengths) + len(classes) * prompt_length,
            row_tokens=[len(row.ids) for row in rows],
            owners=[row.cache_slot for row in rows],
            cache=self._embeddings,
            scale=LOGIT_SCALE,
            token_budget=self._token_budget,
        )

    def embed_pairs(self, batch: MicroBatch, vectors: PromptVectors, rows: Sequence[TokenisedExample]) -> Vectors:
        """Returns the unit vectors `[N, E]` of texts with prompts, for N pairs of one length."""

        def run(part: MicroBatch) -> Vectors:
            with torch.inference_mode():
                inputs, positions = self._body_inputs(part, vectors, rows)
                embedded: Vectors = self._embed(self._model.run_body(inputs)[: len(positions)]).cpu().numpy()
                return embedded

        return split_on_out_of_memory(run)(batch)

    def _class_text(self, text: str) -> TokenisedExample:
        """Returns the tokens of a description."""
        return self._encoder.encode_class(self._sentence.prompt + text)

    def _encode_text(self, text: str) -> Tensor:
        """Returns a unit vector `[E]`."""
        ids = self._class_text(text).ids
        inputs = self._model.apply_embedding_block(self._injector.embed_tokens(ids)[None])
        copies = copies_to_fill(len(ids))
        return self._embed(self._model.run_body(inputs.repeat(copies, 1, 1))[:1])[0]

    def _score_hidden(self, hidden: Tensor, positions: Tensor, columns: Tensor) -> Tensor:
        return LOGIT_SCALE * (columns * self._embed(hidden)[:, None]).sum(-1)

    def _embed(self, hidden: Tensor) -> Tensor:
        """Returns the unit vectors `[N, E]` of inputs with the last hidden states `[N, T, D]`."""
        pooled = self._sentence.pooling(hidden)
        if self._sentence.modules:
            pooled = self._modules(pooled.repeat(copies_to_fill(len(pooled)), 1))[: len(pooled)]
        return _unit(pooled[:, : self._sentence.dimensions])


@dataclass(frozen=True, slots=True)
class _Texts:
    """Implements `class_prompts.Embeddings` for a call's prompts, class texts and inputs."""

    encoder: DualEncoder
    vectors: PromptVectors
    classes: Sequence[TokenisedExample]
    rows: Sequence[TokenisedExample]
    no_prompt: PromptVectors
    token_budget: int

    def of_classes(self, prompts: Indices) -> Vectors:
        every = np.ones((len(prompts), len(self.classes)), bool)
        parts = plan(
            [len(self.vectors.each[prompt]) for prompt in prompts],
            [len(row.ids) for row in self.classes],
            every,
            max_tokens=self.encoder.describe().max_tokens,
            token_budget=self.token_budget,
        )
        found: dict[tuple[int, int], npt.NDArray[np.float32]] = {}
        for part in parts:
            batch = replace(part, prompts=prompts[part.prompts])
            embedded = self.encoder.embed_pairs(batch, self.vectors, self.classes)
            found |= zip(zip(part.prompts.tolist(), part.rows.tolist(), strict=True), embedded, strict=True)
        return np.stack([[found[p, k] for k in range(len(self.classes))] for p in range(len(prompts))])

    def of_inputs(self, rows: Indices) -> Vectors:
        return self.encoder.embed_pairs(MicroBatch(np.zeros_like(rows), rows, 0), self.no_prompt, self.rows)


def _check_widths(checkpoint: Checkpoint, modules: nn.Module) -> None:
    """Raises InvalidInput if a module does not take what the one before it gives."""
    hidden = torch.zeros(1, 1, checkpoint.model.config.hidden_size, device=checkpoint.model.device)
    try:
        modules(checkpoint.sentence_encoder.pooling(hidden))
    except RuntimeError as error:
        what = f"the modules of this sentence encoder do not fit each other: {error}"
        raise InvalidInput(what, where=checkpoint.name, fix="the files as they were published") from None


def _unit(vectors: Tensor) -> Tensor:
    """Scales vectors `[..., D]` to length 1."""
    unit: Tensor = vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return unit

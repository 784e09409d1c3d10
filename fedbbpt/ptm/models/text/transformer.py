"""Base of all families of text models: pairs of one length run through the model's body together.

A pair's scores are bit-identical alone and in any batch, for any number of threads:

- Each micro-batch runs on one thread, so that no kernel splits its rows according to their number; callers run
  `threads` micro-batches in parallel.
- A matrix product of fewer than four rows uses another kernel than larger ones. Small micro-batches are therefore
  filled up with copies (`FEWEST_TOKENS`), and so are the inputs of heads, where a pair is one row.
- Some activations (SiLU, tanh-GELU) round the last elements of an array differently. Widths that are multiples of 32,
  as in published models, leave no such remainder.

Whether this holds for a model on a machine is measured at start-up and reported as `score_noise`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from os import cpu_count
from time import perf_counter
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbbpt import seeds
from fedbbpt.errors import InvalidExamples
from fedbbpt.interfaces import ScoringJob
from fedbbpt.limits import MAX_EXAMPLES, MAX_MESSAGE_BYTES, MAX_PROMPTS
from fedbbpt.ptm.models.accelerate.cuda_graphs import cuda_recorder
from fedbbpt.ptm.models.accelerate.exported_layers import export_body
from fedbbpt.ptm.models.accelerate.gpu import accelerate_body
from fedbbpt.ptm.models.accelerate.micro_batch_size import find_token_budget, split_on_out_of_memory
from fedbbpt.ptm.models.accelerate.packed_linear import pack
from fedbbpt.ptm.models.accelerate.upload import upload
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.text.encoding import ExampleEncoder, TokenisedExample
from fedbbpt.ptm.models.text.injection import PromptInjector, PromptVectors
from fedbbpt.ptm.models.text.self_test import Probe, SelfTest, random_vectors
from fedbbpt.ptm.models.text.split_model import split_model
from fedbbpt.ptm.scheduling.planner import PlannedJob, plan
from fedbbpt.types import (
    TEXT_MODEL_PROMPTS,
    Examples,
    MicroBatch,
    ModelCard,
    Perturbation,
    Precision,
    Prompts,
    Runtime,
    Scores,
    TaskSpec,
)
from fedbbpt.types.digests import digest

FEWEST_TOKENS = 16
"""Tokens to which smaller micro-batches are filled up with copies."""
CPU_TOKENS = 1024
"""Tokens of a micro-batch on a CPU. Larger ones do not fit into its caches and are no faster."""
LARGE_MODEL = 5e7
"""Weights of a model whose noise is measured on fewer inputs, so that it starts sooner."""
C = TypeVar("C")
LabelTokens: TypeAlias = tuple[tuple[int, ...], ...]
"""The token ids of each class's label word."""


def copies_to_fill(tokens: int) -> int:
    """Returns how many copies of an input of so many tokens fill up a micro-batch: 1 if it has FEWEST_TOKENS."""
    return -(-FEWEST_TOKENS // tokens)


class Transformer(ABC, Generic[C]):
    """Implements interfaces.Backend for one family; C is the family's form of a task's classes.

    Jobs can be made and run in any threads. On a CPU, each micro-batch runs on one thread; on another device, one
    micro-batch is prepared while another is computed.
    """

    family: str
    causal = False

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 0) -> None:
        """Splits the model, verifies the parts and measures the noise of its scores.

        Sets torch's own number of threads to one, for the whole process.

        Args:
            checkpoint: The model, which is modified.
            threads: Micro-batches that run in parallel on a CPU; 0 means the number of cores.
            token_budget: Most tokens of a micro-batch; 0 means CPU_TOKENS on a CPU, and on another device the
                number that a warm-up finds to be the fastest.

        Raises:
            InvalidInput: The model cannot be split, or the runtime cannot compute it.
        """
        torch.set_num_threads(1)
        self._on_cpu = checkpoint.model.device.type == "cpu"
        self.threads = (threads or cpu_count() or 1) if self._on_cpu else 2
        self._token_budget = token_budget or CPU_TOKENS
        self_test = SelfTest(checkpoint, self.family, causal=self.causal)
        self._encoder = ExampleEncoder(
            checkpoint.tokenizer,
            checkpoint.max_tokens,
            vectors=checkpoint.model.get_input_embeddings().num_embeddings,
            causal=self.causal,
            segments=getattr(checkpoint.model.config, "type_vocab_size", 0) > 1,
            padding=self_test.padding,
        )
        self._model = split_model(checkpoint.model)
        width = self._model.word_embeddings.embedding_dim
        self.hidden_size = int(getattr(checkpoint.model.config.get_text_config(), "hidden_size", width))
        in_torch, lowered = checkpoint.runtime is Runtime.TORCH, checkpoint.precision is Precision.BFLOAT16
        if in_torch and self._on_cpu and not lowered:
            pack(self._model.body, partial(self._model.run_body, self._model.apply_embedding_block(self_test.vectors)))
        self._injector = PromptInjector(self._model, self._encoder)
        self._card = ModelCard(
            model=checkpoint.name,
            revision=checkpoint.revision,
            family=self.family,
            prompt_kinds=TEXT_MODEL_PROMPTS,
            injections=self._injector.injections,
            max_tokens=checkpoint.max_tokens,
            max_prompts=MAX_PROMPTS,
            max_examples=MAX_EXAMPLES,
            max_message_bytes=MAX_MESSAGE_BYTES,
            embedding_width=width,
            score_noise=0.0,
            precision=checkpoint.precision,
        )
        with torch.inference_mode():
            self._explore(self._injector.embed_tokens(self_test.probes[0].ids)[None])
            self_test.check_vectors(*self._both_scores_of_vectors(self_test))
            self_test.check(self._both_scores)
        if not in_torch:
            self._model = export_body(self._model, checkpoint, self.threads)
        elif lowered:
            self._model = self._model.with_dtype(torch.bfloat16)
        if checkpoint.model.device.type == "cuda" and not self.causal:
            with torch.inference_mode():
                self._model = accelerate_body(self._model, self._first_layer_probe, cuda_recorder())
        if not (token_budget or self._on_cpu):
            self._token_budget = find_token_budget(self._seconds_per_batch, first=CPU_TOKENS)
        noise = self._measure_noise(6 if checkpoint.model.num_parameters() < LARGE_MODEL else 2)
        self._card = replace(self._card, score_noise=noise)

    @abstractmethod
    def check(self, task: TaskSpec) -> None:
        """Raises InvalidTask if the family cannot score the task."""

    @abstractmethod
    def _columns(self, task: TaskSpec) -> C:
        """Returns the classes in the form that `_score_hidden` takes."""

    def _extra_tokens(self, columns: C) -> int:
        """Returns how many of the model's positions the classes take after an input."""
        return 0

    @abstractmethod
    def _probe_columns(self) -> C:
        """Returns the columns of two arbitrary classes, for measurements."""

    def _noise_columns(self) -> C:
        """Returns the columns to measure noise with: those that exercise most of the family's code."""
        return self._probe_columns()

    @abstractmethod
    def _score_hidden(self, hidden: Tensor, positions: Tensor, columns: C) -> Tensor:
        """Returns the scores `[N, K]` of pairs from their last hidden states `[N, T, D]` at their positions `[N]`."""

    def describe(self) -> ModelCard:
        return self._card

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[TokenisedExample]:
        return self._encoder.encode(task, examples, prompt_tokens, perturbation)

    def tokens(self, row: TokenisedExample) -> int:
        return len(row.ids)

    def identity(self, row: TokenisedExample) -> bytes:
        places = row.front_index, row.prompt_index, str(row.mask_index), bytes(row.segments)
        return digest(np.array(row.ids, "<i8").tobytes(), *places)

    def prompt_vectors(self, prompts: Prompts) -> npt.NDArray[np.float32]:
        """Returns the vectors `[P, L, D]` with which continuous prompts of one length join an input.

        Raises:
            UnsupportedPrompt: The model does not take prompts of this kind.
        """
        with torch.inference_mode():
            found: npt.NDArray[np.float32] = torch.stack([*self._injector.prompt_vectors(prompts).each]).cpu().numpy()
        return found

    def columns(self, task: TaskSpec) -> tuple[tuple[str, ...], ...]:
        return tuple((text,) for text in task.classes)

    def job(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[TokenisedExample], wanted: npt.NDArray[np.bool_]
    ) -> ScoringJob:
        if prompts.in_classes:
            raise prompts.unsupported()
        with torch.inference_mode():
            return self._job(self._injector.prompt_vectors(prompts, rows), rows, self._columns(task), wanted)

    def nearest_words(self, prompts: Prompts, count: int) -> list[list[str]]:
        """Returns for each vector of the first prompt the `count` words whose vectors are nearest by their cosine."""
        with torch.inference_mode():
            vectors = self._injector.prompt_vectors(prompts).each[0].float()
            table = self._model.word_embeddings.weight.float()
            cosines = torch.nn.functional.normalize(vectors) @ torch.nn.functional.normalize(table).T
            nearest = cosines.topk(count).indices.tolist()
        return [self._encoder.spell(ids) for ids in nearest]

    def _job(
        self, vectors: PromptVectors, rows: Sequence[TokenisedExample], columns: C, wanted: npt.NDArray[np.bool_]
    ) -> PlannedJob:
        batches = self._plan(vectors, rows, columns, wanted)

        def run(batch: MicroBatch) -> Scores:
            with torch.inference_mode():
                return self._forward(batch, vectors, rows, columns)

        return PlannedJob(batches, split_on_out_of_memory(run))

    def _plan(
        self,
        vectors: PromptVectors,
        rows: Sequence[TokenisedExample],
        columns: C,
        wanted: npt.NDArray[np.bool_],
        **computed: Any,
    ) -> tuple[MicroBatch, ...]:
        """`computed`: the tokens of a pair that are computed elsewhere, or in addition; see `plan`."""
        return plan(
            [len(each) for each in vectors.each],
            [len(row.ids) for row in rows],
            wanted,
            max_tokens=self._card.max_tokens - self._extra_tokens(columns),
            token_budget=self._token_budget,
            **computed,
        )

    def _forward(
        self, batch: MicroBatch, vectors: PromptVectors, rows: Sequence[TokenisedExample], columns: C
    ) -> Scores:
        """Returns the scores `[N, K]` of the batch's pairs."""
        inputs, positions = self._body_inputs(batch, vectors, rows)
        scores: Scores = self._score_inputs(inputs, positions, columns).cpu().numpy()
        return scores

    def _body_inputs(
        self, batch: MicroBatch, vectors: PromptVectors, rows: Sequence[TokenisedExample]
    ) -> tuple[Tensor, Tensor]:
        """Returns the body's inputs `[N', T, D]`, with copies after the batch's N pairs, and the positions `[N]`."""
        inputs = self._injector.first_layer_inputs(vectors, batch, rows)  # [N, T, D]
        count, tokens, _ = inputs.shape
        by_row = {row: vectors.read_position(rows[row], tokens) for row in set(batch.rows.tolist())}
        # Uploaded before the body is launched: on a GPU, a later upload would wait until the body has finished.
        positions = upload([by_row[row] for row in batch.rows.tolist()], inputs.device)
        if count * tokens < FEWEST_TOKENS:
            inputs = inputs.repeat(copies_to_fill(count * tokens), 1, 1)
        return inputs, positions

    def _score_inputs(self, inputs: Tensor, positions: Tensor, columns: C) -> Tensor:
        """Returns the scores `[N, K]` of the first N of `inputs` `[N', T, D]` at `positions` `[N]`."""
        return self._score_hidden(self._model.run_body(inputs)[: len(positions)], positions, columns)

    def _explore(self, vectors: Tensor) -> None:
        """Finds out by experiment how the split model can be used, with the vectors `[1, T, D]` of a long input."""
        return

    def _both_scores(self, probe: Probe, output: Tensor) -> tuple[Tensor, Tensor] | None:
        """Returns the scores `[K]` of the self-test's input by the parts, and those in the whole model's output.

        None if this model does not take such label words, or no second texts.
        """
        columns = self._self_test_columns(probe.words)
        if columns is None:
            return None
        vectors = PromptVectors([self._injector.embed_tokens(probe.prompt)], in_front=False)
        try:
            ours = torch.from_numpy(self._score_all(vectors, [probe.row], columns)[0, 0])
        except InvalidExamples:  # the model takes no second texts, and says so to whoever sends one
            return None
        return ours, self._score_output(output, columns).cpu()

    def _both_scores_of_vectors(self, self_test: SelfTest) -> tuple[Tensor, Tensor]:
        """Does the same for the self-test's vectors that are no word's."""
        vectors, columns = self_test.vectors, self._self_test_columns(self_test.words)
        assert columns is not None, "every family scores label words of one token"
        last = torch.tensor([vectors.shape[1] - 1], device=vectors.device)
        ours = self._score_inputs(self._model.apply_embedding_block(vectors), last, columns)[0]
        return ours, self._score_output(self_test.output_of_vectors, columns)

    def _self_test_columns(self, words: LabelTokens) -> C | None:
        """Returns the columns that the self-test compares: those of label words, if the family's classes are words."""
        return self._probe_columns()

    def _score_output(self, output: Tensor, columns: C) -> Tensor:
        """Returns the scores `[K]` in a whole model's output: for models without a head, hidden states `[T, D]`."""
        return self._score_hidden(output[None], torch.tensor([len(output) - 1], device=output.device), columns)[0]

    def _measure_noise(self, count: int) -> float:
        """Returns the standard deviation of the difference between the scores of pairs alone and in batches.

        `count`: lengths of inputs that are measured.
        """
        rng = seeds.rng(0, "score-noise")
        columns = self._noise_columns()
        first = min(FEWEST_TOKENS, self._card.max_tokens // 3)
        longest = min(40, self._card.max_tokens - first - self._extra_tokens(columns))
        lengths = rng.integers(1, longest + 1, count).repeat(2)
        ids = [tuple(rng.integers(0, self._model.word_embeddings.num_embeddings, n).tolist()) for n in lengths]
        # Prompts join alternately before and after the text.
        rows = [TokenisedExample(row, 0, len(row) * (i % 2), None, 0) for i, row in enumerate(ids)]
        with torch.inference_mode():
            vectors = list(random_vectors(self._model.word_embeddings, 3, first))
            batched = self._score_all(PromptVectors(vectors, in_front=False), rows, columns)
            alone = np.array(
                [
                    [self._score_all(PromptVectors([v], in_front=False), [row], columns)[0, 0] for row in rows]
                    for v in vectors
                ]
            )
        return float(np.std(batched - alone))

    def _first_layer_probe(self, count: int, tokens: int) -> Tensor:
        """Returns random inputs of the first layer, `[count, tokens, D]`; fewer tokens if the model takes fewer."""
        tokens = min(tokens, self._card.max_tokens)
        return self._model.apply_embedding_block(random_vectors(self._model.word_embeddings, count, tokens))

    def _seconds_per_batch(self, tokens: int) -> float:
        """Measures a micro-batch of about `tokens` tokens, from its prompts to its scores."""
        length = min(128, self._card.max_tokens)
        count, front = max(1, tokens // length), length // 2
        columns, rows = self._probe_columns(), [TokenisedExample((0,) * (length - front), 0, 0, None, 0)]
        batch = MicroBatch(np.arange(count), np.zeros(count, np.int64), count * length)
        with torch.inference_mode():
            vectors = PromptVectors(list(random_vectors(self._model.word_embeddings, count, front)))

            def forward() -> float:
                started = perf_counter()
                self._forward(batch, vectors, rows, columns)
                return perf_counter() - started

            return min([forward() for _ in range(6)][2:])  # the first two warm up

    def _score_all(self, vectors: PromptVectors, rows: Sequence[TokenisedExample], columns: C) -> Scores:
        """Returns the scores of all pairs, `[P, B, K]`."""
        job = self._job(vectors, rows, columns, np.ones((len(vectors.each), len(rows)), bool))
        parts = [job.run(batch) for batch in job.batches]
        scores = np.empty((len(vectors.each), len(rows), parts[0].shape[1]), np.float32)
        for batch, part in zip(job.batches, parts, strict=True):
            scores[batch.prompts, batch.rows] = part
        return scores

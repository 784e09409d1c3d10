"""What all families share: prompts join inputs as embeddings, and pairs of one length run through the body together.

A pair's scores are the same bits alone and in company, whatever `threads` is:

- Each micro-batch runs on one thread, so that no kernel splits its rows by their number; `threads` micro-batches run side
  by side.
- A matrix product of less than four rows takes another kernel than larger ones: small micro-batches are filled up with
  copies (`FEWEST_TOKENS`).
- What comes behind the body, where a pair is one row, is computed pair by pair.

Whether this holds on the machine at hand is measured at the start: `score_noise`.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions as BodyOutput

from fedbbpt.errors import InvalidTensor
from fedbbpt.prompts.projection import project
from fedbbpt.ptm.backends.checkpoint import Checkpoint
from fedbbpt.ptm.backends.encoding import Encoder, Row
from fedbbpt.ptm.planner import MicroBatch, plan
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
C = TypeVar("C")


class Transformer(ABC, Generic[C]):
    """Implements interfaces.Backend for one family; C is what the family makes of a task's classes.

    `token_budget` bounds a micro-batch: on a CPU, larger ones leave the caches and gain nothing.
    """

    family: str
    causal = False

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 1024) -> None:
        torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(threads or cpu_count() or 1, thread_name_prefix="forward")
        self._token_budget = token_budget
        self._max_tokens = checkpoint.max_tokens
        self._encoder = Encoder(checkpoint.tokenizer, checkpoint.max_tokens, causal=self.causal)
        self._tokenizer = checkpoint.tokenizer
        self._model = checkpoint.model
        self._embedding = checkpoint.model.get_input_embeddings()
        self._std = float(self._embedding.weight.std())
        self._card = ModelCard(
            model=checkpoint.name,
            revision=checkpoint.revision,
            family=self.family,
            prompt_kinds=frozenset(PromptKind),
            injections=frozenset({Injection.PREFIX}),
            max_tokens=checkpoint.max_tokens,
            max_prompts=256,
            max_examples=10_000,
            max_message_bytes=16 * 1024 * 1024,
            embedding_width=self._embedding.embedding_dim,
            score_noise=0.0,
        )
        self._prepare_model()
        self._noise = self._measure_noise()

    def _prepare_model(self) -> None:
        """What a family changes of the model once it is loaded."""

    @abstractmethod
    def check(self, task: TaskSpec) -> None:
        """Raises InvalidTask."""

    @abstractmethod
    def _columns(self, task: TaskSpec) -> C:
        """What `_read` must know of the classes."""

    @abstractmethod
    def _probe_columns(self) -> C:
        """Of any two classes, to measure with."""

    @abstractmethod
    def _read(self, hidden: Tensor, position: int, columns: C) -> Tensor:
        """The scores `[K]` of one pair from its last hidden states `[T, D]`."""

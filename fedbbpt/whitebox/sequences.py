"""Examples as token sequences to train on: the filled template, followed by the label word of the example's class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from fedbbpt import seeds
from fedbbpt.ptm.models.text.encoding import ExampleEncoder
from fedbbpt.types import LabelledExamples, TaskSpec


@dataclass(frozen=True, slots=True)
class AnsweredExample:
    """A tokenised input followed by its answer."""

    ids: tuple[int, ...]
    answer: int
    """Index in `ids` at which the answer begins."""


@dataclass(frozen=True, slots=True)
class Batch:
    """N sequences, padded at their ends to `[N, T]`."""

    ids: Tensor
    valid: Tensor
    """bool: False for padding."""
    answer: Tensor
    """bool: True for tokens of the answer."""


def answered_examples(
    encoder: ExampleEncoder, task: TaskSpec, data: LabelledExamples, prompt_tokens: int
) -> tuple[AnsweredExample, ...]:
    """Tokenises examples exactly as the PTM service does (`ptm.models.text.causal_lm`), with the same truncation."""
    words = encoder.label_words(task)
    rows = encoder.encode(task, data.examples, prompt_tokens + max(map(len, words)) - 1, None)
    return tuple(
        AnsweredExample(row.ids + words[label], len(row.ids))
        for row, label in zip(rows, data.labels.tolist(), strict=True)
    )


def pad_batch(sequences: Sequence[AnsweredExample]) -> Batch:
    """Pads sequences to the longest of them."""
    longest = max(len(sequence.ids) for sequence in sequences)
    positions = torch.arange(longest)
    lengths = torch.tensor([len(sequence.ids) for sequence in sequences])[:, None]
    starts = torch.tensor([sequence.answer for sequence in sequences])[:, None]
    ids = torch.tensor([sequence.ids + (0,) * (longest - len(sequence.ids)) for sequence in sequences])
    valid = positions < lengths
    return Batch(ids, valid, valid & (positions >= starts))


def draw_batches(sequences: Sequence[AnsweredExample], size: int, seed: int) -> Iterator[Batch]:
    """Yields batches without end: one shuffled pass over all sequences after another."""
    waiting: list[int] = []
    for epoch in count():
        waiting += seeds.rng(seed, "batches", epoch).permutation(len(sequences)).tolist()
        while len(waiting) >= size or (len(waiting) >= len(sequences) and waiting):
            yield pad_batch([sequences[index] for index in waiting[:size]])
            waiting = waiting[size:]

"""Examples as token sequences to train on: the template's text, and behind it the words of the example's own class."""

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
    """A tokenised input with its answer, which is `ids` from `answer` on."""

    ids: tuple[int, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class Batch:
    """N sequences, filled up at their ends to `[N, T]`."""

    ids: Tensor
    valid: Tensor
    """bool: whether a token is a sequence's own."""
    answer: Tensor
    """bool: whether it is of the answer."""


def answered_examples(
    encoder: ExampleEncoder, task: TaskSpec, data: LabelledExamples, prompt_tokens: int
) -> tuple[AnsweredExample, ...]:
    """As the PTM service reads them (`ptm.backends.causal_lm`): the same tokens, cut to the same room."""
    words = encoder.label_words(task)
    rows = encoder.encode(task, data.examples, prompt_tokens + max(map(len, words)) - 1, None)
    return tuple(
        AnsweredExample(row.ids + words[label], len(row.ids))
        for row, label in zip(rows, data.labels.tolist(), strict=True)
    )


def pad_batch(sequences: Sequence[AnsweredExample]) -> Batch:
    longest = max(len(sequence.ids) for sequence in sequences)
    place = torch.arange(longest)
    lengths = torch.tensor([len(sequence.ids) for sequence in sequences])[:, None]
    starts = torch.tensor([sequence.answer for sequence in sequences])[:, None]
    ids = torch.tensor([sequence.ids + (0,) * (longest - len(sequence.ids)) for sequence in sequences])
    there = place < lengths
    return Batch(ids, there, there & (place >= starts))


def draw_batches(sequences: Sequence[AnsweredExample], size: int, seed: int) -> Iterator[Batch]:
    """Without end: one shuffled pass over all after the other."""
    waiting: list[int] = []
    for passing in count():
        waiting += seeds.rng(seed, "batches", passing).permutation(len(sequences)).tolist()
        while len(waiting) >= size or (len(waiting) >= len(sequences) and waiting):
            yield pad_batch([sequences[index] for index in waiting[:size]])
            waiting = waiting[size:]

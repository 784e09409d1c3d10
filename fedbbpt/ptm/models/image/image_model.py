"""Base of all image models: a prompt is added to the pixels, and each pair runs alone.

A pair's scores are therefore bit-identical in any batch. On a CPU batches gain little: a ResNet-20 takes as long for a
single image as for each of 32. `threads` pairs run in parallel, each on one thread. This module does not import torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from os import cpu_count
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.errors import InvalidTensor
from fedbbpt.interfaces import ScoringJob
from fedbbpt.limits import MAX_EXAMPLES, MAX_MESSAGE_BYTES, MAX_PROMPTS
from fedbbpt.ptm.scheduling.planner import PlannedJob
from fedbbpt.types import (
    Examples,
    ImagePrompts,
    MicroBatch,
    ModelCard,
    Perturbation,
    Precision,
    PromptKind,
    Prompts,
    Scores,
    TaskSpec,
)
from fedbbpt.types.digests import digest

Image: TypeAlias = npt.NDArray[np.uint8]
Pixels: TypeAlias = npt.NDArray[np.float32]
"""`[C, H, W]`, from 0 to 1."""
C = TypeVar("C")

PAIRS_PER_BATCH = 16
"""Pairs of a micro-batch, which is the unit in which a call can be cancelled."""


def as_pixels(image: Image) -> Pixels:
    """Scales an image to 0 to 1."""
    return image.astype(np.float32) / np.float32(255)


class ImageModel(ABC, Generic[C]):
    """Implements interfaces.Backend. A prepared example is an image `[C, H, W]`; C is a model's form of the classes."""

    family: str
    hidden_size = 0

    def __init__(
        self,
        name: str,
        revision: str,
        shape: tuple[int, int, int],
        *,
        labels: tuple[str, ...] = (),
        threads: int = 0,
    ) -> None:
        """Measures the noise of scores, so subclasses call this after they have set what `_score_image` needs."""
        self.threads = threads or cpu_count() or 1
        self._card = ModelCard(
            model=name,
            revision=revision,
            family=self.family,
            prompt_kinds=frozenset({PromptKind.IMAGE}),
            injections=frozenset(),
            max_tokens=shape[1] * shape[2],
            max_prompts=MAX_PROMPTS,
            max_examples=MAX_EXAMPLES,
            max_message_bytes=MAX_MESSAGE_BYTES,
            embedding_width=0,
            score_noise=0.0,
            image_shape=shape,
            labels=labels,
            precision=Precision.FLOAT32,
        )
        self._card = replace(self._card, score_noise=self._measure_noise(shape))

    @abstractmethod
    def check(self, task: TaskSpec) -> None:
        """Raises InvalidTask if the model cannot score the task."""

    @abstractmethod
    def _columns(self, task: TaskSpec) -> C:
        """Returns the classes in the form that `_score_image` takes."""

    @abstractmethod
    def _probe_columns(self) -> C:
        """Returns the columns of arbitrary classes, for measurements."""

    @abstractmethod
    def _score_image(self, image: Pixels, columns: C) -> Scores:
        """Returns the scores `[K]` of an image."""

    def describe(self) -> ModelCard:
        return self._card

    def columns(self, task: TaskSpec) -> tuple[tuple[str, ...], ...]:
        return tuple((text,) for text in task.classes)

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[Image]:
        return list(examples.pixels())

    def tokens(self, row: Image) -> int:
        """Counts each pixel as a token."""
        return int(row.shape[1] * row.shape[2])

    def identity(self, row: Image) -> bytes:
        return digest(str(row.shape), row.tobytes())

    def job(self, task: TaskSpec, prompts: Prompts, rows: Sequence[Image], wanted: npt.NDArray[np.bool_]) -> ScoringJob:
        if not isinstance(prompts, ImagePrompts):
            raise prompts.unsupported()
        deltas = prompts.deltas
        if deltas.shape[1] not in (1, len(rows)):
            fix = f"one for each of the {len(rows)} examples, or one for all"
            raise InvalidTensor(f"a prompt has {deltas.shape[1]} pictures", where="image.deltas", fix=fix)
        columns = self._columns(task)

        def run(batch: MicroBatch) -> Scores:
            pairs = zip(batch.prompts, batch.rows, strict=True)
            return np.stack(
                [self._score_pair(rows[b], deltas[p, min(b, deltas.shape[1] - 1)], columns) for p, b in pairs]
            )

        pairs = np.argwhere(wanted)
        parts = [pairs[start : start + PAIRS_PER_BATCH] for start in range(0, len(pairs), PAIRS_PER_BATCH)]
        batches = [MicroBatch(part[:, 0], part[:, 1], len(part) * self._card.max_tokens) for part in parts]
        return PlannedJob(tuple(batches), run)

    def _score_pair(self, image: Image, delta: npt.NDArray[np.float32], columns: C) -> Scores:
        """Returns the scores `[K]` of x' = clip(x + delta)."""
        return self._score_image(np.clip(as_pixels(image) + delta, 0, 1), columns)

    def _measure_noise(self, shape: tuple[int, int, int]) -> float:
        """Returns the standard deviation of the difference between the scores of pairs in one order and in another."""
        images = list(seeds.rng(0, "score-noise").integers(0, 256, (4, *shape), np.uint8))
        no_prompt, columns = np.zeros(shape, np.float32), self._probe_columns()
        forwards = np.stack([self._score_pair(image, no_prompt, columns) for image in images])
        backwards = np.stack([self._score_pair(image, no_prompt, columns) for image in reversed(images)])[::-1]
        return float(np.std(forwards - backwards))

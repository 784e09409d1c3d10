"""Keeps a PTM's scores of text prompts, so that experiments with the same examples ask no pair twice."""

from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fedbbpt.host.files import atomic_write
from fedbbpt.interfaces import Ptm
from fedbbpt.types import (
    Examples,
    ExamplesHandle,
    ModelCard,
    Perturbation,
    Prompts,
    Scored,
    TaskSpec,
    TextPrompts,
    Usage,
)
from fedbbpt.types.digests import SIZE, digest

Kept: TypeAlias = dict[bytes, npt.NDArray[np.float32]]
BATCH = 256
"""Most examples between two writes of the file."""


class KeptScores:
    """A `Ptm` that asks another one for the pairs of text prompts and unperturbed examples that it has not kept.

    All other calls are passed on. `kept` has the scores by the digest of their pair, and several objects for PTMs with
    the same model can share it. With a `path`, all scores are written into a file too, the digest of each pair followed
    by its scores in float32, and an experiment that was interrupted continues.
    """

    def __init__(self, ptm: Ptm, kept: Kept, path: Path | None = None) -> None:
        self._ptm, self._kept, self._path = ptm, kept, path
        self._handles: dict[str, tuple[str, Examples, int, list[bytes]]] = {}
        if path is not None and path.exists():
            self._read(path.read_bytes())

    def describe(self) -> ModelCard:
        return self._ptm.describe()

    def register_task(self, task: TaskSpec) -> str:
        return self._ptm.register_task(task)

    def label_tokens(self, task: TaskSpec) -> tuple[int, ...]:
        return self._ptm.label_tokens(task)

    def register_examples(
        self,
        task_id: str,
        examples: Examples,
        prompt_tokens: int,
        perturbation: Perturbation | None = None,
        labels: npt.NDArray[np.int64] | None = None,
    ) -> ExamplesHandle:
        handle = self._ptm.register_examples(task_id, examples, prompt_tokens, perturbation, labels)
        if perturbation is None and labels is None:
            rows = [digest(task_id, prompt_tokens, row) for row in examples.digests()]
            self._handles[handle.id] = task_id, examples, prompt_tokens, rows
        return handle

    def score(self, examples_id: str, prompts: Prompts) -> Scored:
        if not isinstance(prompts, TextPrompts) or examples_id not in self._handles:
            return self._ptm.score(examples_id, prompts)
        task_id, examples, room, rows = self._handles[examples_id]
        pairs = [[digest(prompt, row) for row in rows] for prompt in prompts.digests()[:, 0]]
        last: Scored | None = None
        for index, mine in enumerate(pairs):
            missing = np.array([row for row, pair in enumerate(mine) if pair not in self._kept], np.int64)
            for part in np.array_split(missing, -(-len(missing) // BATCH)) if len(missing) else []:
                handle = self._ptm.register_examples(task_id, examples.take(part), room)
                last = self._ptm.score(handle.id, prompts.take([index]))
                self._ptm.release(handle.id)
                self._kept |= {mine[row]: scores for row, scores in zip(part, last.scores[0], strict=True)}
                self._write()
        found = np.array([[self._kept[pair] for pair in mine] for mine in pairs], np.float32)
        card = self.describe()
        return last_answer(card, found) if last is None else Scored(last.output, found, last.revision, last.usage)

    def release(self, examples_id: str) -> None:
        self._handles.pop(examples_id, None)
        self._ptm.release(examples_id)

    def usage(self) -> Usage:
        return self._ptm.usage()

    def _write(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        parts = [pair + len(scores).to_bytes(4, "little") + scores.tobytes() for pair, scores in self._kept.items()]
        atomic_write(self._path, b"".join(parts))

    def _read(self, data: bytes) -> None:
        place = 0
        while place < len(data):
            pair, place = data[place : place + SIZE], place + SIZE
            width, place = int.from_bytes(data[place : place + 4], "little"), place + 4
            self._kept[pair], place = np.frombuffer(data, np.float32, width, place), place + 4 * width


def last_answer(card: ModelCard, scores: npt.NDArray[np.float32]) -> Scored:
    """Returns kept scores as an answer that used nothing."""
    return Scored(card.output, scores, card.revision, Usage())

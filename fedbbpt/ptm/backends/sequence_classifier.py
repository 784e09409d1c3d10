"""Sequence classifiers: the logits of the labels that the model was trained with."""

from dataclasses import replace

import torch
from torch import Tensor

from fedbbpt.errors import InvalidTask
from fedbbpt.ptm.backends.checkpoint import Checkpoint
from fedbbpt.ptm.backends.transformer import Transformer
from fedbbpt.ptm.template import forbid_mask, parse
from fedbbpt.types import TaskSpec


class SequenceClassifier(Transformer[list[int]]):
    """The classes of a task are labels of the model, by name, in any order."""

    family = "sequence-classifier"

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 0) -> None:
        config = checkpoint.model.config
        self._labels = {str(label): index for index, label in config.id2label.items()}
        # Inputs are never padded; a model that looks for padding would look in vain, and say so.
        config.pad_token_id = None
        super().__init__(checkpoint, threads=threads, token_budget=token_budget)
        self._card = replace(self._card, labels=tuple(self._labels))

    def check(self, task: TaskSpec) -> None:
        forbid_mask(parse(task))
        if unknown := [label for label in task.classes if label not in self._labels]:
            raise InvalidTask(f"the model has no labels {unknown}", where="classes", fix=f"of {sorted(self._labels)}")

    def _columns(self, task: TaskSpec) -> list[int]:
        return [self._labels[label] for label in task.classes]

    def _probe_columns(self) -> list[int]:
        return [0, len(self._labels) - 1]

    def _read(self, hidden: Tensor, positions: Tensor, columns: list[int]) -> Tensor:
        """Pair by pair: a causal model's head takes several only where it finds their ends by padding."""
        return torch.cat([self._parts.head(inputs_embeds=one[None]).logits[:, columns] for one in hidden])

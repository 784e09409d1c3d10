"""Sequence classifiers: a class scores by the logit of a label that the model was trained with."""

from contextlib import suppress
from dataclasses import replace

import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from torch import Tensor

from fedbbpt.errors import InvalidInput, InvalidTask
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.template import forbid_mask, parse
from fedbbpt.ptm.models.text.agreement import difference
from fedbbpt.ptm.models.text.transformer import FEWEST_TOKENS, LabelTokens, Transformer, copies_to_fill
from fedbbpt.types import TaskSpec


class SequenceClassifier(Transformer[list[int]]):
    """The classes of a task are labels of the model, by name, in any order."""

    family = "sequence-classifier"
    _read_position: int | None = None
    """Position of the one hidden state that the head reads; None if it reads all."""
    _batched = False
    """True if the head takes several inputs at once. Some heads look for the ends of inputs by their padding."""

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 0) -> None:
        config = checkpoint.model.config
        if config.num_labels < 2 or config.problem_type not in (None, "single_label_classification"):
            kind = config.problem_type or "one output, a number"
            what = f"the model does not choose one of several classes: its config states {kind}"
            raise InvalidInput(what, where=checkpoint.name, fix="a classifier that was trained with one label per text")
        names = [str(label) for label in config.id2label.values()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            what = f"several labels are called {twice[0]!r} in id2label"
            raise InvalidInput(what, where=f"{checkpoint.name}: config.json", fix="a different name for each label")
        if sorted(config.id2label) != list(range(len(names))):
            what = f"id2label numbers the labels {sorted(config.id2label)}"
            raise InvalidInput(what, where=f"{checkpoint.name}: config.json", fix=f"the numbers 0 to {len(names) - 1}")
        self._labels = {str(label): index for index, label in config.id2label.items()}
        super().__init__(checkpoint, threads=threads, token_budget=token_budget)
        self._card = replace(self._card, labels=tuple(self._labels))

    def check(self, task: TaskSpec) -> None:
        forbid_mask(parse(task))
        if unknown := [label for label in task.classes if label not in self._labels]:
            raise InvalidTask(
                f"the model has no labels {unknown}", where="classes", fix=f"labels among {sorted(self._labels)}"
            )

    def _columns(self, task: TaskSpec) -> list[int]:
        return [self._labels[label] for label in task.classes]

    def _probe_columns(self) -> list[int]:
        return [0, len(self._labels) - 1]

    def _self_test_columns(self, words: LabelTokens) -> list[int]:
        return list(range(len(self._labels)))

    def _score_output(self, output: Tensor, columns: list[int]) -> Tensor:
        return output[columns]

    def _explore(self, vectors: Tensor) -> None:
        """Finds out which hidden states the head reads, and whether it takes several inputs."""
        with suppress(StrictDataclassFieldValidationError):  # raised by configs that require a padding token
            # Inputs are never padded. A head that knows a padding token would look for it and warn that there is none.
            self._model.head.config.pad_token_id = None
        hidden = self._model.run_body(self._model.apply_embedding_block(vectors))
        logits = self._logits(hidden)
        self._read_position = next(
            (position for position in (0, -1) if difference(self._logits(hidden[:, [position]]), logits) is None), None
        )
        if self._read_position is not None:
            with suppress(ValueError):
                several = self._logits(hidden[:, [self._read_position]].repeat(FEWEST_TOKENS, 1, 1))
                self._batched = difference(several, logits.expand_as(several)) is None

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._model.head(inputs_embeds=hidden).logits
        return logits

    def _score_hidden(self, hidden: Tensor, positions: Tensor, columns: list[int]) -> Tensor:
        states = hidden if self._read_position is None else hidden[:, [self._read_position]]
        if not self._batched:
            return torch.cat([self._logits(one[None]) for one in states])[:, columns]
        copies = copies_to_fill(len(states))
        return self._logits(states.repeat(copies, 1, 1))[: len(states), columns]

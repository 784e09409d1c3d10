"""What may leave: the same scores as logits, log-probabilities, classes, or one loss for all examples of a handle.

LOSS_ONLY needs more than withholding scores. A loss over one example, asked for with each label in turn, is its row of
log-probabilities; two handles that differ in one example or label give it by subtraction. So a handle has to hold
several different inputs, and an input keeps the label that it first came with.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidExamples, PolicyForbids
from fedbbpt.types import Array, Output, Scores

MAX_ROWS = 1_000_000
"""Whose labels are remembered for a tenant."""


def answer(output: Output, scores: Scores, labels: npt.NDArray[np.int64] | None) -> Array:
    """What a caller gets of `[P, B, K]`: see interfaces.Scored."""
    if output is Output.LABEL_LOGITS:
        return scores
    if output is Output.LABEL_ARGMAX:
        choices: Array = scores.argmax(axis=2).astype(np.int32)
        return choices
    logs = _log_softmax(scores)
    if output is Output.LABEL_LOGPROBS:
        return logs.astype(np.float32)
    assert labels is not None, "LabelBook has seen to it"
    chosen = logs[:, np.arange(len(labels)), labels]
    # One by one: the mean over an axis of several rows adds in another order.
    return -np.array([row.mean() for row in np.ascontiguousarray(chosen)])


def _log_softmax(scores: Scores) -> npt.NDArray[np.float64]:
    shifted = scores.astype(np.float64) - scores.max(axis=2, keepdims=True)
    logs: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
    return logs


def check_labels(output: Output, labels: npt.NDArray[np.int64] | None, classes: int) -> None:
    """Labels come where they are needed, and nowhere else. Raises InvalidExamples."""
    if output is not Output.LOSS_ONLY:
        if labels is not None:
            raise InvalidExamples(f"labels, and the answer is {output}", where="label", fix="keep them")
        return
    if labels is None:
        raise InvalidExamples("no labels, and the answer is a loss", where="label", fix="the class of each example")
    if not ((labels >= 0) & (labels < classes)).all():
        raise InvalidExamples("a label outside the task", where="label", fix=f"0 to {classes - 1}")


class LabelBook:
    """The labels with which a tenant's inputs came first, by task."""

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._labels: dict[tuple[str, bytes], int] = {}

    def enter(self, task_id: str, inputs: Sequence[bytes], labels: npt.NDArray[np.int64], min_examples: int) -> None:
        """All of a handle, by the digests of its inputs, or none. Raises PolicyForbids."""
        if len(set(inputs)) < min_examples:
            what = f"{len(set(inputs))} different examples"
            raise PolicyForbids(what, where="examples", fix=f"at least {min_examples}, since the answer is a loss")
        new: dict[tuple[str, bytes], int] = {}
        for row, (name, label) in enumerate(zip(inputs, labels.tolist(), strict=True)):
            known = self._labels.get((task_id, name), new.setdefault((task_id, name), label))
            if known != label:
                fix = "the label that it came with first"
                raise PolicyForbids("an input with another label", where=f"examples[{row}].label", fix=fix)
        if len(self._labels) + len(new.keys() - self._labels.keys()) > self._max_rows:
            raise PolicyForbids(f"more than {self._max_rows} different examples", where="examples", fix="known ones")
        self._labels |= new

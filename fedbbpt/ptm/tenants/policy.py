"""What may leave: the same scores as logits, log-probabilities, classes, or one loss for all examples of a handle.

LOSS_ONLY needs more than withholding scores. A loss over one example, asked for with each label in turn, is its row of
log-probabilities; two handles that differ in one example or label give it by subtraction. So a handle has to hold
several inputs that differ for the model and of which none weighs much more than the others, an input keeps the label
that it first came with, and, where the tenant's `overlaps` is false, two handles differ in no input or in several.
docs/threat-model.md says what this cannot prevent.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidExamples, PolicyForbids
from fedbbpt.ptm.digests import digest
from fedbbpt.ptm.tenants.registry import Tenant
from fedbbpt.types import Array, ImagePrompts, Output, Prompts, Scores

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


def check_pictures(tenant: Tenant, prompts: Prompts) -> None:
    """Losses of pictures that differ in one example would tell of that one alone. Raises PolicyForbids."""
    apart = tenant.output is Output.LOSS_ONLY and not tenant.overlaps
    if apart and isinstance(prompts, ImagePrompts) and prompts.deltas.shape[1] > 1:
        what, fix = "a picture for each example", "one for all, since the answer is a loss"
        raise PolicyForbids(what, where="image.deltas", fix=fix)


@dataclass(slots=True)
class _Input:
    label: str
    times: int
    """How often a handle holds it."""
    group: int


class LabelBook:
    """What a tenant has registered where it gets losses, by what the model reads.

    Inputs that came in the same handles, all equally often, are a group. A loss is the mean over whole groups, and what
    is made of losses by adding and subtracting weighs a group's inputs alike: while no group is small, none of them can
    be singled out.
    """

    def __init__(self, min_examples: int, *, overlaps: bool, max_rows: int = MAX_ROWS) -> None:
        """`overlaps`: whether handles may leave small groups."""
        self._min_examples, self._overlaps, self._max_rows = min_examples, overlaps, max_rows
        self._known: dict[bytes, _Input] = {}
        self._sizes: Counter[int] = Counter()
        self._groups = count()

    def enter(self, columns: bytes, rows: Sequence[bytes], labels: Sequence[str]) -> None:
        """All of a handle, or none: the identities of its rows, and each one's class. Raises PolicyForbids.

        `columns` names what of the model the task's classes are: under another task of the same ones a row is the same.
        """
        names = [digest(columns, row) for row in rows]
        times = Counter(names)
        new: dict[int, int] = defaultdict(lambda: next(self._groups))
        """Groups, by how often the handle holds their inputs."""
        # So many equally frequent ones would weigh as these do (Kish's effective sample size).
        alike = len(names) ** 2 / sum(often * often for often in times.values())
        if alike < self._min_examples:
            weight = "" if alike == len(times) else f" that weigh as {alike:.1f} do"
            fix = f"at least {self._min_examples}, since the answer is a loss"
            raise PolicyForbids(f"{len(times)} different examples{weight}", where="examples", fix=fix)
        came: dict[bytes, _Input] = {}
        for row, (name, label) in enumerate(zip(names, labels, strict=True)):
            entry = came.setdefault(name, self._known.get(name) or _Input(label, times[name], new[times[name]]))
            if entry.label != label:
                fix = "the label that it came with first"
                raise PolicyForbids("an input with another label", where=f"examples[{row}].label", fix=fix)
            if entry.times != times[name] and not self._overlaps:
                fix = f"{entry.times}, as at first, or none"
                raise PolicyForbids(f"an input {times[name]} times", where=f"examples[{row}]", fix=fix)
        if len(self._known.keys() | came.keys()) > self._max_rows:
            raise PolicyForbids(f"more than {self._max_rows} different examples", where="examples", fix="known ones")
        if not self._overlaps:
            self._check_groups(names, came, new.values())
        self._part(came, new.values())

    def _check_groups(self, names: Sequence[bytes], came: Mapping[bytes, _Input], new: Collection[int]) -> None:
        """That the handle makes no small one."""
        for group, inside in Counter(entry.group for entry in came.values()).items():
            outside = self._sizes[group] - inside
            if (inside if group in new else min(inside, outside or inside)) < self._min_examples:
                row = next(row for row, name in enumerate(names) if came[name].group == group)
                what = f"{inside} new inputs" if group in new else f"{inside} of {inside + outside} known inputs"
                fix = f"a handle that differs from earlier ones in none, or in at least {self._min_examples}"
                raise PolicyForbids(what, where=f"examples[{row}]", fix=fix)

    def _part(self, came: Mapping[bytes, _Input], new: Collection[int]) -> None:
        """What is in a group and in the handle becomes a group of its own."""
        found = Counter(entry.group for entry in came.values())
        moves = {group: next(self._groups) for group, inside in found.items() if inside < self._sizes[group]}
        for group, target in moves.items():
            self._sizes[group] -= found[group]
            self._sizes[target] = found[group]
        for entry in came.values():
            entry.group = moves.get(entry.group, entry.group)
        self._sizes |= {group: found[group] for group in new}
        self._known |= came

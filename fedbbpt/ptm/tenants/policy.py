"""Output policies: a tenant gets logits, log-probabilities, classes, or one mean loss over the examples of a handle.

For LOSS_ONLY it is not enough to withhold scores. The losses of one example with each label in turn are its row of
log-probabilities, and two handles that differ in one example or label reveal it by subtraction. Therefore

- a handle must hold several inputs that differ for the model, none of which weighs much more than the others;
- an input keeps the label with which it was registered first;
- if the tenant's `overlaps` is false, two handles differ in no input or in several, and an input keeps its label in
  every task.

An input is its text, whatever the template around it: one that is known under one task is known under all.

docs/threat-model.md lists what these rules cannot prevent.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidExamples, PolicyForbids
from fedbbpt.limits import MAX_LABELLED_INPUTS
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.types import Array, ExampleKind, Examples, Output, Prompts, Scores, TaskSpec
from fedbbpt.types.digests import digest


def answer(output: Output, scores: Scores, labels: npt.NDArray[np.int64] | None) -> Array:
    """Returns the answer for scores `[P, B, K]` and labels `[B]`, in the shape that `types.Scored` describes."""
    if output is Output.LABEL_LOGITS:
        return scores
    if output is Output.LABEL_ARGMAX:
        choices: Array = scores.argmax(axis=2).astype(np.int32)
        return choices
    logs = _log_softmax(scores)
    if output is Output.LABEL_LOGPROBS:
        return logs.astype(np.float32)
    assert labels is not None, "LOSS_ONLY requires labels when examples are registered"
    chosen = logs[:, np.arange(len(labels)), labels]
    # Row by row, because numpy adds in another order when it reduces several rows at once.
    return -np.array([row.mean() for row in np.ascontiguousarray(chosen)])


def marks(output: Output, scores: Scores, bounds: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    """Returns which elements of the answer rest on a bound, as ptm.proto defines it; None if none does.

    `bounds` `[P, B, K]` says which scores are upper bounds.
    """
    marked = bounds
    if output is Output.LABEL_ARGMAX:
        marked = np.take_along_axis(bounds, scores.argmax(axis=2, keepdims=True), axis=2)[:, :, 0]
    elif output is Output.LOSS_ONLY:
        marked = np.asarray(bounds.any(axis=(1, 2)))
    return marked if marked.any() else None


def _log_softmax(scores: Scores) -> npt.NDArray[np.float64]:
    shifted = scores.astype(np.float64) - scores.max(axis=2, keepdims=True)
    logs: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
    return logs


def check_labels(output: Output, labels: npt.NDArray[np.int64] | None, classes: int) -> None:
    """Checks labels `[B]`, which must be given for LOSS_ONLY and for no other output.

    Raises:
        InvalidExamples: Labels are missing, are given without need, or are not in 0 to `classes` - 1.
    """
    if output is not Output.LOSS_ONLY:
        if labels is not None:
            raise InvalidExamples(f"labels, but the output is {output}", where="label", fix="no labels")
        return
    if labels is None:
        raise InvalidExamples("no labels, but the output is a loss", where="label", fix="the class of each example")
    if not ((labels >= 0) & (labels < classes)).all():
        raise InvalidExamples("a label outside the task", where="label", fix=f"0 to {classes - 1}")


def check_pictures(tenant: Tenant, prompts: Prompts) -> None:
    """Raises PolicyForbids for a picture per example if that could reveal the loss of a single example."""
    must_share = tenant.output is Output.LOSS_ONLY and not tenant.overlaps
    if must_share and prompts.per_example:
        what, fix = "a picture for each example", "one for all examples, because the output is a loss"
        raise PolicyForbids(what, where="image.deltas", fix=fix)


@dataclass(frozen=True, slots=True)
class Row:
    """What identifies an input of a handle: rows that share one of these are the same input."""

    read: bytes
    """A digest of the tokens that the model reads, as `Backend.identity` returns it."""
    contents: tuple[bytes, ...]
    """Digests of the text, and of the text with the template's own words: a word may stand in either. Of a picture."""

    @staticmethod
    def of(task: TaskSpec, examples: Examples, read: Sequence[bytes]) -> "list[Row]":
        """Returns the rows of a handle. Texts that differ in case or white space only have the same contents."""
        if examples.kind is not ExampleKind.TEXTS:
            return [Row(each, (content,)) for each, content in zip(read, examples.digests(), strict=True)]
        blank = task.template.replace("{prompt}", " ").replace("{mask}", " ")
        filled = [blank.replace("{text}", text).replace("{text_pair}", second) for text, second in examples.text_pairs]
        plain = [f"{text} {second}" for text, second in examples.text_pairs]
        contents = [tuple(digest(_spelled(text)) for text in each) for each in zip(plain, filled, strict=True)]
        return [Row(*each) for each in zip(read, contents, strict=True)]


def _spelled(text: str) -> str:
    return " ".join(text.casefold().split())


@dataclass(slots=True)
class _Input:
    label: str
    times: int
    """Number of times that each handle with this input holds it."""
    group: int
    """Number of its group; see LabelBook."""


class LabelBook:
    """The inputs that a LOSS_ONLY tenant has registered, with their labels.

    Texts that the model reads alike are one input, and so is a text that it reads differently under another task.

    Inputs that occur in the same handles, and equally often in each, form a group. A loss is a mean over whole groups,
    and any linear combination of losses weighs all inputs of a group alike. While every group is large enough, no
    single input can be isolated.
    """

    def __init__(self, min_examples: int, *, overlaps: bool, max_inputs: int = MAX_LABELLED_INPUTS) -> None:
        """`min_examples` is the smallest group, `overlaps` whether smaller groups are allowed after all."""
        self._min_examples, self._overlaps, self._max_inputs = min_examples, overlaps, max_inputs
        self._known: dict[bytes, _Input] = {}
        self._names: dict[bytes, bytes] = {}
        """The name in `_known` of each content, and of what the model read."""
        self._sizes: Counter[int] = Counter()
        self._groups = count()

    def enter(self, columns: bytes, rows: Sequence[Row], labels: Sequence[str]) -> None:
        """Enters all rows of a handle, or none.

        Args:
            columns: A digest of the task's columns in the model's output layer. If handles may overlap, an input may
                have another label in a task with other columns.
            rows: The rows `[B]`.
            labels: The class of each row `[B]`.

        Raises:
            PolicyForbids: The handle breaks a rule. Nothing is entered then.
        """
        names, found = self._named(columns if self._overlaps else b"", rows)
        times = Counter(names)
        # New groups, by how often the handle holds their inputs.
        new: dict[int, int] = defaultdict(lambda: next(self._groups))
        # Kish's effective sample size: this many equally frequent inputs would have the same weights.
        effective = len(names) ** 2 / sum(often * often for often in times.values())
        if effective < self._min_examples:
            weight = "" if effective == len(times) else f" that weigh like {effective:.1f}"
            fix = f"at least {self._min_examples}, because the output is a loss"
            raise PolicyForbids(f"{len(times)} different examples{weight}", where="examples", fix=fix)
        entries: dict[bytes, _Input] = {}
        for row, (name, label) in enumerate(zip(names, labels, strict=True)):
            entry = entries.setdefault(name, self._known.get(name) or _Input(label, times[name], new[times[name]]))
            if entry.label != label:
                fix = "the label with which it was registered first"
                raise PolicyForbids("an input with another label", where=f"examples[{row}].label", fix=fix)
            if entry.times != times[name] and not self._overlaps:
                fix = f"{entry.times} times, as in earlier handles, or not at all"
                raise PolicyForbids(f"an input {times[name]} times", where=f"examples[{row}]", fix=fix)
        if len(self._known.keys() | entries.keys()) > self._max_inputs:
            what = f"more than {self._max_inputs} different examples"
            raise PolicyForbids(what, where="examples", fix="examples that were registered before")
        if not self._overlaps:
            self._check_groups(names, entries, new.values())
        self._split_groups(entries, new.values())
        self._names |= found

    def _named(self, scope: bytes, rows: Sequence[Row]) -> tuple[list[bytes], dict[bytes, bytes]]:
        """Returns the name of each row's input, and the names that were not known."""
        names: list[bytes] = []
        new: dict[bytes, bytes] = {}
        for index, row in enumerate(rows):
            keys = digest(scope, "read", row.read), *(digest(scope, "content", content) for content in row.contents)
            known = [name for key in keys if (name := self._names.get(key) or new.get(key))]
            if len(set(known)) > 1 and not self._overlaps:
                what = "an input that the model reads like another one, from which it was told apart before"
                raise PolicyForbids(what, where=f"examples[{index}]", fix="one of both, or as many tokens for prompts")
            names.append(known[0] if known else keys[1])
            new |= {key: names[-1] for key in keys if key not in self._names}
        return names, new

    def _check_groups(self, names: Sequence[bytes], entries: Mapping[bytes, _Input], new: Collection[int]) -> None:
        """Raises PolicyForbids if the handle would create a group of fewer than `min_examples` inputs."""
        for group, inside in Counter(entry.group for entry in entries.values()).items():
            outside = self._sizes[group] - inside
            if (inside if group in new else min(inside, outside or inside)) < self._min_examples:
                row = next(row for row, name in enumerate(names) if entries[name].group == group)
                what = f"{inside} new inputs" if group in new else f"{inside} of {inside + outside} known inputs"
                fix = f"a handle that differs from earlier ones in no input, or in at least {self._min_examples}"
                raise PolicyForbids(what, where=f"examples[{row}]", fix=fix)

    def _split_groups(self, entries: Mapping[bytes, _Input], new: Collection[int]) -> None:
        """Makes the part of each group that is in the handle a group of its own."""
        found = Counter(entry.group for entry in entries.values())
        moves = {group: next(self._groups) for group, inside in found.items() if inside < self._sizes[group]}
        for group, target in moves.items():
            self._sizes[group] -= found[group]
            self._sizes[target] = found[group]
        for entry in entries.values():
            entry.group = moves.get(entry.group, entry.group)
        self._sizes |= {group: found[group] for group in new}
        self._known |= entries

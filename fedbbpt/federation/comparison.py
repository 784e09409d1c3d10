"""Measures a run's result on test examples, next to the baselines that it has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedbbpt.client.asking import PROGRESS_ROWS, Progress, PromptScorer
from fedbbpt.federation.evaluation import Gain, Measured, evaluate
from fedbbpt.interfaces import PromptSpace, Ptm
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.tasks.judgement import require_scores
from fedbbpt.tasks.offsets import choose_offsets
from fedbbpt.tasks.readout import scores as read_out
from fedbbpt.tasks.readout_fit import RIDGES, fit_readout
from fedbbpt.types import LabelledExamples, Scores, TaskSpec
from fedbbpt.types.examples import concatenate

TITLES = {
    "no_prompt": "no prompt",
    "start": "where the search began",
    "offsets": "offsets, no prompt",
    "prompt": "tuned prompt and offsets",
    "readout": "readout, no prompt",
}
"""What a table calls the conditions of a comparison, apart from the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Measurements on the same test examples, from no prompt to the run's result."""

    without: Measured
    """The template alone, without a prompt: zero-shot."""
    offsets: Measured | None
    """No prompt, but one offset for each class, fitted on the same examples as the result: all training examples, and
    the dev examples too if the readout is refitted. None if the PTM gives no scores."""
    readout: Measured | None = None
    """No prompt but those of the views, and a readout that is fitted on all clients' examples in one place; None if
    the run has no readout."""
    start: Measured | None
    """The prompt that the search began with, z = 0, without a readout; None if the run searches for no prompt."""
    prompt: Measured | None = None
    """The tuned prompt with one offset for each class in place of its readout, fitted on all training examples; None
    if the run has no readout, or searches for no prompt."""
    tuned: Measured
    """The run's result."""
    queries: int = field(compare=False)
    """The queries of all measurements together."""

    @property
    def conditions(self) -> dict[str, Measured]:
        """All measurements by a short name, the result last."""
        named = {
            "no_prompt": self.without,
            "start": self.start,
            "offsets": self.offsets,
            "prompt": self.prompt,
            "readout": self.readout,
            "result": self.tuned,
        }
        return {name: measured for name, measured in named.items() if measured is not None}

    @property
    def title(self) -> str:
        """What a table calls the result."""
        if self.readout is None:
            return "tuned prompt"
        return "the federation's readout" if self.prompt is None else "tuned prompt and readout"

    @property
    def gains(self) -> dict[str, Gain | None]:
        """What the result gains over each other condition, by its name; None if the PTM gives losses only."""
        found = {name: self.tuned.gain_over(measured) for name, measured in self.conditions.items()}
        del found["result"]
        return found

    @property
    def controls(self) -> dict[str, Measured]:
        """What the result has to beat, by name.

        Without a search, a readout of all examples in one place is not beaten: the federation's should equal it.
        """
        named = {
            "no prompt": self.without,
            "offsets": self.offsets,
            "the prompt alone": self.prompt,
            "the readout alone": self.readout if self.prompt else None,
        }
        return {name: measured for name, measured in named.items() if measured is not None}


@dataclass(frozen=True, slots=True)
class Data:
    """The examples of a comparison."""

    train: LabelledExamples
    """All clients' training examples, on which the baselines are fitted."""
    dev: LabelledExamples
    """All clients' dev examples, which choose the ridge of the readout alone."""
    test: LabelledExamples
    """Examples that were not used for tuning."""
    refit: bool = False
    """Whether offsets and the readout alone learn from the dev examples too, once these have chosen the ridge."""


def cost(space: PromptSpace, data: Data) -> int:
    """Returns the queries of a comparison, or slightly more: some prompts need not be asked twice."""
    train, dev, test = len(data.train), len(data.dev), len(data.test)
    if not isinstance(space, ReadoutSpace):
        return 3 * test + train
    plain = 0 if "" in space.views else train + data.refit * dev + test
    prompted = 0 if isinstance(space.prompt, NoPrompt) else train + 2 * test
    return len(space.views) * (train + dev + test) + plain + prompted


def compare(
    ptm: Ptm,
    task: TaskSpec,
    space: PromptSpace,
    z: npt.NDArray[np.float32],
    data: Data,
    *,
    ridges: Sequence[float] = RIDGES,
    progress: Progress = lambda queries: None,
) -> Comparison:
    """Measures the prompt z `[n]` and its baselines on test examples. `cost` gives the number of queries.

    Args:
        ptm: The model to query.
        task: The template, the class texts, and after them the further columns of a readout.
        space: The space of z.
        z: The tuned prompt.
        data: The examples.
        ridges: The ridges from which the dev examples choose that of the readout alone.
        progress: Receives the number of further queries that are done.

    Raises:
        OutputWithheld: The PTM gives no scores, and the space has offsets or a readout.
    """
    if isinstance(space, ReadoutSpace):
        return _WithReadout(ptm, task, space, z, progress).compare(data, ridges)
    prompted = PromptScorer(ptm, task, space)
    plain = PromptScorer(ptm, task, NoPrompt(space.prompt_tokens))
    test, classes = data.test, len(task.classes)
    if not prompted.card.output.scores:
        if space.offsets:
            require_scores(prompted.card.output, "a prompt with offsets")
        without, offsets = evaluate(plain, NoPrompt.Z[0], test, classes, progress), None
    else:
        scores, train_scores = (plain.scores(part, NoPrompt.Z, progress)[0] for part in (test, data.train))
        without = Measured.of_scores(scores[None], test)
        offsets = _with_offsets(train_scores, data.train, scores, test)
    return Comparison(
        without=without,
        offsets=offsets,
        start=evaluate(prompted, np.zeros_like(z), test, classes, progress),
        tuned=evaluate(prompted, z, test, classes, progress),
        queries=prompted.queries + plain.queries,
    )


def _with_offsets(train_scores: Scores, train: LabelledExamples, scores: Scores, test: LabelledExamples) -> Measured:
    """The measurement of class scores `[B, K]` with offsets, which the training examples choose."""
    usable = np.isfinite(train_scores).all(axis=1)
    offsets = choose_offsets(train_scores[usable], train.labels[usable]).astype(np.float32)
    return Measured.of_scores((scores + offsets)[None], test)


class _WithReadout:
    """The measurements of a run with a readout. Each prompt is scored once on each example, for all of them."""

    def __init__(
        self, ptm: Ptm, task: TaskSpec, space: ReadoutSpace, z: npt.NDArray[np.float32], progress: Progress
    ) -> None:
        self._space, self._z, self._progress = space, z, progress
        own = task.of_classes(space.classes)
        self._scorer = PromptScorer(ptm, task, space)
        self._plain = PromptScorer(ptm, own, NoPrompt(space.prompt_tokens))
        self._start = PromptScorer(ptm, own, space.prompt)
        self._searched = not isinstance(space.prompt, NoPrompt)
        self._fixed = len(space.views) * space.columns

    def compare(self, data: Data, ridges: Sequence[float]) -> Comparison:
        """Returns all measurements."""
        space, train, test, searched = self._space, data.train, data.test, self._searched
        parts = self._parts(test, prompted=searched)
        columns, train_columns = np.concatenate(parts), np.concatenate(self._parts(train, prompted=searched))
        dev_columns = np.concatenate(self._parts(data.dev, prompted=False))
        plain, train_plain = self._unprompted(columns, test), self._unprompted(train_columns, train)
        start = prompt = None
        if searched:
            own, train_own = (found[:, self._fixed :][:, : space.classes] for found in (columns, train_columns))
            start = Measured.of_scores(self._initial(own, test)[None], test)
            prompt = _with_offsets(train_own, train, own, test)
        return Comparison(
            without=Measured.of_scores(plain[None], test),
            offsets=self._offsets(train_plain, plain, dev_columns, data),
            readout=self._readout(columns, train_columns, dev_columns, data, ridges),
            start=start,
            prompt=prompt,
            tuned=Measured.of_scores(self._result(parts), test),
            queries=self._scorer.queries + self._plain.queries + self._start.queries,
        )

    def _parts(self, data: LabelledExamples, *, prompted: bool) -> list[Scores]:
        """The columns `[B, C]` of each part of the examples; those of the views only, unless `prompted`."""
        space, found = self._space, []
        asked = space.asking(self._z[: space.prompt.dim], prompted=prompted)[None]
        for part in self._scorer.parts(data, PROGRESS_ROWS):
            registered, before = self._scorer.register(part), self._scorer.queries
            try:
                found.append(self._scorer.columns(registered, asked, use_labels=False)[0])
            finally:
                self._scorer.release([registered])
            self._progress(self._scorer.queries - before)
        return found

    def _unprompted(self, columns: Scores, data: LabelledExamples) -> Scores:
        """The class scores `[B, K]` without a prompt, which may be one of the views."""
        if "" not in self._space.views:
            (scores,) = self._plain.scores(data, NoPrompt.Z, self._progress, use_labels=False)
            return np.asarray(scores)
        first = self._space.views.index("") * self._space.columns
        return columns[:, first : first + self._space.classes]

    def _offsets(self, train: Scores, scores: Scores, dev_columns: Scores, data: Data) -> Measured:
        """The measurement of unprompted class scores `[B, K]` with offsets."""
        if not data.refit:
            return _with_offsets(train, data.train, scores, data.test)
        whole = np.concatenate([train, self._unprompted(dev_columns, data.dev)])
        return _with_offsets(whole, concatenate([data.train, data.dev]), scores, data.test)

    def _initial(self, own: Scores, data: LabelledExamples) -> Scores:
        """The class scores `[B, K]` of the prompt that the search began with, which may be the tuned one's, `own`."""
        z = np.zeros((1, self._space.prompt.dim), np.float32)
        if not self._z[: z.shape[1]].any():
            return own
        (scores,) = self._start.scores(data, z, self._progress, use_labels=False)
        return np.asarray(scores)

    def _readout(self, columns: Scores, train: Scores, dev: Scores, data: Data, ridges: Sequence[float]) -> Measured:
        """The measurement of a readout of the views, fitted on the training and dev examples with finite scores."""
        train, dev = train[:, : self._fixed], dev[:, : self._fixed]
        usable, usable_dev = np.isfinite(train).all(axis=1), np.isfinite(dev).all(axis=1)
        readout, _ = fit_readout(
            train[usable],
            data.train.labels[usable],
            dev[usable_dev],
            data.dev.labels[usable_dev],
            self._space.classes,
            ridges,
            prompts=len(self._space.views),
            refit=data.refit,
        )
        found = read_out(columns[:, : self._fixed], readout[None]).astype(np.float32)
        return Measured.of_scores(found, data.test)

    def _result(self, parts: Sequence[Scores]) -> Scores:
        """The class scores `[1, B, K]` of the run's result, computed as `PromptScorer.ask` does."""
        space, z = self._space, self._z[None]
        used = space.width if space.readouts(z)[:, :, self._fixed : -1].any() else self._fixed
        return np.concatenate([space.shifted(part[None, :, :used], z) for part in parts], axis=1)

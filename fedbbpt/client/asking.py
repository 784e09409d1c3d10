"""Asks a PTM about labelled examples: registers them, scores prompts on them, and judges the answers.

Everything here respects the limits of the PTM's card: examples go into handles that fit a message, prompts into calls
that fit, and images are brought to the shape that the model takes.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedbbpt.data.images import fit
from fedbbpt.errors import InvalidTensor
from fedbbpt.interfaces import PromptSpace, Ptm
from fedbbpt.prompts.none import text_prompts
from fedbbpt.tasks.bounds import pessimistic
from fedbbpt.tasks.judgement import Judgement, judge, require_scores
from fedbbpt.types import (
    Array,
    ExamplesHandle,
    LabelledExamples,
    Output,
    Perturbation,
    Prompts,
    Scored,
    Scores,
    TaskSpec,
    Truncation,
)
from fedbbpt.types.call_sizes import examples_per_handle, prompts_per_call

log = logging.getLogger(__name__)

NO_CLASS = -1
"""Stands for a class of which the PTM says that another one may be likelier."""
PROGRESS_ROWS = 256
"""Examples that are scored between two reports of progress, at most."""

Progress = Callable[[int], None]
"""Receives the number of queries that were answered since it was last called."""


class RegisteredPart:
    """Examples that a PTM keeps under one handle."""

    def __init__(self, handle: str, data: LabelledExamples, prompts_per_call: Callable[[], int]) -> None:
        self.handle, self.data = handle, data
        self._prompts_per_call = prompts_per_call
        self.perturbed = False
        """Whether the PTM keeps a perturbed copy."""
        self.views: Scores | None = None
        """The scores under the fixed views, `[1, B, m V]`; None until they are needed."""
        self.kept: tuple[bytes, Scores] | None = None
        """The columns `[1, B, C]` of the only prompt that was asked last, and the bytes of its z."""

    @cached_property
    def prompts_per_call(self) -> int:
        """The number of prompts that one call may score on these examples."""
        return self._prompts_per_call()

    def under(self, handle: str) -> "RegisteredPart":
        """Returns the same part under another handle, which the PTM keeps a perturbed copy under."""
        copy = RegisteredPart(handle, self.data, lambda: self.prompts_per_call)
        copy.perturbed = True
        return copy


class PromptScorer:
    """Scores prompts of one space on labelled examples of one task. Every query of a PTM by a client is counted here.

    Labels stay in this process, unless the PTM answers with losses only, for which it needs them.
    """

    def __init__(self, ptm: Ptm, task: TaskSpec, space: PromptSpace) -> None:
        self._ptm, self._task, self._space = ptm, task, space
        self.card = ptm.describe()
        self._warned = False
        self._view_scores: dict[bytes, Scores] = {}
        """The scores `[m V]` under the views by the digest of the example, so that batches do not ask them again."""
        self.queries = 0
        """Pairs of a prompt and an example that were scored so far."""
        self.truncation: Truncation | None = Truncation()
        """The texts of all `register` calls that were truncated; None if the PTM does not tell."""

    @cached_property
    def _task_id(self) -> str:
        return self._ptm.register_task(self._task)

    def parts(self, data: LabelledExamples, most: int | None = None) -> list[LabelledExamples]:
        """Returns the examples in parts of about equal length, each of which fits one handle.

        Args:
            data: The examples; images are brought to the model's shape.
            most: The largest length of a part, if the PTM's own limit is not enough.
        """
        data = LabelledExamples(fit(data.examples, self.card.image_shape), data.labels)
        if not len(data):
            return [data]
        limit = examples_per_handle(self.card, self._task, data.examples)
        number = math.ceil(len(data) / min(limit, most or limit))
        return [data.take(rows) for rows in np.array_split(np.arange(len(data)), number)]

    def register(self, part: LabelledExamples) -> RegisteredPart:
        """Registers one of `parts` with the PTM.

        Raises:
            InvalidTask: The PTM cannot score the task.
            UnsupportedPrompt: The model does not take the prompts of the space.
        """
        self.check_prompts(part)
        handle = self._handle(part)
        if self.truncation is not None:
            self.truncation = None if handle.truncation is None else self.truncation + handle.truncation
        return RegisteredPart(handle.id, part, lambda: self._prompts_per_call(part))

    def check_prompts(self, part: LabelledExamples) -> None:
        """Raises UnsupportedPrompt if the model does not take the prompts of the space."""
        self._one_prompt(part).check_kind(self.card)

    def truncation_of(self, data: LabelledExamples) -> Truncation | None:
        """Returns which texts the model would truncate; None if the PTM does not tell. Costs no queries."""
        scorer = PromptScorer(self._ptm, self._task, self._space)
        for part in scorer.parts(data):
            self.release([scorer.register(part)])
        return scorer.truncation

    def perturbed(self, part: RegisteredPart, perturbation: Perturbation) -> RegisteredPart:
        """Registers a perturbed copy of a part."""
        return part.under(self._handle(part.data, perturbation).id)

    def release(self, parts: Sequence[RegisteredPart]) -> None:
        """Takes back the registration of each part."""
        for part in parts:
            self._ptm.release(part.handle)

    def _handle(self, part: LabelledExamples, perturbation: Perturbation | None = None) -> ExamplesHandle:
        labels = part.labels if self.card.output is Output.LOSS_ONLY else None
        room = self._space.prompt_tokens
        return self._ptm.register_examples(self._task_id, part.examples, room, perturbation, labels)

    def _prompts_per_call(self, part: LabelledExamples) -> int:
        return prompts_per_call(self.card, self._one_prompt(part), len(part), len(self._task.classes))

    def _one_prompt(self, part: LabelledExamples) -> Prompts:
        zero = np.zeros((1, self._space.dim))
        one = self._space.prompts(zero, part.examples) or self._space.prompts(zero + 1, part.examples)
        return text_prompts(self._space.views[:1], part.examples) if one is None else one  # only views have prompts

    def ask(self, part: RegisteredPart, population: npt.NDArray[np.floating], *, use_labels: bool = True) -> Array:
        """Returns the PTM's answer for a population `[P, dim]`, with the offsets or readouts of the candidates.

        The answer is `[P, B, K]` scores, `[P, B]` classes or `[P]` losses, depending on the PTM's output. If the PTM
        marks elements as bounds, they count against the prompt: the score of an example's own class as
        `tasks.bounds.pessimistic` says, and a class as NO_CLASS. Without `use_labels` they stay as they are, and with
        a readout as well, since it must not see the labels in its columns.
        """
        answers: list[Array] = []
        size = part.prompts_per_call if len(population) > 1 else 1
        for start in range(0, len(population), size):
            z = population[start : start + size]
            answer = self.columns(part, z, use_labels=use_labels)
            answers.append(self._space.shifted(answer, z) if self.card.output.scores else answer)
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def columns(self, part: RegisteredPart, z: npt.NDArray[np.floating], *, use_labels: bool = True) -> Array:
        """Returns the answer for z `[P, dim]` without offsets and readouts, in one call.

        With views the answer is `[P, B, C]`: the scores under all views, which are asked once, and under z's prompts,
        unless no readout of z uses them. The scores under a single prompt are kept until another one is asked.
        """
        prompts = self._space.prompts(z, part.data.examples)
        if not self._space.views:
            assert prompts is not None, "only a readout can do without its prompts"
            return self._score(part, prompts, use_labels=use_labels)
        fixed = np.broadcast_to(self._views(part), (len(z), *self._views(part).shape[1:]))
        if prompts is None:
            return fixed
        key = b"".join(prompts.digests()[0])
        if part.kept is not None and len(z) == 1 and part.kept[0] == key:
            return part.kept[1]
        answer = np.concatenate([fixed, self._score(part, prompts, use_labels=False)], axis=2)
        if len(z) == 1:
            part.kept = key, answer
        return answer

    def _views(self, part: RegisteredPart) -> Scores:
        """The scores `[1, B, m V]` of a part under the views."""
        if part.views is None and part.perturbed:
            part.views = self._ask_views(part)
        elif part.views is None:
            digests = part.data.examples.digests()
            if not self._view_scores.keys() >= set(digests):
                self._view_scores.update(zip(digests, self._ask_views(part)[0], strict=True))
            part.views = np.stack([self._view_scores[digest] for digest in digests])[None]
        return part.views

    def _ask_views(self, part: RegisteredPart) -> Scores:
        prompts = text_prompts(self._space.views, part.data.examples)
        size = prompts_per_call(self.card, prompts, len(part.data), len(self._task.classes))
        each = [
            self._score(part, prompts.take(range(start, min(start + size, len(prompts)))), use_labels=False)
            for start in range(0, len(prompts), size)
        ]
        views: Scores = np.concatenate(each)  # [m, B, V]
        return views.transpose(1, 0, 2).reshape(1, views.shape[1], -1)

    def _score(self, part: RegisteredPart, prompts: Prompts, *, use_labels: bool) -> Array:
        scored = self._ptm.score(part.handle, prompts)
        self.queries += len(prompts) * len(part.data)
        wanted = len(prompts), len(part.data), len(self._task.classes)
        if scored.output.scores and scored.answer.shape != wanted:
            what, fix = f"scores of shape {list(scored.answer.shape)}", f"{list(wanted)}: prompts, examples, texts"
            raise InvalidTensor(what, where="scores", fix=fix)
        if self._space.views and scored.bounds is not None:
            self._warn(scored.bounds, "a readout takes them as they are, in training and in prediction")
        return self._judged(scored, part.data.labels) if use_labels else scored.answer

    def _judged(self, scored: Scored, labels: npt.NDArray[np.int64]) -> Array:
        if scored.bounds is None:
            return scored.answer
        self._warn(scored.bounds, "they count against the prompt")
        if scored.output.scores:
            return pessimistic(scored.scores, scored.bounds, labels)
        if scored.output is Output.LABEL_ARGMAX:
            return np.where(scored.bounds, np.int32(NO_CLASS), scored.choices)
        return scored.answer

    def _warn(self, bounds: npt.NDArray[np.bool_], consequence: str) -> None:
        """Warns once that some answers are not measured."""
        if not self._warned:
            what = "%d of %d answers rest on bounds, since the model's server did not tell every label's score; %s"
            log.warning(what, bounds.sum(), bounds.size, consequence)
            self._warned = True

    def scores(
        self,
        data: LabelledExamples,
        population: npt.NDArray[np.floating],
        progress: Progress = lambda queries: None,
        *,
        use_labels: bool = True,
    ) -> Scores:
        """Returns the scores `[P, B, K]` of a population `[P, dim]` on examples that are registered for this call only.

        `use_labels` is as in `ask`: without it, the labels may be any.

        Raises:
            OutputWithheld: The PTM does not give scores.
        """
        require_scores(self.card.output, "this measurement")
        answers = self._answers(data, population, progress, use_labels=use_labels)
        return np.concatenate([answer for answer, _ in answers], axis=1)

    def choices(
        self, data: LabelledExamples, population: npt.NDArray[np.floating], progress: Progress = lambda queries: None
    ) -> npt.NDArray[np.int32]:
        """Returns the likeliest classes `[P, B]` under a population `[P, dim]`, from a PTM that gives classes only."""
        return np.concatenate([answer for answer, _ in self._answers(data, population, progress)], axis=1)

    def judge(
        self, data: LabelledExamples, population: npt.NDArray[np.floating], progress: Progress = lambda queries: None
    ) -> Judgement:
        """Returns the judgement of a population `[P, dim]` on examples that are registered for this call only."""
        answers, labels = zip(*self._answers(data, population, progress), strict=True)
        return judge(self.card.output, answers, labels)

    def _answers(
        self,
        data: LabelledExamples,
        population: npt.NDArray[np.floating],
        progress: Progress,
        *,
        use_labels: bool = True,
    ) -> Iterator[tuple[Array, npt.NDArray[np.int64]]]:
        """Each part's answer and labels. One part is registered at a time, however large `data` is."""
        for part in self.parts(data, PROGRESS_ROWS):
            registered, before = self.register(part), self.queries
            try:
                if self._space.views:  # asked for this call only: inputs to classify may be a stream without end
                    registered.views = self._ask_views(registered)
                answer = self.ask(registered, population, use_labels=use_labels)
            finally:
                self.release([registered])
            yield answer, part.labels
            progress(self.queries - before)

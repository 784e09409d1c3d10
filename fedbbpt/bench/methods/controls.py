"""Baselines that do not search: a tuned prompt has to beat them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fedbbpt.client.asking import PromptScorer
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Ptm
from fedbbpt.job.settings import task_spec
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.text import TextSpace
from fedbbpt.tasks.criterion import accuracy
from fedbbpt.tasks.offsets import choose_offsets
from fedbbpt.types import LabelledExamples, Scores

PROMPT_ROOM = 32
"""Tokens that texts leave free for a text prompt."""


@dataclass(frozen=True, slots=True)
class ControlResult:
    """The test accuracy of a control, and its price."""

    accuracy: float
    queries: int
    """Queries on training examples."""


@dataclass(frozen=True, slots=True)
class ControlInputs:
    """All that a control may use: no dev examples, and training examples only to fit offsets."""

    ptm: Ptm
    splits: Splits
    test: LabelledExamples
    manual_prompt: str

    def scores(self, prompt: str, data: LabelledExamples) -> Scores:
        """Returns the scores `[B, K]` of a text prompt, or of the bare template if it is empty."""
        space = TextSpace(1, (prompt,), PROMPT_ROOM) if prompt else NoPrompt(0)
        scorer = PromptScorer(self.ptm, task_spec(self.splits.job).of_classes(len(self.splits.job.task.labels)), space)
        scores: Scores = scorer.scores(data, np.zeros((1, space.dim), np.float32))[0]
        return scores

    def accuracy(self, scores: Scores) -> float:
        """Returns the accuracy of scores `[B, K]` on the test examples."""
        return float(accuracy(scores[None], self.test.labels)[0])


def zero_shot(inputs: ControlInputs) -> ControlResult:
    """Measures the template without a prompt."""
    return ControlResult(inputs.accuracy(inputs.scores("", inputs.test)), 0)


def manual_prompt(inputs: ControlInputs) -> ControlResult:
    """Measures the hand-written prompt."""
    return ControlResult(inputs.accuracy(inputs.scores(inputs.manual_prompt, inputs.test)), 0)


def bias_only(inputs: ControlInputs) -> ControlResult:
    """Measures one offset for each class without a prompt, fitted on all clients' training examples in one place."""
    return _with_offsets(inputs, "")


def manual_prompt_bias(inputs: ControlInputs) -> ControlResult:
    """Measures the hand-written prompt with such offsets: the most that is possible without a search."""
    return _with_offsets(inputs, inputs.manual_prompt)


def _with_offsets(inputs: ControlInputs, prompt: str) -> ControlResult:
    train = inputs.splits.pooled()
    offsets = choose_offsets(inputs.scores(prompt, train), train.labels).astype(np.float32)
    return ControlResult(inputs.accuracy(inputs.scores(prompt, inputs.test) + offsets), len(train))


CONTROLS: Mapping[str, Callable[[ControlInputs], ControlResult]] = {
    "zero-shot": zero_shot,
    "manual-prompt": manual_prompt,
    "bias-only": bias_only,
    "manual-prompt-bias": manual_prompt_bias,
}
"""The controls by the names that `--methods` takes."""

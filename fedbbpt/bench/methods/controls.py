"""Baselines that search nothing: what a tuned prompt must be seen beside."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fedbbpt.client.asking import NoPrompt, PromptScorer
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Ptm
from fedbbpt.job.settings import task_spec
from fedbbpt.prompts.text import TextSpace
from fedbbpt.tasks.criterion import accuracy
from fedbbpt.tasks.offsets import fit_offsets
from fedbbpt.types import LabelledExamples, Scores

ROOM = 32
"""Tokens that texts leave for a prompt in words."""


@dataclass(frozen=True, slots=True)
class Controlled:
    accuracy: float
    queries: int
    """On training examples."""


@dataclass(frozen=True, slots=True)
class Setting:
    """All that a control may look at: no dev examples, and training examples only to fit offsets."""

    ptm: Ptm
    splits: Splits
    test: LabelledExamples
    manual_prompt: str

    def scores(self, prompt: str, data: LabelledExamples) -> Scores:
        """`[B, K]`"""
        space = TextSpace(1, (prompt,), ROOM) if prompt else NoPrompt(0)
        scorer = PromptScorer(self.ptm, task_spec(self.splits.job), space)
        scores: Scores = scorer.scores(data, np.zeros((1, space.dim), np.float32))[0]
        return scores

    def accuracy(self, scores: Scores) -> float:
        return float(accuracy(scores[None], self.test.labels)[0])


def zero_shot(setting: Setting) -> Controlled:
    """The template alone."""
    return Controlled(setting.accuracy(setting.scores("", setting.test)), 0)


def manual_prompt(setting: Setting) -> Controlled:
    """The hand-written instruction, as it is."""
    return Controlled(setting.accuracy(setting.scores(setting.manual_prompt, setting.test)), 0)


def bias_only(setting: Setting) -> Controlled:
    """No prompt, one offset for each class, fitted on the scores of all clients' shots in one place."""
    return _with_offsets(setting, "")


def manual_prompt_bias(setting: Setting) -> Controlled:
    """The hand-written instruction, and offsets fitted on its scores: what is to be had without a search."""
    return _with_offsets(setting, setting.manual_prompt)


def _with_offsets(setting: Setting, prompt: str) -> Controlled:
    train = setting.splits.pooled()
    offsets = fit_offsets(setting.scores(prompt, train), train.labels).astype(np.float32)
    return Controlled(setting.accuracy(setting.scores(prompt, setting.test) + offsets), len(train))


CONTROLS: Mapping[str, Callable[[Setting], Controlled]] = {
    "zero-shot": zero_shot,
    "manual-prompt": manual_prompt,
    "bias-only": bias_only,
    "manual-prompt-bias": manual_prompt_bias,
}

"""Warnings about the data of a run on this machine, before its first round."""

from collections.abc import Sequence

from fedbbpt.client.asking import PromptScorer
from fedbbpt.data.quality import DataWarning, cut_texts, review
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Ptm
from fedbbpt.job.settings import task_spec
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.types import ExampleKind
from fedbbpt.types.examples import concatenate


def data_warnings(splits: Splits) -> Sequence[DataWarning]:
    """Returns the warnings about the examples that a run uses."""
    train = concatenate([*splits.train, splits.server]) if len(splits.server) else splits.pooled()
    parts = {"train": train, "dev": concatenate(splits.dev), "test": splits.test}
    return review(parts, splits.job.task.labels)


def model_warnings(splits: Splits, ptm: Ptm) -> Sequence[DataWarning]:
    """Returns the warnings about the texts that the model would truncate. Costs no queries."""
    examples = concatenate([*splits.train, *splits.dev, splits.test])
    if examples.examples.kind is not ExampleKind.TEXTS:
        return ()
    scorer = PromptScorer(ptm, task_spec(splits.job), NoPrompt(splits.job.prompt_tokens()))
    return cut_texts(scorer.truncation_of(examples), len(examples), scorer.card.max_tokens)

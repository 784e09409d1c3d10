"""A service tells how many of a caller's texts it truncated, and by how many tokens."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fedbbpt.interfaces import Ptm
from fedbbpt.ptm.models.fake import MAX_TOKENS, Fake, FakeRow
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, Perturbation, TaskSpec, Truncation
from tests.tenants import local_ptm

TASK = TaskSpec("{prompt} {text}", ("a number", "a person"))
ROOM = 6


class Silent(Fake):
    """A backend that does not tell."""

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[FakeRow]:
        rows = super().prepare(task, examples, prompt_tokens, perturbation)
        return [tuple(row) for row in rows]  # type: ignore[misc]  # a plain tuple tells nothing of truncation


def truncation(ptm: Ptm, *texts: str, task: TaskSpec = TASK) -> Truncation | None:
    return ptm.register_examples(ptm.register_task(task), Examples(texts), ROOM).truncation


def test_the_handle_counts_truncated_texts_and_their_tokens() -> None:
    ptm = local_ptm(Fake())
    assert truncation(ptm, "word " * (MAX_TOKENS - ROOM), "short") == Truncation()
    assert truncation(ptm, "word " * (MAX_TOKENS + 4), "short", "word " * MAX_TOKENS) == Truncation(2, 16)


def test_a_backend_that_does_not_tell_leaves_it_unknown() -> None:
    assert truncation(local_ptm(Silent()), "word " * (MAX_TOKENS + 4)) is None


@pytest.mark.parametrize(("name", "around"), [("bert-mlm", 3), ("gpt2", 0)])
def test_a_text_model_tells_how_much_of_a_text_it_does_not_read(
    name: str, around: int, checkpoint: Callable[[str], Path]
) -> None:
    """`around`: tokens of the template and of the model in each input, besides the text and the prompt."""
    ptm = local_ptm(load(str(checkpoint(name)), threads=1))
    task = TaskSpec("{prompt} {text} {mask}", ("good", "bad"))
    fitting = ptm.describe().max_tokens - ROOM - around
    words = ["film"] * fitting
    assert truncation(ptm, " ".join(words), task=task) == Truncation()
    assert truncation(ptm, " ".join([*words, "good", "film"]), "good film", task=task) == Truncation(1, 2)

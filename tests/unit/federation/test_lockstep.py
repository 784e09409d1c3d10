"""Clients that advance together give the bits of clients that answer one after the other, in fewer computations."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.errors import UnknownExamples
from fedbbpt.federation.lockstep import advance_together, lockstep
from fedbbpt.federation.splits import prepare
from fedbbpt.methods import METHODS
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.types import Examples, Scores, TaskSpec, TextPrompts
from tests.tenants import local_ptm
from tests.tiny_run import job, undisturbed

TASK = TaskSpec("{prompt} {text}", ("a number", "a person"))
TEXTS = (("who was it", "how many films"), ("how many films",), ("where", "when was it", "who was it"))
PROMPTS = TextPrompts(("which kind", "what"))


def registered(ptm: LocalPtm) -> list[str]:
    task_id = ptm.register_task(TASK)
    return [ptm.register_examples(task_id, Examples(texts), 4).id for texts in TEXTS]


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.white_box])
def test_bits_do_not_depend_on_lockstep(data: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    splits = prepare(job(data, method=method))
    together = undisturbed(splits)
    monkeypatch.setattr("fedbbpt.federation.crew.lockstep", lambda ptm: ptm)
    assert undisturbed(splits) == together


def test_clients_that_ask_the_same_prompts_are_computed_together() -> None:
    ptm = local_ptm(Fake())
    together = lockstep(ptm)
    handles = registered(ptm)

    def asks(handle: str) -> Sequence[Scores]:
        return [together.score(handle, prompts).scores for prompts in (PROMPTS, TextPrompts((handle,)))]

    found = advance_together(together, [partial(asks, handle) for handle in handles])
    for handle, (same, own) in zip(handles, found, strict=True):
        np.testing.assert_array_equal(same, ptm.score(handle, PROMPTS).scores)
        np.testing.assert_array_equal(own, ptm.score(handle, TextPrompts((handle,))).scores)


def test_usage_of_calls_together_is_that_of_each_alone() -> None:
    alone, ptm = local_ptm(Fake()), local_ptm(Fake())
    expected = [alone.score(handle, PROMPTS) for handle in registered(alone)]
    found = ptm.score_all([(handle, PROMPTS) for handle in registered(ptm)])
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine.scores, theirs.scores)
    assert ptm.usage().queries == alone.usage().queries == sum(scored.usage.queries for scored in found)
    assert ptm.usage().tokens == alone.usage().tokens


def test_large_calls_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbbpt.ptm.local.PAIRS_TOGETHER", 5)
    ptm = local_ptm(Fake())
    handles = registered(ptm)
    found = ptm.score_all([(handle, PROMPTS) for handle in handles])
    for handle, scored in zip(handles, found, strict=True):
        np.testing.assert_array_equal(scored.scores, ptm.score(handle, PROMPTS).scores)


def test_an_error_of_a_client_is_raised() -> None:
    together = lockstep(local_ptm(Fake()))
    with pytest.raises(UnknownExamples):
        advance_together(together, [lambda: together.score("unknown", PROMPTS)])

"""The examples and prompts of one call fit into the messages of the service."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.client.objective import LocalObjectives
from fedbbpt.errors import InvalidTensor
from fedbbpt.limits import ENVELOPE_BYTES, MAX_PAIRS
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.types import (
    DeepPrompts,
    Examples,
    ExampleSet,
    LabelledExamples,
    LatentPrompts,
    ModelCard,
    Projection,
    ProjectionKind,
    Prompts,
    SoftPrompts,
    TaskSpec,
    TextPrompts,
)
from fedbbpt.types.call_sizes import examples_per_handle, prompts_per_call
from fedbbpt.wire.messages import ptm_messages
from tests.tenants import local_ptm

PROJECTION = Projection(ProjectionKind.RADEMACHER, 3, 2, 1.0, "")
TASK = TaskSpec("{prompt} {text}", ("visiting hours and parking", "charges and payments"))


class Small(Fake):
    """A model that takes few pairs in a call."""

    def describe(self) -> ModelCard:
        return replace(super().describe(), max_pairs=9)


def card(room: int) -> ModelCard:
    return replace(Fake().describe(), max_message_bytes=ENVELOPE_BYTES + room, max_prompts=10_000)


def prompts(kind: str, count: int) -> Prompts:
    match kind:
        case "latent":
            return LatentPrompts(np.zeros((count, 50), np.float32), PROJECTION)
        case "soft":
            return SoftPrompts(np.zeros((count, 3, 32), np.float32))
        case "deep":
            return DeepPrompts(np.zeros((count, 2, 2, 4, 3, 8), np.float32))
    return TextPrompts(("whät kind of",) * count)


@pytest.mark.parametrize("kind", ["latent", "soft", "deep", "text"])
@given(
    room=st.integers(20_000, 200_000), rows=st.integers(1, 40), length=st.integers(1, 60), columns=st.integers(0, 300)
)
def test_messages_are_no_larger_than_the_card_says(kind: str, room: int, rows: int, length: int, columns: int) -> None:
    """This includes calls that carry their examples, because the service has forgotten them."""
    task = TaskSpec(TASK.template, TASK.classes + tuple(f"further column {index}" for index in range(columns)))
    small, texts = card(room), Examples(tuple("é" * (1 + (length * i) % 60) for i in range(rows)))
    held = texts.take(np.arange(min(rows, examples_per_handle(small, task, texts))))
    count = prompts_per_call(small, prompts(kind, 1), len(held), len(task.classes))
    request = ptm_messages.score_request((task, ExampleSet(held, 4)), prompts(kind, count), "k" * 32)
    assert request.ByteSize() <= small.max_message_bytes
    assert 4 * count * len(held) * len(task.classes) <= room
    twice = ptm_messages.score_request("handle", prompts(kind, 4 * count), "k" * 32)
    assert twice.ByteSize() > small.max_message_bytes or 8 * count * len(held) * len(task.classes) > room, (
        "a call is as large as the limits allow"
    )


def test_losses_do_not_depend_on_the_split_into_calls() -> None:
    space = LatentSpace(5, PROJECTION)
    words = ("parking", "payments")
    texts = tuple(f"{word} at the clinic, number {i}" for i in range(8) for word in words)
    data = LabelledExamples(Examples(texts), np.tile(np.arange(2), 8))
    z = np.random.default_rng(0).normal(size=(7, 5))
    whole, cut = (LocalObjectives(local_ptm(ptm()), TASK, space, data, data) for ptm in (Fake, Small))
    np.testing.assert_array_equal(cut.each(z, None, 0), whole.each(z, None, 0))
    assert cut.queries == whole.queries == 7 * 16


def test_a_call_of_too_many_pairs_is_refused_before_it_is_planned() -> None:
    engine = local_ptm(Small())
    assert engine.describe().max_pairs == 9 and local_ptm(Fake()).describe().max_pairs == MAX_PAIRS
    handle = engine.register_examples(engine.register_task(TASK), Examples(("a", "b", "c", "d", "e")), 4)
    with pytest.raises(InvalidTensor, match="10 pairs of a prompt and an example; at most 9"):
        engine.score(handle.id, TextPrompts(("one", "two")))
    assert engine.usage().queries == 0

"""The black box's nouns come back from their messages as they went."""

from dataclasses import replace

import numpy as np
import pytest

from fedbbpt.errors import InvalidExamples, InvalidTensor
from fedbbpt.interfaces import ExamplesHandle
from fedbbpt.ptm.backends.fake import Fake
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import (
    Examples,
    Injection,
    LatentPrompts,
    Perturbation,
    Projection,
    ProjectionKind,
    Prompts,
    Scored,
    SoftPrompts,
    TaskSpec,
    TextPrompts,
    TokenPrompts,
    Usage,
)
from fedbbpt.wire import ptm_messages as m
from fedbbpt.wire.tensors import to_message

FLOATS = np.linspace(-1, 1, 12, dtype=np.float32)
PROJECTION = Projection(ProjectionKind.NORMAL, 2**64 - 1, 8, 0.1, "Ça va?")


def test_the_card() -> None:
    card = replace(Fake().describe(), score_noise=1.5e-7)
    assert m.model_card(m.describe_response(card)) == card


def test_what_a_newer_service_offers_is_left_out() -> None:
    response = m.describe_response(Fake().describe())
    response.prompt_kinds.append(99)  # type: ignore[arg-type]  # of a later protocol
    assert m.model_card(response) == Fake().describe()


def test_the_task() -> None:
    task = TaskSpec("{prompt} {text}", ("b", "a"))
    assert m.task(m.register_task_request(task)) == task


@pytest.mark.parametrize("examples", [Examples(("a", "", "ü")), Examples(("a", "b"), ("", "d"))])
@pytest.mark.parametrize("perturbation", [None, Perturbation(0.0, 0), Perturbation(0.3, 2**64 - 1)])
def test_examples(examples: Examples, perturbation: Perturbation | None) -> None:
    header, *rest = m.register_examples_requests("task", examples, 8, perturbation)
    assert (header.header.task_id, header.header.prompt_tokens) == ("task", 8)
    assert m.perturbation(header.header) == perturbation
    assert m.examples([request.example for request in rest]) == examples


def test_second_texts_for_some_only_are_refused() -> None:
    with pytest.raises(InvalidExamples, match="1 second texts for 2"):
        m.examples([pb.Example(text="a", text_pair="b"), pb.Example(text="c")])


def test_the_handle() -> None:
    handle = ExamplesHandle("id", 3, 2**40)
    response = m.register_examples_response(handle, 90.5)
    assert m.examples_handle(response) == handle and response.time_to_live.ToTimedelta().total_seconds() == 90.5


@pytest.mark.parametrize(
    "prompts",
    [
        LatentPrompts(FLOATS.reshape(3, 4), PROJECTION),
        LatentPrompts(FLOATS.reshape(3, 4), replace(PROJECTION, kind=ProjectionKind.RADEMACHER, initial_text="")),
        LatentPrompts(FLOATS.reshape(3, 4), replace(PROJECTION, injection=Injection.ADD)),
        SoftPrompts(FLOATS.reshape(1, 3, 4)),
        SoftPrompts(FLOATS.reshape(1, 3, 4), Injection.CONCAT),
        TokenPrompts(np.arange(6, dtype=np.int32).reshape(2, 3)),
        TextPrompts(("a", "")),
    ],
    ids=lambda prompts: type(prompts).__name__,
)
def test_prompts(prompts: Prompts) -> None:
    request = m.score_request("id", prompts)
    back = m.prompts(pb.ScoreRequest.FromString(request.SerializeToString()))
    assert request.examples_id == "id" and type(back) is type(prompts)
    np.testing.assert_equal(repr(back), repr(prompts))


def test_scores() -> None:
    scored = Scored(FLOATS.reshape(2, 2, 3), "revision", Usage(4, 99, 1.25))
    back = m.scored(m.score_response(scored))
    assert np.array_equal(back.scores, scored.scores) and back.scores.dtype == np.float32
    assert (back.revision, back.usage) == (scored.revision, scored.usage)


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(InvalidTensor, match="scores"):
        m.scored(pb.ScoreResponse(scores=to_message(FLOATS)))

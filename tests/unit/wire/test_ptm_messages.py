"""The data types of the PTM service survive the round trip over the wire."""

from dataclasses import replace

import numpy as np
import pytest

from fedbbpt.errors import InvalidExamples, InvalidRequest, InvalidTensor, OutputWithheld
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import (
    Budget,
    Examples,
    ExampleSet,
    ExamplesHandle,
    Injection,
    LatentPrompts,
    Output,
    Perturbation,
    Price,
    Projection,
    ProjectionKind,
    Prompts,
    Scored,
    SoftPrompts,
    TaskSpec,
    TextPrompts,
    TokenPrompts,
    Truncation,
    Usage,
)
from fedbbpt.wire.messages import ptm_messages as m
from fedbbpt.wire.messages import usage_messages
from fedbbpt.wire.messages.card_messages import describe_response, model_card
from fedbbpt.wire.tensors import to_message

FLOATS = np.linspace(-1, 1, 12, dtype=np.float32)
PROJECTION = Projection(ProjectionKind.NORMAL, 2**64 - 1, 8, 0.1, "Ça va?")


def test_card_survives_the_round_trip() -> None:
    card = replace(
        Fake().describe(),
        score_noise=1.5e-7,
        output=Output.LOSS_ONLY,
        min_examples=8,
        max_latent=3.0,
        price=Price("EUR", 1, 2, 3),
    )
    assert model_card(describe_response(card)) == card


def test_unknown_kinds_of_a_newer_service_are_left_out() -> None:
    response = describe_response(Fake().describe())
    response.prompt_kinds.append(99)  # type: ignore[arg-type]  # of a later protocol
    assert model_card(response) == Fake().describe()


def test_an_unknown_kind_of_answer_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="output: 0 is unknown"):
        model_card(pb.DescribeResponse())


def test_task_survives_the_round_trip() -> None:
    task = TaskSpec("{prompt} {text}", ("b", "a"))
    assert m.task(m.register_task_request(task)) == task


SETS = {
    "texts": ExampleSet(Examples(("a", "", "ü")), 8),
    "pairs": ExampleSet(Examples(("a", "b"), ("", "d")), 0, Perturbation(0.0, 0)),
    "perturbed": ExampleSet(Examples(("a",)), 8, Perturbation(0.3, 2**64 - 1)),
    "images": ExampleSet(Examples(images=np.arange(24, dtype=np.uint8).reshape(2, 1, 3, 4)), 0),
    "labelled": ExampleSet(Examples(("a", "b")), 8, labels=np.array([1, 0])),
}


@pytest.mark.parametrize("name", SETS)
def test_examples_survive_the_round_trip(name: str) -> None:
    request = m.register_examples_request("task", SETS[name])
    back = m.example_set(pb.RegisterExamplesRequest.FromString(request.SerializeToString()))
    assert request.task_id == "task"
    np.testing.assert_equal(repr(back), repr(SETS[name]))


def test_inline_examples_survive_the_round_trip() -> None:
    task = TaskSpec("{prompt} {text}", ("b", "a"))
    request = m.score_request((task, SETS["pairs"]), TextPrompts(("a",)), "key")
    assert m.scored_examples(request) == (task, SETS["pairs"]) and request.idempotency_key == "key"
    assert m.scored_examples(m.score_request("id", TextPrompts(("a",)))) == "id"
    with pytest.raises(InvalidRequest, match="no examples"):
        m.scored_examples(pb.ScoreRequest())


@pytest.mark.parametrize(
    "some", [pb.Example(text="a", text_pair="b"), pb.Example(text="a", label=0)], ids=["text_pair", "label"]
)
def test_examples_of_mixed_forms_are_refused(some: pb.Example) -> None:
    with pytest.raises(InvalidExamples, match="1 of them for 2"):
        m.example_set(pb.RegisterExamplesRequest(examples=pb.ExampleSet(examples=[some, pb.Example(text="c")])))


def test_handle_survives_the_round_trip() -> None:
    for truncation in (None, Truncation(), Truncation(2, 2**33)):
        handle = ExamplesHandle("id", 3, 2**40, truncation)
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
def test_prompts_survive_the_round_trip(prompts: Prompts) -> None:
    request = m.score_request("id", prompts)
    back = m.prompts(pb.ScoreRequest.FromString(request.SerializeToString()))
    assert request.examples_id == "id" and type(back) is type(prompts)
    np.testing.assert_equal(repr(back), repr(prompts))


ANSWERS = {
    Output.LABEL_LOGITS: FLOATS.reshape(2, 2, 3),
    Output.LABEL_LOGPROBS: FLOATS.reshape(2, 2, 3),
    Output.LABEL_ARGMAX: np.array([[1, 0]], np.int32),
    Output.LOSS_ONLY: np.array([0.1, 0.2, 0.3]),
}


@pytest.mark.parametrize("output", ANSWERS)
def test_answers_survive_the_round_trip(output: Output) -> None:
    usage, budget = Usage(4, 99, 1.25, 3, 0.5, 7), Budget(5, None, 0)
    scored = Scored(output, ANSWERS[output], "revision", usage, budget)
    response = m.score_response(scored, "id")
    back = m.scored(pb.ScoreResponse.FromString(response.SerializeToString()), output)
    assert np.array_equal(back.answer, scored.answer) and back.answer.dtype == scored.answer.dtype
    assert (back.revision, back.usage, back.budget) == ("revision", usage, budget) and response.examples_id == "id"


@pytest.mark.parametrize("output", ANSWERS)
def test_bounds_survive_the_round_trip(output: Output) -> None:
    marks = np.arange(ANSWERS[output].size).reshape(ANSWERS[output].shape) % 2 == 0
    scored = Scored(output, ANSWERS[output], "revision", Usage(bounded_scores=3), bounds=marks)
    back = m.scored(m.score_response(scored, "id"), output)
    assert back.bounds is not None and back.bounds.dtype == bool and np.array_equal(back.bounds, marks)
    assert back.usage.bounded_scores == 3
    assert not m.score_response(Scored(output, ANSWERS[output], "revision", Usage()), "id").HasField("bounds")


@pytest.mark.parametrize(
    "marks", [np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.int32), np.full((2, 2, 3), 2, np.uint8)]
)
def test_bounds_of_another_form_are_refused(marks: np.ndarray) -> None:
    response = pb.ScoreResponse(scores=to_message(ANSWERS[Output.LABEL_LOGITS]), bounds=to_message(marks))
    with pytest.raises(InvalidTensor, match=r"bounds: .* uint8 of shape \[2, 2, 3\], each 0 or 1"):
        m.scored(response, Output.LABEL_LOGITS)


def test_a_missing_part_is_refused() -> None:
    scored = Scored(Output.LOSS_ONLY, ANSWERS[Output.LOSS_ONLY], "revision", Usage())
    assert scored.losses is scored.answer
    for read in (lambda: scored.scores, lambda: scored.choices):
        with pytest.raises(OutputWithheld, match="loss-only"):
            read()


def test_answers_of_another_kind_or_shape_are_refused() -> None:
    scores = pb.ScoreResponse(scores=to_message(FLOATS))
    with pytest.raises(InvalidTensor, match="rank 3"):
        m.scored(scores, Output.LABEL_LOGITS)
    with pytest.raises(InvalidTensor, match="an answer of scores"):
        m.scored(scores, Output.LOSS_ONLY)


def test_usage_survives_the_round_trip() -> None:
    used, tasks = Usage(4, 99, 1.25, 3, 0.5, 7), {"task": Usage(1), "": Usage(3)}
    response = usage_messages.get_usage_response(used, Budget(tokens=3), 2, tasks)
    assert usage_messages.usage(response.usage) == used and response.handles == 2
    assert usage_messages.budget(response.budget) == Budget(tokens=3)
    assert {each.task_id: usage_messages.usage(each.usage) for each in response.tasks} == tasks

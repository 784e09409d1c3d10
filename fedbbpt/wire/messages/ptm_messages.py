"""Converts tasks, examples, prompts and answers between `fedbbpt.types` and the messages of ptm.proto.

A function with the name of a type reads it from its message; one with the name of a message writes it. Unreadable
messages raise InvalidRequest, or the more specific error that ptm.proto names for the rpc. A message can hold millions
of empty parts, each of which would become an object, so parts are counted before they are read.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidExamples, InvalidRequest, InvalidTensor
from fedbbpt.limits import MAX_EXAMPLES
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import (
    ExampleKind,
    Examples,
    ExampleSet,
    ExamplesHandle,
    Output,
    Perturbation,
    Prompts,
    Scored,
    TaskSpec,
    Truncation,
)
from fedbbpt.types.examples import check_class_count
from fedbbpt.v1 import tensor_pb2
from fedbbpt.wire import tensors
from fedbbpt.wire.messages import prompt_messages
from fedbbpt.wire.messages.durations import duration
from fedbbpt.wire.messages.prompt_messages import PROMPT_KINDS, prompts_message
from fedbbpt.wire.messages.usage_messages import budget, budget_message, usage, usage_message

T = TypeVar("T")

_ANSWERS = {
    Output.LOSS_ONLY: ("losses", np.dtype(np.float64), 1),
    Output.LABEL_ARGMAX: ("choices", np.dtype(np.int32), 2),
    Output.LABEL_LOGPROBS: ("scores", np.dtype(np.float32), 3),
    Output.LABEL_LOGITS: ("scores", np.dtype(np.float32), 3),
}
"""The field of `answer`, its type and its rank, for each output."""


# The task


def _task_message(task: TaskSpec) -> pb.Task:
    return pb.Task(template=task.template, classes=task.classes)


def _task(message: pb.Task) -> TaskSpec:
    check_class_count(len(message.classes))
    return TaskSpec(message.template, tuple(message.classes))


def register_task_request(task: TaskSpec) -> pb.RegisterTaskRequest:
    """Writes a task to register."""
    return pb.RegisterTaskRequest(task=_task_message(task))


def task(request: pb.RegisterTaskRequest) -> TaskSpec:
    """Reads a task to register. Raises InvalidTask if it has too many classes."""
    return _task(request.task)


# Examples


def register_examples_request(task_id: str, examples: ExampleSet) -> pb.RegisterExamplesRequest:
    """Writes examples to register."""
    return pb.RegisterExamplesRequest(task_id=task_id, examples=_example_set_message(examples))


def example_set(request: pb.RegisterExamplesRequest) -> ExampleSet:
    """Reads examples to register. Raises InvalidExamples, InvalidTensor."""
    return _example_set(request.examples)


def _example_set_message(examples: ExampleSet) -> pb.ExampleSet:
    inputs = examples.examples
    message = pb.ExampleSet(prompt_tokens=examples.prompt_tokens)
    if examples.perturbation is not None:
        message.perturbation.CopyFrom(pb.Perturbation(rate=examples.perturbation.rate, seed=examples.perturbation.seed))
    for row in range(len(inputs)):
        one = message.examples.add()
        if inputs.kind is ExampleKind.IMAGES:
            one.image.CopyFrom(tensors.to_message(inputs.pixels()[row]))
        else:
            one.text = inputs.texts[row]
        if inputs.pairs is not None:
            one.text_pair = inputs.pairs[row]
        if examples.labels is not None:
            one.label = int(examples.labels[row])
    return message


def _example_set(message: pb.ExampleSet) -> ExampleSet:
    if len(message.examples) > MAX_EXAMPLES:
        what, fix = f"{len(message.examples)} examples", f"at most {MAX_EXAMPLES}"
        raise InvalidExamples(what, where="examples", fix=fix)
    perturbation = None
    if message.HasField("perturbation"):
        perturbation = Perturbation(message.perturbation.rate, message.perturbation.seed)
    labels = _of_all([one.label for one in message.examples if one.HasField("label")], len(message.examples), "label")
    array = None if labels is None else np.array(labels, np.int64)
    return ExampleSet(_examples(message.examples), message.prompt_tokens, perturbation, array)


def _of_all(found: Sequence[T], count: int, where: str) -> Sequence[T] | None:
    """Returns a part that all examples have, or None if none has it. Raises InvalidExamples if only some have it."""
    if found and len(found) < count:
        what = f"{len(found)} of them for {count} examples"
        raise InvalidExamples(what, where=where, fix="one for each example, or none at all")
    return found or None


def _examples(messages: Sequence[pb.Example]) -> Examples:
    if images := [message.image for message in messages if message.HasField("image")]:
        return _images(images, len(messages))
    pairs = _of_all([one.text_pair for one in messages if one.HasField("text_pair")], len(messages), "text_pair")
    return Examples(tuple(message.text for message in messages), None if pairs is None else tuple(pairs))


def _images(messages: Sequence[tensor_pb2.Tensor], count: int) -> Examples:
    images = [tensors.from_message(image, where=f"examples[{row}].image") for row, image in enumerate(messages)]
    shapes = {(image.shape, image.dtype) for image in images}
    if len(images) < count or len(shapes) > 1 or images[0].ndim != 3 or images[0].dtype != np.uint8:
        what = f"{len(images)} images for {count} examples, of {len(shapes)} kinds"
        raise InvalidExamples(what, where="image", fix="one uint8 [C, H, W] for each example, all of one shape")
    return Examples(images=np.stack(images))


def register_examples_response(handle: ExamplesHandle, time_to_live_seconds: float) -> pb.RegisterExamplesResponse:
    """Writes a handle."""
    cut = handle.truncation
    return pb.RegisterExamplesResponse(
        examples_id=handle.id,
        count=handle.count,
        tokens=handle.tokens,
        time_to_live=duration(time_to_live_seconds),
        truncated_examples=None if cut is None else cut.examples,
        truncated_tokens=None if cut is None else cut.tokens,
    )


def examples_handle(response: pb.RegisterExamplesResponse) -> ExamplesHandle:
    """Reads a handle."""
    told = response.HasField("truncated_examples") and response.HasField("truncated_tokens")
    cut = Truncation(response.truncated_examples, response.truncated_tokens) if told else None
    return ExamplesHandle(response.examples_id, response.count, response.tokens, cut)


# Prompts and scores


def score_request(
    examples: str | tuple[TaskSpec, ExampleSet], prompts: Prompts, idempotency_key: str = ""
) -> pb.ScoreRequest:
    """Writes a call; `examples` is a handle, or the examples themselves with their task."""
    request = pb.ScoreRequest(idempotency_key=idempotency_key)
    if isinstance(examples, str):
        request.examples_id = examples
    else:
        task, inline = examples
        request.inline.CopyFrom(pb.InlineExamples(task=_task_message(task), examples=_example_set_message(inline)))
    field, message = prompts_message(prompts)
    getattr(request, field).CopyFrom(message)
    return request


def scored_examples(request: pb.ScoreRequest) -> str | tuple[TaskSpec, ExampleSet]:
    """Reads the examples of a call: a handle, or the examples themselves with their task.

    Raises InvalidRequest, InvalidTask, InvalidExamples, InvalidTensor.
    """
    kind = request.WhichOneof("examples")
    if kind == "inline":
        return _task(request.inline.task), _example_set(request.inline.examples)
    if kind == "examples_id":
        return request.examples_id
    raise InvalidRequest("no examples", where="examples", fix="examples_id, or inline")


def prompts(request: pb.ScoreRequest) -> Prompts:
    """Reads the prompts of a call. Raises InvalidRequest, InvalidTensor, UnsupportedPrompt."""
    field = request.WhichOneof("prompts")
    if field is None:
        raise InvalidRequest("no prompts", where="prompts", fix=f"one of {', '.join(PROMPT_KINDS)}")
    return prompt_messages.prompts(field, getattr(request, field))


def score_response(scored: Scored, examples_id: str) -> pb.ScoreResponse:
    """Writes an answer."""
    response = pb.ScoreResponse(
        revision=scored.revision,
        usage=usage_message(scored.usage),
        examples_id=examples_id,
        budget=budget_message(scored.budget),
    )
    part, _, _ = _ANSWERS[scored.output]
    getattr(response, part).CopyFrom(tensors.to_message(scored.answer))
    if scored.bounds is not None:
        response.bounds.CopyFrom(tensors.to_message(scored.bounds.astype(np.uint8)))
    return response


def scored(response: pb.ScoreResponse, output: Output) -> Scored:
    """Reads an answer of a service whose card promises `output`. Raises InvalidTensor for any other answer."""
    part, dtype, rank = _ANSWERS[output]
    if response.WhichOneof("answer") != part:
        found = response.WhichOneof("answer")
        raise InvalidTensor(f"an answer of {found}", where="answer", fix=f"{part}, as the service's card says")
    answer = tensors.from_message(getattr(response, part), where=part)
    if answer.dtype != dtype or answer.ndim != rank:
        raise InvalidTensor(f"{answer.dtype} of shape {answer.shape}", where=part, fix=f"{dtype} of rank {rank}")
    bounds = _bounds(response, answer.shape) if response.HasField("bounds") else None
    return Scored(output, answer, response.revision, usage(response.usage), budget(response.budget), bounds)


def _bounds(response: pb.ScoreResponse, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    marks = tensors.from_message(response.bounds, where="bounds")
    if marks.dtype != np.uint8 or marks.shape != shape or marks.max(initial=0) > 1:
        what, fix = f"{marks.dtype} of shape {list(marks.shape)}", f"uint8 of shape {list(shape)}, each 0 or 1"
        raise InvalidTensor(what, where="bounds", fix=fix)
    return marks.astype(bool)

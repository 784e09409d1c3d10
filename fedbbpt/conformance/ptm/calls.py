"""Runs the cases that are calls: valid requests, changed as the case says, with the status that each must return."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import json_format

from fedbbpt.conformance.ptm.cases import Call, Case, Fault
from fedbbpt.conformance.ptm.inputs import LENGTH
from fedbbpt.conformance.ptm.target import Refused
from fedbbpt.conformance.ptm.trial import Trial
from fedbbpt.conformance.results import Broken, Skipped
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import Array, ModelCard, PromptKind
from fedbbpt.types.call_sizes import prompts_per_call
from fedbbpt.v1 import tensor_pb2
from fedbbpt.wire.messages import ptm_messages
from fedbbpt.wire.tensors import to_message

FLOAT32_MAX = float(np.finfo(np.float32).max)


def make_calls(case: Case, trial: Trial) -> None:
    """Makes a case's calls one after the other, and checks their status. Rejected calls must cost nothing."""
    handle = trial.register(trial.me.inputs.task(), trial.me.inputs.examples(trial.rows))
    free = all(call.rpc != "Score" or call.code != "OK" for call in case.calls)
    before = trial.usage().usage
    for number, call in enumerate(case.calls):
        _make_call(call, request(call, trial, handle), trial, f"call {number + 1}, {call.rpc}")
    if free and (after := trial.usage().usage) != before:
        raise Broken(f"rejected calls cost {after.queries - before.queries} queries")


def _make_call(call: Call, message: Any, trial: Trial, where: str) -> None:
    target = trial.callers.get(call.caller)
    if target is None:
        raise Skipped("needs --other-token-file")
    size = message.ByteSize() + target.added_bytes
    if size > trial.card.max_message_bytes:
        raise Skipped(f"the message of {size} bytes exceeds the card's max_message_bytes")
    try:
        response = target.call(call.rpc, message)
    except Refused as refused:
        if refused.code != call.code:
            raise Broken(f"{where} fails with {refused}; expected {call.code}") from None
        if call.reason and refused.reason != call.reason:
            found = f"{refused.code} with reason {refused.reason!r} ({refused.text})"
            raise Broken(f"{where} fails with {found}; expected ErrorInfo with {call.reason!r}") from None
        return
    if call.rpc == "RegisterExamples":
        trial.remember(response.examples_id)
    if call.code != "OK":
        raise Broken(f"{where} succeeds; expected {call.code} {call.reason}")


def number(value: int | str, card: ModelCard) -> int:
    """Returns a number that a case gives as such, or as one of the card's limits: "max_prompts + 1"."""
    if isinstance(value, int):
        return value
    found = re.fullmatch(r"(max_\w+)(?: \+ (\d+))?", value)
    assert found is not None, f"{value!r} is not a number or a limit"
    return int(getattr(card, found[1])) + int(found[2] or 0)


def request(call: Call, trial: Trial, handle: str) -> Any:
    """Returns the request that a call describes. `handle` is that of the trial's examples."""
    inputs, card = trial.me.inputs, trial.card
    rows = trial.rows if call.examples is None else [trial.fresh + row for row in range(number(call.examples, card))]
    task, examples = inputs.task(), inputs.examples(rows)
    message: Any
    match call.rpc:
        case "Describe":
            message = pb.DescribeRequest()
        case "RegisterTask":
            message = ptm_messages.register_task_request(task)
        case "RegisterExamples":
            task_id = trial.call("RegisterTask", ptm_messages.register_task_request(task)).task_id
            message = ptm_messages.register_examples_request(task_id, examples)
        case "Score":
            count = number(call.prompts, card)
            if trial.kind is PromptKind.IMAGE and count > prompts_per_call(
                card, trial.prompts(1), 1, len(task.classes)
            ):
                raise Skipped("that number of images exceeds the card's max_message_bytes")
            length = LENGTH if call.length is None else number(call.length, card)
            prompts = inputs.prompts(trial.kind, count, seed=trial.name, injection=trial.injection, length=length)
            message = ptm_messages.score_request((task, examples) if call.inline else handle, prompts)
            if call.tensor is not None:
                array: Array = prompts.values
                _tensor(message).CopyFrom(corrupted(call.tensor, array, card))
        case "Release":
            message = pb.ReleaseRequest(examples_id=handle)
        case "GetUsage":
            message = pb.GetUsageRequest()
    for path, value in call.change.items():
        _change(message, path.split("."), _value(value, card))
    return message


def _tensor(message: pb.ScoreRequest) -> tensor_pb2.Tensor:
    prompts = getattr(message, message.WhichOneof("prompts") or "")
    found: tensor_pb2.Tensor = getattr(prompts, prompts.DESCRIPTOR.fields[0].name)
    return found


def corrupted(fault: Fault, array: Array, card: ModelCard) -> tensor_pb2.Tensor:
    """Returns the tensor with a fault that every service must detect. Raises Skipped if it cannot have that fault."""
    if fault in ("nan", "infinite", "far") and array.dtype.kind != "f":
        raise Skipped("integers are always finite")
    message = to_message(array)
    match fault:
        case "nan":
            message = to_message(_with_last(array, np.nan))
        case "infinite":
            message = to_message(_with_last(array, np.inf))
        case "far":
            # One large element is enough to make a vector's norm too large.
            far = 1.5 * (card.max_latent if array.ndim == 2 else card.max_vector_norm)
            if not far < FLOAT32_MAX:
                raise Skipped("the card allows every float32 number")
            message = to_message(_with_last(array, far))
        case "short":
            message.data = message.data[:-1]
        case "long":
            message.data += b"\0"
        case "rank":
            message = to_message(array.reshape(-1))
        case "dtype":
            message = to_message(array.astype(np.float64 if array.dtype.kind == "f" else np.int64))
        case "no-dtype":
            message.dtype = tensor_pb2.D_TYPE_UNSPECIFIED
        case "empty":
            message = to_message(array[..., :0])
        case "negative":
            message.shape[0] = -message.shape[0]
    return message


def _with_last(array: Array, value: float) -> Array:
    copy = array.copy()
    copy.flat[-1] = value
    return copy


def _change(message: Any, path: list[str], value: Any) -> None:
    """Replaces the field at a path by a value in JSON; None clears the field."""
    *parents, last = path
    for step in parents:
        message = message[int(step)] if step.isdigit() else getattr(message, step)
    message.ClearField(last)
    if value is not None:
        json_format.ParseDict({last: value}, message)


def _value(value: Any, card: ModelCard) -> Any:
    if isinstance(value, list):
        return [_value(each, card) for each in value]
    if not isinstance(value, Mapping):
        return value
    if value.keys() == {"number"}:
        return number(value["number"], card)
    if value.keys() == {"repeat", "times"}:
        return value["repeat"] * number(value["times"], card)
    if value.keys() == {"clear"}:
        return None
    return {key: _value(each, card) for key, each in value.items()}

"""Cases that are calls: a sound request, changed as the case says, and the status that it has to give."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import json_format

from fedbbpt.conformance.cases import Call, Case, Fault
from fedbbpt.conformance.inputs import FIELDS, LENGTH
from fedbbpt.conformance.target import Refused
from fedbbpt.conformance.trial import Broken, Skipped, Trial
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.tasks.sizes import prompts_of_a_call
from fedbbpt.types import Array, ModelCard, PromptKind
from fedbbpt.v1 import tensor_pb2
from fedbbpt.wire.messages import ptm_messages
from fedbbpt.wire.tensors import to_message

FLOAT32_MAX = float(np.finfo(np.float32).max)


def play(case: Case, trial: Trial) -> None:
    """Makes the calls one after the other, and sees that refused ones cost nothing and leave the service well."""
    handle = trial.register(trial.me.inputs.task(), trial.me.inputs.examples(trial.rows))
    free = all(call.rpc != "Score" or call.code != "OK" for call in case.calls)
    before = trial.usage().usage
    for number, call in enumerate(case.calls):
        _play(call, request(call, trial, handle), trial, f"call {number + 1}, {call.rpc}")
    if free and (after := trial.usage().usage) != before:
        raise Broken(f"refused calls cost {after.queries - before.queries} queries")


def _play(call: Call, message: Any, trial: Trial, where: str) -> None:
    target = trial.callers.get(call.caller)
    if target is None:
        raise Skipped("needs --other-token-file")
    if message.ByteSize() > trial.card.max_message_bytes:
        raise Skipped(f"its message of {message.ByteSize()} bytes is beyond the card's max_message_bytes")
    try:
        response = target.call(call.rpc, message)
    except Refused as refused:
        if refused.code != call.code:
            raise Broken(f"{where} gives {refused}; wanted: {call.code}") from None
        if call.reason and refused.reason != call.reason:
            found = f"{refused.code} with reason {refused.reason!r} ({refused.text})"
            raise Broken(f"{where} gives {found}; wanted: ErrorInfo with {call.reason!r}") from None
        return
    if call.rpc == "RegisterExamples":
        trial.note(response.examples_id)
    if call.code != "OK":
        raise Broken(f"{where} is answered; wanted: {call.code} {call.reason}")


def number(value: int | str, card: ModelCard) -> int:
    """A number, or one of the card's limits and what is added to it: "max_prompts + 1"."""
    if isinstance(value, int):
        return value
    found = re.fullmatch(r"(max_\w+)(?: \+ (\d+))?", value)
    assert found is not None, f"{value!r} is no number"
    return int(getattr(card, found[1])) + int(found[2] or 0)


def request(call: Call, trial: Trial, handle: str) -> Any:
    """The request that the call describes."""
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
            if trial.kind is PromptKind.IMAGE and count > prompts_of_a_call(
                card, trial.prompts(1), 1, len(task.classes)
            ):
                raise Skipped("so many images are beyond the card's max_message_bytes")
            length = LENGTH if call.length is None else number(call.length, card)
            prompts = inputs.prompts(trial.kind, count, seed=trial.name, injection=trial.injection, length=length)
            message = ptm_messages.score_request((task, examples) if call.inline else handle, prompts)
            if call.tensor is not None:
                array: Array = getattr(prompts, FIELDS[type(prompts)])
                _tensor(message).CopyFrom(spoil(call.tensor, array, card))
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


def spoil(fault: Fault, array: Array, card: ModelCard) -> tensor_pb2.Tensor:
    """What nobody may take for the tensor that it was."""
    if fault in ("nan", "infinite", "far") and array.dtype.kind != "f":
        raise Skipped("integers are always finite")
    message = to_message(array)
    match fault:
        case "nan":
            message = to_message(_with_last(array, np.nan))
        case "infinite":
            message = to_message(_with_last(array, np.inf))
        case "far":
            # An element of that size makes a vector of at least that length.
            far = 1.5 * (card.max_latent if array.ndim == 2 else card.max_vector_norm)
            if not far < FLOAT32_MAX:
                raise Skipped("the card allows all of float32")
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
    """Puts a value in JSON where the path leads, in place of what was there."""
    *way, last = path
    for step in way:
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

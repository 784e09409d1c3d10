"""Parses requests, and checks the length of every list, text and byte string in them before any work is done.

A message of 32 MiB holds millions of short entries, and each costs whoever looks at it far more than its few bytes
cost the sender. Every field has a limit: its own in `LIMITS`, or else the default of its kind. A limit here is a bound
for what any caller may send; models, methods and runs have smaller ones, which are checked where they are known.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from fedbbpt.errors import InvalidRequest
from fedbbpt.limits import (
    MAX_CLASSES,
    MAX_EXAMPLES,
    MAX_JOB_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_PROMPTS,
    MAX_RANK,
    MAX_RUN_CLIENTS,
    MAX_RUN_TOKENS,
    MAX_START_BYTES,
    MAX_TASK_CHARACTERS,
    MAX_TENSORS,
    MAX_TEXT_CHARACTERS,
)


@dataclass(frozen=True, slots=True)
class Limit:
    """The limits of one field."""

    entries: int = 1024
    """Entries of a list or of a map."""
    length: int = 4096
    """Characters of a text, or bytes of a byte string; in a list, of each."""


TEXT, BYTES = Limit(), Limit(length=MAX_MESSAGE_BYTES)
"""The defaults. A byte string costs no more than its bytes, so the message's own limit is enough, except in lists."""
LIMITS = {
    "fedbbpt.v1.ReportTroubleRequest.text": Limit(length=2**16),
    "fedbbpt.v1.SubmitRunRequest.job": Limit(length=2 * MAX_JOB_BYTES),
    "fedbbpt.v1.SubmitRunRequest.start": Limit(length=2 * MAX_START_BYTES),
    "fedbbpt.v1.SubmitRunRequest.tokens": Limit(2 * MAX_RUN_TOKENS),
    "fedbbpt.v1.JoinRequest.codecs": Limit(64),
    "fedbbpt.v1.TensorBundle.tensors": Limit(2 * MAX_TENSORS),
    "fedbbpt.v1.TensorSpec.shape": Limit(2 * MAX_RANK),
    "fedbbpt.v1.Tensor.shape": Limit(2 * MAX_RANK),
    "fedbbpt.v1.SecureShares.boxes": Limit(MAX_RUN_CLIENTS),
    "fedbbpt.v1.SecureConsent.seeds": Limit(MAX_RUN_CLIENTS),
    "fedbbpt.v1.SecureReveal.shares": Limit(MAX_RUN_CLIENTS),
    "fedbbpt.v1.SecureRefusal.survivors": Limit(MAX_RUN_CLIENTS),
    "fedbbpt.v1.Projection.initial_text": Limit(length=2 * MAX_TASK_CHARACTERS),
    "fedbbpt.v1.TextPrompts.texts": Limit(2 * MAX_PROMPTS, 2 * MAX_TEXT_CHARACTERS),
    "fedbbpt.ptm.v1.Task.template": Limit(length=2 * MAX_TASK_CHARACTERS),
    "fedbbpt.ptm.v1.Task.classes": Limit(2 * MAX_CLASSES, 2 * MAX_TASK_CHARACTERS),
    "fedbbpt.ptm.v1.ExampleSet.examples": Limit(2 * MAX_EXAMPLES),
    # By contract an unknown handle of any length is released: it is looked up, and nothing else.
    "fedbbpt.ptm.v1.ReleaseRequest.examples_id": Limit(length=MAX_MESSAGE_BYTES),
    "fedbbpt.ptm.v1.Example.text": Limit(length=2 * MAX_TEXT_CHARACTERS),
    "fedbbpt.ptm.v1.Example.text_pair": Limit(length=2 * MAX_TEXT_CHARACTERS),
}
"""The limits of the fields that need others than the default, by the field's full name.

Where a service has a limit and an error of its own, twice as much passes here, so that it is the service that answers.
"""


def parsed(data: bytes, parse: Callable[[bytes], Any]) -> Any:
    """Returns the request in the bytes, within its limits. Raises InvalidRequest."""
    try:
        request = parse(data)
    except DecodeError:
        what = "the message cannot be parsed"
        raise InvalidRequest(what, where="request", fix="this rpc's request message") from None
    if isinstance(request, Message):
        check_fields(request)
    return request


def check_fields(message: Message) -> None:
    """Raises InvalidRequest if a field of the message, or of a message in it, exceeds its limit."""
    for field, value in message.ListFields():
        limit, kind, repeated = _rules(field)
        if repeated and len(value) > limit.entries:
            _refuse(field, f"{len(value):,} entries", limit.entries)
        if kind is None:
            continue
        for each in _entries(field, value) if repeated else (value,):
            if kind is Message:
                check_fields(each)
            elif len(each) > limit.length:
                _refuse(field, f"{len(each):,} {'bytes' if kind is bytes else 'characters'}", limit.length)


def limit_of(field: FieldDescriptor) -> Limit:
    """Returns the limit of a field."""
    single_bytes = field.type == FieldDescriptor.TYPE_BYTES and not field.is_repeated
    return LIMITS.get(field.full_name, BYTES if single_bytes else TEXT)


@cache
def _rules(field: FieldDescriptor) -> tuple[Limit, type | None, bool]:
    """Returns a field's limit, what it holds if that has a length of its own, and whether it is a list or a map."""
    kinds = {FieldDescriptor.TYPE_MESSAGE: Message, FieldDescriptor.TYPE_STRING: str, FieldDescriptor.TYPE_BYTES: bytes}
    return limit_of(field), kinds.get(field.type), field.is_repeated


def _entries(field: FieldDescriptor, value: Any) -> Any:
    """Returns the entries of a list or of a map; those of a map are messages of a key and a value."""
    made = field.message_type
    if made is None or not made.GetOptions().map_entry:
        return value
    entry = value.GetEntryClass()
    if made.fields_by_name["value"].message_type is None:
        return [entry(key=key, value=value[key]) for key in value]
    return [each for key in value for each in (entry(key=key), value[key])]


def _refuse(field: FieldDescriptor, what: str, most: int) -> None:
    raise InvalidRequest(what, where=field.name, fix=f"at most {most:,}")

"""Every list, map, text and byte string of every request has a limit, which is checked before anything is done."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest
from google.protobuf import struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import fedbbpt.v1
from fedbbpt.errors import InvalidRequest
from fedbbpt.limits import MAX_MESSAGE_BYTES
from fedbbpt.ptm import v1 as ptm
from fedbbpt.v1 import coordinator_pb2
from fedbbpt.wire.request_limits import LIMITS, Limit, check_fields, limit_of, parsed

MODULES = [
    import_module(f"{package.__name__}.{module.name}")
    for package in (fedbbpt.v1, ptm)
    for module in iter_modules(package.__path__)
    if module.name.endswith("_pb2")
]


def messages() -> dict[str, Descriptor]:
    """Returns every request message of every service, and the messages in them, by name."""
    found: dict[str, Descriptor] = {}
    waiting = [
        method.input_type
        for module in MODULES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    while waiting:
        made = waiting.pop()
        if made.full_name not in found:
            found[made.full_name] = made
            waiting += [field.message_type for field in made.fields if field.message_type]
    return found


def limited() -> Iterator[FieldDescriptor]:
    """Yields every field that has a length."""
    for made in messages().values():
        for field in made.fields:
            if field.is_repeated or field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
                yield field


def one(field: FieldDescriptor, length: int = 0) -> Any:
    """Returns a value of the field: a text or byte string of this length, a number, or an empty message."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return "a" * length
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes(length)
    return 0 if (made := field.message_type) is None else GetMessageClass(made)()


def holding(field: FieldDescriptor, value: Any) -> Message:
    assert field.containing_type is not None
    return GetMessageClass(field.containing_type)(**{field.name: value})


@pytest.mark.parametrize("field", [*limited()], ids=lambda field: field.full_name)
def test_field_is_limited(field: FieldDescriptor) -> None:
    """Kills: cheap calls that cost much, such as a list of a million entries that somebody goes through."""
    limit = limit_of(field)
    assert 0 < limit.entries <= 20_000 and 0 < limit.length <= MAX_MESSAGE_BYTES
    long = field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    if long and limit.length < MAX_MESSAGE_BYTES:
        longest, too_long = one(field, limit.length), one(field, limit.length + 1)
        check_fields(holding(field, [longest] if field.is_repeated else longest))
        with pytest.raises(InvalidRequest, match=rf"{field.name}: [\d,]+ (characters|bytes); at most {limit.length:,}"):
            check_fields(holding(field, [too_long] if field.is_repeated else too_long))
    if field.is_repeated:
        check_fields(holding(field, [one(field)] * limit.entries))
        with pytest.raises(InvalidRequest, match=rf"{field.name}: {limit.entries + 1:,} entries; at most"):
            check_fields(holding(field, [one(field)] * (limit.entries + 1)))


def test_no_limit_is_for_a_field_that_is_not_there() -> None:
    assert set(LIMITS) <= {field.full_name for field in limited()}


def test_fields_inside_other_messages_are_limited() -> None:
    inner = coordinator_pb2.TakePartRequest()
    for _ in range(2049):
        inner.update.arrays.tensors.add()
    with pytest.raises(InvalidRequest, match="tensors: 2,049 entries; at most 2,048"):
        parsed(inner.SerializeToString(), coordinator_pb2.TakePartRequest.FromString)


def test_entries_and_keys_of_maps_are_limited() -> None:
    """Kills: a map of 1.5 million entries, which took a minute of everybody's time."""
    limit = Limit()
    for fields in ({str(n): n for n in range(limit.entries + 1)}, {"a" * (limit.length + 1): 0}, {"a": "b" * 5000}):
        message = struct_pb2.Struct()
        message.update(fields)
        with pytest.raises(InvalidRequest, match="at most"):
            check_fields(message)


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="cannot be parsed"):
        parsed(b"\xff" * 10, coordinator_pb2.JoinRequest.FromString)

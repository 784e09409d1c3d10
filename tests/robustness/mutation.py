"""Random damage to messages: fields with extreme values, and bytes that are flipped, cut, repeated or put in."""

import math
import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

Kind = FieldDescriptor
_INTEGERS = {
    Kind.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    Kind.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    Kind.CPPTYPE_UINT32: (0, 2**32 - 1),
    Kind.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = (0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e300, -1e300, 1.7e308, 5e-324, 3.5e38)
_TEXTS = (
    "",
    "\x00",
    "é",
    "\U0001f600",
    "{prompt} {text}",
    "{mask}",
    "{",
    "}",
    "../..",
    "a" * 5000,
    "\n",
    "\ud7ff",
    "0",
)
_COUNTS = (0, 1, 2, 3, 17, 300)


def damaged(message: Message, draw: random.Random) -> bytes:
    """Returns the bytes of a copy of the message with one to three random changes."""
    changed = type(message)()
    changed.CopyFrom(message)
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
        _change_field(changed, draw)
    data = changed.SerializeToString()
    for _ in range(draw.choice((0, 0, 0, 1, 2))):
        data = _change_bytes(data, draw)
    return data


def _change_field(message: Message, draw: random.Random) -> None:
    """Changes one field of the message, or of a message inside it."""
    fields: Any = message.DESCRIPTOR.fields
    if not fields:
        return
    field: FieldDescriptor = draw.choice(fields)
    inside = field.cpp_type == Kind.CPPTYPE_MESSAGE
    if field.is_repeated:
        _change_repeated(getattr(message, field.name), field, draw)
    elif inside and draw.random() < 0.9:
        _change_field(getattr(message, field.name), draw)
        getattr(message, field.name).SetInParent()
    elif draw.random() < 0.3 or inside:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _value(field, draw))


def _change_repeated(values: Any, field: FieldDescriptor, draw: random.Random) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        values.clear()
    elif values and draw.random() < 0.5:
        index = draw.randrange(len(values))
        if field.cpp_type == Kind.CPPTYPE_MESSAGE and draw.random() < 0.8:
            _change_field(values[index], draw)
        elif field.cpp_type == Kind.CPPTYPE_MESSAGE or draw.random() < 0.5:
            del values[index]
        else:
            values[index] = _value(field, draw)
    else:
        for _ in range(draw.choice(_COUNTS)):
            if field.cpp_type == Kind.CPPTYPE_MESSAGE:
                added = values.add()
                if draw.random() < 0.5:
                    _change_field(added, draw)
            else:
                values.append(_value(field, draw))


def _value(field: FieldDescriptor, draw: random.Random) -> Any:
    if field.cpp_type in _INTEGERS:
        least, most = _INTEGERS[field.cpp_type]
        return min(
            most, max(least, draw.choice((least, most, -1, 0, 1, 2, 3, 65, 2**20, 2**31 - 1, draw.getrandbits(62))))
        )
    if field.cpp_type in (Kind.CPPTYPE_FLOAT, Kind.CPPTYPE_DOUBLE):
        return draw.choice(_FLOATS)
    if field.cpp_type == Kind.CPPTYPE_ENUM:
        assert field.enum_type is not None
        return draw.choice((*field.enum_type.values_by_number, 99, -1))
    if field.cpp_type == Kind.CPPTYPE_BOOL:
        return draw.random() < 0.5
    if field.type == Kind.TYPE_BYTES:
        return draw.randbytes(draw.choice((0, 1, 4, 16, 1000)))
    return draw.choice(_TEXTS)


def _change_bytes(data: bytes, draw: random.Random) -> bytes:
    at, to = sorted((draw.randint(0, len(data)), draw.randint(0, len(data))))
    match draw.randrange(5):
        case 0 if data:
            at = min(at, len(data) - 1)
            return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
        case 1:
            return data[:at]
        case 2:
            return data[:at] + draw.randbytes(draw.choice((1, 2, 8, 100))) + data[at:]
        case 3:
            return data[:at] + data[to:]
        case _:
            return data[:to] + data[at:to] + data[to:]

"""Messages of any kind, filled at random with values that hurt."""

from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.support.hostile_requests import text

_WHOLE = [0, 1, 2, 127, 2**16, 2**31 - 1, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1]
_LIMITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
_STRINGS = [
    "",
    "headrace",
    "../../etc/passwd",
    "a" * 64,
    "0" * 64,
    "x" * 5000,
    "\0",
    "file:///etc/passwd",
    "latest",
    "1",
]


def request_of(random: Random, method: MethodDescriptor) -> bytes:
    """A serialised request of a method: made at random, or nothing that it could read."""
    if random.random() < 0.2:
        return random.randbytes(random.randint(0, 60))
    message = random_message(random, GetMessageClass(method.input_type))
    whole = message.SerializeToString()
    return whole if random.random() < 0.9 else whole[: random.randrange(len(whole) + 1)]


def random_message(random: Random, kind: type[Message], depth: int = 3) -> Message:
    """One with some of its fields set; maps stay empty."""
    message: Any = kind()
    for field in kind.DESCRIPTOR.fields:
        if random.random() < 0.3 or (field.message_type is not None and not depth):
            continue
        if field.message_type is not None:
            _fill_message(random, message, field, depth)
        elif field.is_repeated:
            getattr(message, field.name).extend([_value(random, field) for _ in range(random.randint(0, 4))])
        else:
            setattr(message, field.name, _value(random, field))
    return message  # type: ignore[no-any-return]


def _fill_message(random: Random, message: Any, field: Any, depth: int) -> None:
    if field.message_type.GetOptions().map_entry:
        return
    kind = GetMessageClass(field.message_type)
    if field.is_repeated:
        getattr(message, field.name).extend(
            [random_message(random, kind, depth - 1) for _ in range(random.randint(0, 4))]
        )
    else:
        getattr(message, field.name).CopyFrom(random_message(random, kind, depth - 1))


def _value(random: Random, field: Any) -> object:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return random.random() < 0.5
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return random.choice([0.0, -1.0, float("nan"), float("inf"), 1e38])
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return random.randbytes(random.randint(0, 40))
        case FieldDescriptor.CPPTYPE_STRING:
            return random.choice([*_STRINGS, text(random, 40)])
    least, most = _LIMITS[field.cpp_type]
    return max(least, min(most, random.choice([1, -1]) * random.choice(_WHOLE)))

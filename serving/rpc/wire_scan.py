"""What the bytes of a message hold, counted before anything is made of them.

A parser needs time and memory for every field, however small. A scan only walks over the tags, so
that a message which is no request, or which is more than any request needs, costs next to nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor

from spiketrain.runtime.errors import RequestError

MAX_FIELDS = 1 << 16  # of a message and all that it holds; numbers of packed lists are not fields
MAX_PARTS = 1 << 14  # texts and messages among them
MAX_NUMBERS = 1 << 20  # in lists, all together

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT = 10
_WIRES = {
    **dict.fromkeys((FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FIXED64), _FIXED64),
    **dict.fromkeys((FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_FIXED32), _FIXED32),
    **dict.fromkeys((FieldDescriptor.TYPE_SFIXED64,), _FIXED64),
    **dict.fromkeys((FieldDescriptor.TYPE_SFIXED32,), _FIXED32),
    **dict.fromkeys((FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES), _LENGTH),
    **dict.fromkeys((FieldDescriptor.TYPE_MESSAGE,), _LENGTH),
}  # all others are varints


@dataclass(frozen=True, slots=True)
class Field:
    """How a known field is encoded.

    wire: its type on the wire. repeated_number: whether a list of it may be packed.
    inner: the shape of a message, else None.
    """

    wire: int
    repeated_number: bool
    inner: "Shape | None"

    def may_have(self, wire: int) -> bool:
        """Whether a parser takes this wire type for the field."""
        return wire == self.wire or (self.repeated_number and wire == _LENGTH)


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields of a kind of message, by number."""

    name: str
    fields: Mapping[int, Field]


@cache
def shape_of(descriptor: Any) -> Shape:
    """The shape of a message's descriptor, whose messages do not hold their own kind."""
    return Shape(
        descriptor.full_name, {field.number: _field_of(field) for field in descriptor.fields}
    )


def _field_of(field: Any) -> Field:
    wire = _WIRES.get(field.type, _VARINT)
    inner = None if field.message_type is None else shape_of(field.message_type)
    return Field(wire, field.is_repeated and wire != _LENGTH, inner)


def scan(data: bytes, shape: Shape) -> None:
    """Raise RequestError for bytes that are malformed, hold unknown fields or too many known ones.

    Takes time for each field, up to MAX_FIELDS of them, and none for the length of texts.
    """
    try:
        _Scan(data).message(shape, 0, len(data))
    except IndexError:
        raise malformed(len(data)) from None


def malformed(size: int) -> RequestError:
    """The error of so many bytes that are no message."""
    rule = "be a well-formed message whose text is valid UTF-8"
    return RequestError("request", rule, f"{size} bytes")


class _Scan:
    """The counts of one message. IndexError where the bytes end too soon."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._fields = self._parts = self._numbers = 0

    def message(self, shape: Shape, at: int, end: int) -> None:
        """Walk over a message that lies from `at` to `end`."""
        while at < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise _too_many(MAX_FIELDS, "fields", self._fields)
            tag, at = self._varint(at)
            number, wire = tag >> 3, tag & 7
            field = shape.fields.get(number)
            if field is None or not field.may_have(wire):
                raise _unknown(shape, number)
            at = self._length(field, at) if wire == _LENGTH else self._number(field, wire, at)
        if at > end:
            raise IndexError

    def _number(self, field: Field, wire: int, at: int) -> int:
        if field.repeated_number:
            self._count(1)
        return self._varint(at)[1] if wire == _VARINT else at + _SIZES[wire]

    def _length(self, field: Field, at: int) -> int:
        size, at = self._varint(at)
        end = at + size
        if end > len(self._data):
            raise IndexError
        if field.repeated_number:
            self._count(self._packed(field, at, size))
            return end
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _too_many(MAX_PARTS, "texts and messages", self._parts)
        if field.inner is not None:
            self.message(field.inner, at, end)
        return end

    def _packed(self, field: Field, at: int, size: int) -> int:
        """How many numbers a packed list has: the last byte of a varint is below 128."""
        if field.wire != _VARINT:
            return size // _SIZES[field.wire]
        return int(np.count_nonzero(np.frombuffer(self._data, np.int8, size, at) >= 0))

    def _count(self, numbers: int) -> None:
        self._numbers += numbers
        if self._numbers > MAX_NUMBERS:
            raise _too_many(MAX_NUMBERS, "numbers in lists", self._numbers)

    def _varint(self, at: int) -> tuple[int, int]:
        """A number and where it ends."""
        byte = self._data[at]
        if byte < 128:  # most are
            return byte, at + 1
        value = 0
        for index in range(_LONGEST_VARINT):
            byte = self._data[at + index]
            value |= (byte & 127) << 7 * index
            if byte < 128:
                return value, at + index + 1
        raise IndexError


def _unknown(shape: Shape, number: int) -> RequestError:
    rule = f"hold fields of {shape.name} that this server knows"
    return RequestError("request", rule, f"field number {number}")


def _too_many(most: int, what: str, count: int) -> RequestError:
    return RequestError("request", f"hold at most {most} {what}", count)

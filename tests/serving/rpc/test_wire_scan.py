"""Scans agree with the parser, and stop where a message is more than any request needs."""

import pytest
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings
from hypothesis import strategies as st

import spiketrain.v1.generation_pb2 as pb
from spiketrain.runtime.errors import RequestError
from spiketrain.serving.rpc.wire_scan import MAX_FIELDS, MAX_NUMBERS, MAX_PARTS, scan, shape_of

SHAPE = shape_of(pb.GenerateRequest.DESCRIPTOR)
FULL = pb.GenerateRequest(
    token_ids=pb.TokenIds(ids=[1, 300, 70000]),
    max_new_tokens=5,
    temperature=0.5,
    seed=2**63,
    stop_sequences=["x", "yz"],
    logit_bias={3: 1.5, 300: -2.0},
    allowed_token_ids=[1, 2, 3],
    session=pb.SessionTurn(id="abc", keep_cancelled=True),
    cache_salt="salt",
)
CHAT = pb.GenerateRequest(chat=pb.Chat(messages=[pb.ChatMessage(role="user", content="hi")] * 3))
SEEDS = [FULL.SerializeToString(), CHAT.SerializeToString()]


class Watched(bytes):
    """Bytes that count how often one of them is looked at."""

    reads = 0

    def __getitem__(self, at):
        self.reads += 1
        return super().__getitem__(at)


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value):
    head = []
    while value > 127:
        head.append(value & 127 | 128)
        value >>= 7
    return bytes([*head, value])


def holds_unknown(message):
    """Whether the parser kept a field that it does not know, anywhere."""
    if len(UnknownFieldSet(message)):
        return True
    for kind, value in message.ListFields():
        if isinstance(value, Message):
            parts = [value]
        elif kind.message_type is not None and not kind.message_type.GetOptions().map_entry:
            parts = list(value)
        else:
            parts = []
        if any(map(holds_unknown, parts)):
            return True
    return False


def accepted(data):
    try:
        scan(data, SHAPE)
    except RequestError:
        return False
    return True


@pytest.mark.parametrize("data", SEEDS)
def test_a_request_passes(data):
    assert accepted(data)


@st.composite
def damaged(draw):
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        kind = draw(st.sampled_from(["set", "insert", "cut"]))
        if kind == "cut":
            del data[at : at + draw(st.integers(1, 3))]
        else:
            new = draw(st.integers(0, 255))
            data[at : at + (kind == "set")] = bytes([new])
        if not data:
            break
    return bytes(data)


@settings(max_examples=500)
@given(damaged() | st.binary(max_size=40))
def test_what_passes_has_no_unknown_field(data):
    try:
        message = pb.GenerateRequest.FromString(data)
    except DecodeError:
        return  # refused by one of the two, whichever comes first
    assert not (accepted(data) and holds_unknown(message))


NUMBER = st.integers(0, 2**32 - 1)


@given(
    st.builds(
        pb.GenerateRequest,
        token_ids=st.builds(pb.TokenIds, ids=st.lists(NUMBER)),
        max_new_tokens=NUMBER,
        temperature=st.floats(),
        seed=st.integers(0, 2**64 - 1),
        stop_sequences=st.lists(st.text()),
        logit_bias=st.dictionaries(NUMBER, st.floats()),
        allowed_token_ids=st.lists(NUMBER),
        ignore_eos=st.booleans(),
        regex=st.text(),
        session=st.builds(pb.SessionTurn, id=st.text(), keep_cancelled=st.booleans()),
    )
)
def test_what_clients_send_passes(message):
    scan(message.SerializeToString(), SHAPE)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x80\x7d\x01", "fields of spiketrain.v1.GenerateRequest.*field number 2000"),
        (field(60, b"\x78\x01"), "fields of spiketrain.v1.SessionTurn.*field number 15"),
        (b"\x50\x01\x52\x00", "field number 10"),  # max_new_tokens as a text
        (b"\x0a\x7f", "well-formed"),
        (b"\x0a", "well-formed"),
        (field(60, b"\x0a\x7f") + b"x" * 200, "well-formed"),  # a part longer than its message
        (b"\x50" + b"\xff" * 11, "well-formed"),
    ],
)
def test_bytes_that_are_no_request_are_refused_by_name(data, words):
    with pytest.raises(RequestError, match=words) as caught:
        scan(data, SHAPE)
    assert caught.value.field == "request"


@pytest.mark.parametrize(
    ("data", "words", "reads"),
    [
        (b"\x80\x7d\x01" * (1 << 20), "field number 2000", 8),
        (field(4, b"\x0a\x00" * (1 << 21)), f"{MAX_PARTS} texts and messages", 3 * MAX_PARTS),
        (b"\x7a\x00" * (1 << 21), f"{MAX_PARTS} texts and messages", 3 * MAX_PARTS),
        (b"\xb2\x01\x00" * (1 << 20), f"{MAX_PARTS} texts and messages", 5 * MAX_PARTS),
        (field(2, b"\x08\x05" * (1 << 21)), f"{MAX_FIELDS} fields", 3 * MAX_FIELDS),
        (field(2, field(1, b"\x05" * (1 << 22))), f"{MAX_NUMBERS} numbers in lists", 20),
        (field(23, b"\x05" * (1 << 19)) * 3, f"{MAX_NUMBERS} numbers in lists", 40),
        (field(1, b"a" * (1 << 22)) + b"\x7d", "field number 15", 20),
    ],
    ids=["unknown", "chat", "stops", "biases", "unpacked", "packed", "three-lists", "text"],
)
def test_a_scan_stops_at_its_bound(data, words, reads):
    watched = Watched(data)
    with pytest.raises(RequestError, match=words):
        scan(watched, SHAPE)
    assert watched.reads <= reads

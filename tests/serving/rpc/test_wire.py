import pytest

import spiketrain.v1.generation_pb2 as pb
from spiketrain.serving.errors import ServingError
from spiketrain.serving.rpc.reply_wire import from_reply


def test_an_event_of_a_newer_server_is_passed_over():
    field_9_empty = bytes([9 << 3 | 2, 0])
    assert from_reply(pb.GenerateStreamResponse.FromString(field_9_empty)) is None


def test_a_reason_of_a_newer_server_is_named():
    finish = pb.GenerateStreamResponse(finish=pb.Finish(reason=77))
    with pytest.raises(ServingError, match=r"finish\.reason must be one of .*, got 77"):
        from_reply(finish)

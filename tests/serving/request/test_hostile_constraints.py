"""A constraint that harms the library harms its own request alone."""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2
from local_server import details_of, request, serving

CRASH = '{"const": -9223372036854775808}'


@pytest.mark.parametrize("foreseen", [True, False])
async def test_a_request_that_crashes_the_library_is_refused_and_others_go_on(
    monkeypatch, foreseen
):
    if not foreseen:
        monkeypatch.setattr("spiketrain.serving.request.constraint.check_numbers", lambda *_: None)
    async with serving(max_batch_size=4) as served:
        bad = [served.generation.Generate(request(json_schema=CRASH)) for _ in range(3)]
        good = served.generation.Generate(request(regex="hello world"))
        codes = await asyncio.gather(*(call.code() for call in bad))
        assert codes == [grpc.StatusCode.INVALID_ARGUMENT] * 3
        assert (await good).text == "hello world"


async def test_the_refusal_names_the_field(monkeypatch):
    monkeypatch.setattr("spiketrain.serving.request.constraint.check_numbers", lambda *_: None)
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.generation.Generate(request(json_schema=CRASH))
        (violation,) = details_of(caught.value, error_details_pb2.BadRequest).field_violations
        assert violation.field == "json_schema"
        assert "crashes its library" in violation.description


class Panic(BaseException):
    """As a library of another language panics: no Exception."""


@pytest.mark.parametrize("failure", [Panic("wat"), RuntimeError("secret")])
async def test_whatever_preparation_raises_is_an_answer(monkeypatch, failure):
    def fail(*_):
        raise failure

    async with serving() as served:
        monkeypatch.setattr("spiketrain.serving.engine.input_processor.prepare", fail)
        for fields in ({}, {"regex": "a"}):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.generation.Generate(request(**fields), timeout=60)
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert caught.value.details() == "internal error, see the server's log"
            assert details_of(caught.value, error_details_pb2.ErrorInfo).reason == "INTERNAL"
            stream = served.generation.GenerateStream(request(**fields), timeout=60)
            assert await stream.code() is grpc.StatusCode.INTERNAL

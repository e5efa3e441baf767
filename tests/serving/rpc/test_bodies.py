"""Requests are read after their calls are allowed, parsed where they keep nobody waiting."""

import asyncio
import threading

import grpc
import pytest
from fake_model import PATIENCE_S, FakeModel
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from local_server import details_of, request, serving, until

import spiketrain.serving.rpc.bodies as bodies
import spiketrain.serving.rpc.refusals as refusals
import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.tokenization_pb2 as tokenization_pb
from spiketrain.serving.errors import ServerBusy
from spiketrain.serving.request.preparation import MAX_TEXT_BYTES
from spiketrain.serving.request.tokenization import MAX_DETOKENIZED
from spiketrain.serving.rpc.server import QUEUED
from spiketrain.serving.rpc.wire_scan import MAX_NUMBERS

TOKEN = "a-token-0123456789abcdef"
GENERATE = "/spiketrain.v1.Generation/Generate"


@pytest.fixture
def tokens_file(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(f'[callers.alice]\ntoken = "{TOKEN}"\n')
    return str(path)


@pytest.fixture
def parsed_by(monkeypatch):
    """The threads that parsed messages, in order."""
    threads, parse = [], bodies.Parser.parsed

    def watched(self, data):
        threads.append(threading.get_ident())
        return parse(self, data)

    monkeypatch.setattr(bodies.Parser, "parsed", watched)
    return threads


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, PATIENCE_S)
    return caught.value


@pytest.mark.parametrize("method", [GENERATE, f"{GENERATE}Stream"])
async def test_a_call_without_a_token_is_refused_before_its_request_has_come(method, tokens_file):
    async with serving(tokens_file=tokens_file) as served:
        call = served.channel.stream_stream(method)()  # whose request is never sent
        error = await refused(call.read())
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_request_without_a_token_is_never_parsed(tokens_file, parsed_by):
    async with serving(tokens_file=tokens_file) as served:
        error = await refused(served.generation.Generate(request("x" * 50_000)))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert parsed_by == []


async def test_a_full_server_refuses_calls_before_their_requests_have_come(parsed_by):
    gate = threading.Semaphore(0)
    async with serving(FakeModel(gate=gate), max_queue=0) as served:
        running = served.generation.Generate(request())
        await asyncio.gather(until(lambda: served.engine.num_running == 1), asyncio.sleep(0))
        parsed_by.clear()
        for method in QUEUED:
            call = served.channel.stream_stream(method)()  # whose request is never sent
            error = await refused(call.read())
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details_of(error, error_details_pb2.RetryInfo).retry_delay.seconds == 1
        assert parsed_by == []
        gate.release(1000)
        await running


async def test_a_large_request_is_parsed_beside_the_event_loop(parsed_by):
    async with serving() as served:
        loop = threading.get_ident()
        await served.generation.Generate(request("abc"))
        assert parsed_by == [loop]
        await served.generation.Generate(request("x" * bodies.LARGE_BYTES))
        assert len(parsed_by) == 2
        assert parsed_by[1] != loop


@pytest.mark.parametrize("method", [GENERATE, f"{GENERATE}Stream"])
async def test_a_call_that_ends_without_a_request_is_refused(method):
    async with serving() as served:
        call = served.channel.stream_stream(method)()
        await call.done_writing()
        error = await refused(call.read())
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == "request must be one message, got 'none'"


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_health_takes_no_large_request(method, parsed_by):
    async with serving() as served:
        asked = health_pb2.HealthCheckRequest(service="x" * bodies.OTHERS_BYTES)
        call = getattr(served.health, method)(asked)
        error = await refused(call if method == "Check" else call.read())
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "at most 4096 bytes" in error.details()
        assert parsed_by == []


async def test_a_watch_of_health_hears_of_the_present_at_once():
    async with serving() as served:
        call = served.health.Watch(health_pb2.HealthCheckRequest())
        assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
        call.cancel()


@pytest.mark.parametrize("name", ["prompt", "allowed_token_ids"])
async def test_a_list_that_is_too_long_is_refused_by_its_name(name):
    ids = bytes(MAX_NUMBERS)  # so many zeros
    message = pb.GenerateRequest(text="x", allowed_token_ids=ids)
    if name == "prompt":
        message = pb.GenerateRequest(token_ids=pb.TokenIds(ids=ids))
    async with serving() as served:
        error = await refused(served.generation.Generate(message))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details().startswith(f"{name} must be at most")


async def test_a_text_longer_than_any_prompt_is_not_encoded():
    text = "x" * (MAX_TEXT_BYTES + 1)
    async with serving(max_message_bytes=8 << 20) as served:
        encoded = []
        served.model.tokenizer.encode = lambda text: encoded.append(text) or [1]
        for call in (
            served.generation.Generate(request(text)),
            served.tokenization.Tokenize(tokenization_pb.TokenizeRequest(text=text)),
        ):
            error = await refused(call)
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert f"be at most {MAX_TEXT_BYTES} bytes of text" in error.details()
        assert encoded == []


async def test_a_list_of_tokens_longer_than_any_text_is_not_decoded():
    async with serving() as served:
        asked = tokenization_pb.DetokenizeRequest(token_ids=bytes(MAX_DETOKENIZED + 1))
        error = await refused(served.tokenization.Detokenize(asked))
        assert f"token_ids must be at most {MAX_DETOKENIZED}" in error.details()


async def test_a_long_reply_has_all_tokens_in_their_order():
    async with serving() as served:
        text = "".join(map(chr, range(32, 127))) * 200
        asked = tokenization_pb.TokenizeRequest(text=text)
        reply = await served.tokenization.Tokenize(asked)
        assert list(reply.token_ids) == list(text.encode())
        assert b"".join(reply.pieces).decode() == text


async def test_refusals_for_one_reason_share_a_status_and_have_their_own_ids(monkeypatch):
    statuses, status_of = [], refusals.status_of

    def watched(error, request_id):
        statuses.append(str(error))
        return status_of(error, request_id)

    monkeypatch.setattr(refusals, "status_of", watched)
    gate = threading.Semaphore(0)
    async with serving(FakeModel(gate=gate), max_queue=0) as served:
        running = served.generation.Generate(request())
        await asyncio.gather(until(lambda: served.engine.num_running == 1), asyncio.sleep(0))
        for number in range(5):
            metadata = (("x-request-id", f"call-{number}"),)
            error = await refused(served.generation.Generate(request(), metadata=metadata))
            assert details_of(error, error_details_pb2.ErrorInfo).reason == "QUEUE_FULL"
            assert details_of(error, error_details_pb2.RequestInfo).request_id == f"call-{number}"
            assert dict(error.trailing_metadata())["x-request-id"] == f"call-{number}"
        assert statuses == ["the queue is full: 0 requests are waiting for a slot"]
        gate.release(1000)
        await running


def test_only_the_latest_refusals_are_kept():
    kept = refusals.Refusals()
    first = kept.of(ServerBusy("0"))
    assert kept.of(ServerBusy("0")) is first
    for number in range(1, refusals.MAX_KEPT + 1):
        kept.of(ServerBusy(str(number)))
    assert kept.of(ServerBusy("0")) is not first

"""The server over a real local channel, with a fake model."""

import asyncio
import socket
import threading

import grpc
import pytest
from fake_model import VOCAB_SIZE, FakeModel
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from local_server import details_of, request, serving, until

import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.generation_pb2_grpc as generation_grpc
import spiketrain.v1.models_pb2 as models_pb
import spiketrain.v1.scoring_pb2 as scoring_pb
import spiketrain.v1.sessions_pb2 as sessions_pb
from spiketrain.serving.client.client import Client, ServerError
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.errors import ListenError
from spiketrain.serving.request.events import Delta, Finish, PromptInfo
from spiketrain.serving.request.request import Request
from spiketrain.serving.request.tokenization import Tokenization
from spiketrain.serving.rpc.generation_servicer import GenerationServicer
from spiketrain.serving.rpc.inflight import InFlight
from spiketrain.serving.rpc.server import SERVICES, Server, to_address


def gated():
    return FakeModel(gate=threading.Semaphore(0))


async def test_a_stream_and_the_unary_call_give_the_same_text():
    async with serving() as served:
        call = served.generation.GenerateStream(request(seed=5))
        messages = [message async for message in call]
        assert messages[0].prompt == pb.PromptInfo(prompt_tokens=3, seed=5)
        assert messages[-1].finish.reason == pb.FINISH_REASON_EOS_TOKEN
        assert messages[-1].finish.usage == pb.Usage(prompt_tokens=3, new_tokens=12)
        assert messages[-1].finish.activity.firing_rate == 0.2
        deltas = [message.delta for message in messages[1:-1]]
        reply = await served.generation.Generate(request(seed=5))
        assert reply.text == "".join(delta.text for delta in deltas) == "hello world"
        assert list(reply.token_ids) == [token for delta in deltas for token in delta.token_ids]
        assert reply.prompt == messages[0].prompt
        assert reply.finish.usage == messages[-1].finish.usage


class NoTurns:
    """The turns of a server whose sessions do not work."""

    def __getattr__(self, name):
        raise RuntimeError(f"{name}: sessions do not work")


async def test_a_request_without_a_session_does_not_pass_through_sessions():
    engine = Engine(FakeModel(), ServingConfig(max_batch_size=2, flush_interval_s=0.0))
    tokenization = Tokenization(engine.tokenizer, engine.model.vocab_size, None)
    servicer = GenerationServicer(engine, NoTurns(), tokenization, InFlight(), None)
    server = grpc.aio.server()
    generation_grpc.add_GenerationServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with engine:
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = generation_grpc.GenerationStub(channel)
                assert (await stub.Generate(request())).text == "hello world"
                replies = [reply async for reply in stub.GenerateStream(request(n=2))]
                assert [reply.WhichOneof("event") for reply in replies].count("finish") == 2
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.Generate(request(session=pb.SessionTurn(id="x")))
        finally:
            await server.stop(None)


async def test_token_ids_are_a_prompt():
    async with serving() as served:
        ids = pb.TokenIds(ids=[1, 2, 3, 4])
        reply = await served.generation.Generate(pb.GenerateRequest(token_ids=ids))
        assert reply.prompt.prompt_tokens == 4


async def test_a_stop_sequence_is_reported():
    async with serving() as served:
        reply = await served.generation.Generate(request(stop_sequences=["wor"]))
        assert reply.text == "hello "
        assert reply.finish.reason == pb.FINISH_REASON_STOP_SEQUENCE
        assert reply.finish.stop_sequence == "wor"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.GenerateRequest(), "prompt"),
        (pb.GenerateRequest(text=""), "prompt"),
        (pb.GenerateRequest(token_ids=pb.TokenIds()), "prompt"),
        (pb.GenerateRequest(token_ids=pb.TokenIds(ids=[VOCAB_SIZE])), "prompt"),
        (request("x" * 50), "prompt"),
        (request(max_new_tokens=0), "max_new_tokens"),
        (request(temperature=-1.0), "temperature"),
        (request(temperature=float("nan")), "temperature"),
        (request(top_p=0.0), "top_p"),
        (request(top_p=2.0), "top_p"),
        (request(stop_sequences=[""]), "stop_sequences"),
        (request(stop_sequences=["x" * 1_000_000]), "stop_sequences"),
        (request(stop_sequences=["\U0001f98a" * 500_000]), "stop_sequences"),
    ],
)
@pytest.mark.parametrize("method", ["Generate", "GenerateStream"])
async def test_a_bad_request_is_refused_naming_the_field(message, field, method):
    async with serving(max_prompt_tokens=20) as served:
        call = getattr(served.generation, method)(message)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call if method == "Generate" else call.read())
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        (violation,) = details_of(caught.value, error_details_pb2.BadRequest).field_violations
        assert violation.field == field
        assert violation.description == caught.value.details()
        info = details_of(caught.value, error_details_pb2.ErrorInfo)
        assert (info.reason, info.domain) == ("INVALID_REQUEST", "spiketrain")
        assert served.engine.num_running == 0


def chat_with(field):
    message = pb.ChatMessage(role="user", content="hi")
    message.MergeFromString(field)
    return pb.GenerateRequest(chat=pb.Chat(messages=[message])).SerializeToString()


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\x0a\x02\xc3\x28", "UTF-8"),  # text, not UTF-8
        (b"\x0a\x7f", "well-formed"),  # text, cut short
        (request().SerializeToString() + b"\xa0\x06\x01", "field number 100"),
        (b"\x12\x03\x0a\x01\x05" + b"\x12\x02\x78\x01", "field number 15"),  # within token_ids
        (chat_with(b"\x78\x01"), "field number 15"),  # within the first of its messages
    ],
    ids=["utf8", "truncated", "unknown-field", "unknown-nested-field", "unknown-repeated-field"],
)
async def test_bytes_that_are_no_request_are_refused(data, word):
    async with serving() as served:
        send = served.channel.unary_unary("/spiketrain.v1.Generation/Generate")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(data)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert word in caught.value.details()


async def test_text_for_a_model_without_a_tokenizer_is_refused():
    async with serving(FakeModel(tokenizer=None)) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.generation.Generate(request())
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "--tokenizer" in caught.value.details()
        model = await served.models.GetModel(models_pb.GetModelRequest())
        assert model.capabilities == [
            "logprobs",
            "prefix_cache",
            "scoring",
            "sessions",
            "token_ids",
        ]


async def test_a_full_queue_says_when_to_come_back():
    async with serving(gated(), max_queue=0) as served:
        running = served.generation.Generate(request())
        await asyncio.gather(until(lambda: served.engine.num_running == 1), asyncio.sleep(0))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.generation.Generate(request())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details_of(caught.value, error_details_pb2.RetryInfo).retry_delay.seconds == 1
        served.model.gate.release(1000)
        assert (await running).text == "hello world"


async def test_a_full_server_does_not_read_the_prompts_it_refuses():
    async with serving(gated(), max_queue=0) as served:
        running = served.generation.Generate(request())
        await asyncio.gather(until(lambda: served.engine.num_running == 1), asyncio.sleep(0))
        encoded = []
        served.model.tokenizer.encode = lambda text: encoded.append(text) or [1]
        score = scoring_pb.ScoreRequest(context_text="x", continuation_text="y")
        for refused in (
            served.generation.Generate(request("x" * 9)),
            served.generation.Generate(request(regex="(")),
            served.generation.Generate(request(temperature=-1.0)),
            served.scoring.Score(score),
            served.sessions.Append(sessions_pb.AppendRequest(id="x", text="y")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await refused
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert encoded == []
        served.model.gate.release(1000)
        await running


async def test_cancelling_a_call_frees_its_slot():
    async with serving(gated()) as served:
        call = served.generation.GenerateStream(request())
        assert (await call.read()).HasField("prompt")
        await until(lambda: served.engine.num_running == 1)
        call.cancel()
        await until(lambda: served.engine.num_running == 0)


async def test_a_client_that_goes_away_frees_its_slot():
    async with serving(gated()) as served:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            call = generation_grpc.GenerationStub(channel).GenerateStream(request())
            assert (await call.read()).HasField("prompt")
            await until(lambda: served.engine.num_running == 1)
        await until(lambda: served.engine.num_running == 0)


async def test_a_deadline_frees_the_slot():
    async with serving(gated()) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.generation.Generate(request(), timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: served.engine.num_running == 0)


async def test_a_crash_of_the_model_is_an_internal_error_and_the_server_goes_on():
    async with serving() as served:
        served.model.failures.append(RuntimeError("boom"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.generation.Generate(request())
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "boom" not in caught.value.details()
        assert (await served.generation.Generate(request())).text == "hello world"


async def test_the_model_is_described():
    async with serving(max_batch_size=3, max_queue=5) as served:
        model = await served.models.GetModel(models_pb.GetModelRequest())
        assert (model.name, model.family, model.vocab_size) == ("fake", "egru", VOCAB_SIZE)
        assert (model.limits.max_batch_size, model.limits.max_queue) == (3, 5)
        assert model.defaults.temperature == 0.0
        assert model.defaults.top_p == 1.0
        assert model.limits.max_message_bytes == 4 << 20
        assert (model.limits.max_stop_sequences, model.limits.max_top_logprobs) == (16, 20)
        assert model.limits.max_grammar_bytes == 64 << 10
        assert (model.limits.max_n, model.limits.max_prompt_logprobs) == (16, 4096)
        assert model.capabilities == [
            *("grammar", "json_schema", "logprobs", "prefix_cache", "regex", "scoring"),
            *("sessions", "text", "token_ids"),
        ]


async def test_the_default_length_reported_is_the_one_in_use():
    generation_config = {"max_new_tokens": 100}
    async with serving(FakeModel(generation_config=generation_config), max_new_tokens=7) as served:
        model = await served.models.GetModel(models_pb.GetModelRequest())
    assert model.defaults.max_new_tokens == 7


def test_an_ipv6_address_is_written_in_brackets():
    assert to_address("::1", 5) == "[::1]:5"
    assert to_address("localhost", 5) == "localhost:5"


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_each_service_reports_its_health(service):
    async with serving() as served:
        reply = await served.health.Check(health_pb2.HealthCheckRequest(service=service))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_the_services():
    async with serving() as served:
        stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(iter([asked]))
        names = {s.name for s in (await call.read()).list_services_response.service}
        assert names >= {"spiketrain.v1.Generation", "spiketrain.v1.Models"}
        call.cancel()


async def test_a_port_in_use_is_an_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = Server(Engine(FakeModel(), ServingConfig(port=port)), "fake")
        with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{port}.*in use"):
            await server.start()


async def test_the_client_gives_the_events_of_the_engine():
    def read(port):
        with Client(f"127.0.0.1:{port}") as client:
            events = list(client.generate_stream(Request("abc", seed=3, max_new_tokens=5)))
            assert client.get_model().name == "fake"
            return events

    async with serving() as served:
        events = await asyncio.to_thread(read, served.port)
    assert events[0] == PromptInfo(3, 3)
    assert "".join(e.text for e in events if isinstance(e, Delta)) == "hello"
    assert isinstance(events[-1], Finish)
    assert events[-1].activity.firing_rate == 0.2


async def test_the_client_raises_what_the_server_refuses():
    def read(port):
        with Client(f"127.0.0.1:{port}") as client:
            return list(client.generate_stream(Request("")))

    async with serving() as served:
        with pytest.raises(ServerError, match="prompt must hold at least one token") as caught:
            await asyncio.to_thread(read, served.port)
        assert caught.value.code == "INVALID_ARGUMENT"

"""A package's tokenizer against a client's text: each call is answered, and others go on."""

import asyncio

import grpc
import pytest
from fake_model import PATIENCE_S, FakeModel
from google.rpc import error_details_pb2
from hostile_tokenizer import EXPONENTIAL, HANGS, PANICS, QUADRATIC, hostile_tokenizer
from local_server import details_of, request, serving

import spiketrain.v1.generation_pb2 as generation_pb
import spiketrain.v1.scoring_pb2 as scoring_pb
import spiketrain.v1.sessions_pb2 as sessions_pb
import spiketrain.v1.tokenization_pb2 as pb
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.engine.sync_stream import sync_stream
from spiketrain.serving.isolation.confined_process import Limits
from spiketrain.serving.request.chat_template import ChatTemplate
from spiketrain.serving.request.request import Request


def tokenize(served, text):
    return served.tokenization.Tokenize(pb.TokenizeRequest(text=text), timeout=PATIENCE_S)


def generate(served, text):
    return served.generation.Generate(request(text), timeout=PATIENCE_S)


def generate_constrained(served, text):
    return served.generation.Generate(request(text, regex="hello"), timeout=PATIENCE_S)


def generate_stream(served, text):
    return served.generation.GenerateStream(request(text), timeout=PATIENCE_S)


def said(text):
    return generation_pb.Chat(messages=[generation_pb.ChatMessage(role="user", content=text)])


def generate_from_chat(served, text):
    wanted = generation_pb.GenerateRequest(chat=said(text))
    return served.generation.Generate(wanted, timeout=PATIENCE_S)


def render(served, text):
    return served.tokenization.RenderChat(pb.RenderChatRequest(chat=said(text)), timeout=PATIENCE_S)


def score(served, text):
    wanted = scoring_pb.ScoreRequest(context_text="x", continuation_text=text)
    return served.scoring.Score(wanted, timeout=PATIENCE_S)


def score_stream(served, text):
    return served.scoring.ScoreStream(
        iter([scoring_pb.ScoreStreamRequest(text=text)]), timeout=PATIENCE_S
    )


async def append(served, text):
    session = await served.sessions.CreateSession(sessions_pb.CreateSessionRequest())
    wanted = sessions_pb.AppendRequest(id=session.id, text=text)
    return served.sessions.Append(wanted, timeout=PATIENCE_S)


async def turn(served, text):
    session = await served.sessions.CreateSession(sessions_pb.CreateSessionRequest())
    on = generation_pb.SessionTurn(id=session.id)
    return served.generation.Generate(request(text, session=on), timeout=PATIENCE_S)


CALLS = [
    tokenize,
    generate,
    generate_constrained,
    generate_stream,
    generate_from_chat,
    render,
    score,
    score_stream,
    append,
    turn,
]


def served_with(pattern, confined=True, content="c"):
    tokenizer = hostile_tokenizer(pattern, content)
    if not confined:
        tokenizer.unbounded = None
    template = ChatTemplate("{{ messages[0].content }}", {}, "test")
    return serving(FakeModel(tokenizer=tokenizer, strict=False), template, max_batch_size=4)


@pytest.mark.parametrize("confined", [True, False])
@pytest.mark.parametrize("call", CALLS)
async def test_a_panic_of_the_tokenizer_is_an_answer(call, confined):
    async with served_with(EXPONENTIAL, confined) as served:
        started = call(served, PANICS)
        if asyncio.iscoroutine(started):
            started = await started
        assert await started.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "the tokenizer encodes" in await started.details()
        reply = await tokenize(served, "abc")
        assert bytes(reply.token_ids) == b"abc"


async def test_the_reason_is_that_the_text_is_not_encodable():
    async with served_with(EXPONENTIAL) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generate(served, PANICS)
        reason = details_of(caught.value, error_details_pb2.ErrorInfo).reason
        assert reason == "NOT_ENCODABLE"


@pytest.mark.parametrize("call", [tokenize, generate, render, append])
async def test_a_text_that_would_take_hours_is_refused_while_others_are_served(monkeypatch, call):
    limits = Limits(cpu_s=0.5, wall_s=60.0, memory_bytes=1 << 30)
    monkeypatch.setattr("spiketrain.serving.request.confined_tokenizer.ENCODING", limits)
    async with served_with(QUADRATIC) as served:
        assert bytes((await tokenize(served, "baa")).token_ids) == b"bc"
        started = call(served, HANGS)
        if asyncio.iscoroutine(started):
            started = await started
        assert (await generate(served, "abc")).text == "hello world"
        assert await started.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "takes more than 0.5 s of work" in await started.details()


async def test_a_text_that_would_become_too_long_is_refused():
    async with served_with("a", content="c" * 1_000_000) as served:
        call = tokenize(served, "a" * 100_000)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "the tokenizer encodes" in await call.details()
        assert bytes((await tokenize(served, "b")).token_ids) == b"b"


def test_a_panic_in_process_is_an_error_of_the_request():
    model = FakeModel(tokenizer=hostile_tokenizer(EXPONENTIAL), strict=False)
    with (
        Engine(model, ServingConfig(max_batch_size=1)) as engine,
        pytest.raises(ValueError, match="the tokenizer encodes"),
        sync_stream(engine, Request(PANICS)) as events,
    ):
        list(events)


def test_a_tokenizer_that_is_known_to_be_harmless_encodes_in_process():
    model = FakeModel(tokenizer=hostile_tokenizer(r"\s+"))
    engine = Engine(model, ServingConfig(max_batch_size=1))
    assert engine.tokenizer is model.tokenizer

"""Tokenization and chat prompts over a real channel; the fake tokenizer is bytes."""

import grpc
import pytest
from fake_model import END_OF_TEXT, VOCAB_SIZE, FakeModel
from google.rpc import error_details_pb2
from local_server import details_of, serving

import spiketrain.v1.generation_pb2 as generation_pb
import spiketrain.v1.models_pb2 as models_pb
import spiketrain.v1.tokenization_pb2 as pb
from spiketrain.serving.request.chat_template import ChatTemplate
from spiketrain.serving.rpc.tokenization_servicer import PART_TOKENS

TEMPLATE = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}a:"


def chat(*turns, **fields):
    messages = [generation_pb.ChatMessage(role=role, content=text) for role, text in turns]
    return generation_pb.Chat(messages=messages, **fields)


@pytest.fixture
def template():
    return ChatTemplate(TEMPLATE, {}, "test")


async def test_text_becomes_tokens_and_tokens_text():
    async with serving() as served:
        reply = await served.tokenization.Tokenize(pb.TokenizeRequest(text="hé"))
        assert list(reply.token_ids) == list("hé".encode())
        assert b"".join(reply.pieces) == "hé".encode()
        asked = pb.DetokenizeRequest(token_ids=[*reply.token_ids, END_OF_TEXT])
        assert (await served.tokenization.Detokenize(asked)).text == "hé"
        assert served.model.calls == []


async def test_a_text_of_many_parts_becomes_all_of_its_tokens():
    text = "0123456789" * (PART_TOKENS // 4)
    async with serving() as served:
        reply = await served.tokenization.Tokenize(pb.TokenizeRequest(text=text))
    assert bytes(reply.token_ids).decode() == b"".join(reply.pieces).decode() == text


async def test_a_damaged_character_is_replaced():
    async with serving() as served:
        asked = pb.DetokenizeRequest(token_ids=[*b"a\xc3"])
        assert (await served.tokenization.Detokenize(asked)).text == "a\ufffd"


async def test_a_token_outside_the_vocabulary_is_refused():
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.tokenization.Detokenize(pb.DetokenizeRequest(token_ids=[VOCAB_SIZE]))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        (violation,) = details_of(caught.value, error_details_pb2.BadRequest).field_violations
        assert violation.field == "token_ids"


@pytest.mark.parametrize("method", ["Tokenize", "Detokenize", "RenderChat"])
async def test_a_model_without_a_tokenizer_says_so(method, template):
    async with serving(FakeModel(tokenizer=None), template) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(served.tokenization, method)(getattr(pb, f"{method}Request")())
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert details_of(caught.value, error_details_pb2.ErrorInfo).reason == "NO_TOKENIZER"


async def test_messages_are_rendered_and_generated_from(template):
    async with serving(template=template) as served:
        said = chat(("user", "hi"), ("assistant", "yo"))
        rendered = await served.tokenization.RenderChat(pb.RenderChatRequest(chat=said))
        assert rendered.text == "u:hi;a:yo;a:"
        assert bytes(rendered.token_ids) == rendered.text.encode()
        reply = await served.generation.Generate(generation_pb.GenerateRequest(chat=said))
        assert reply.prompt.prompt_tokens == len(rendered.token_ids)
        assert reply.text == "hello world"
        model = await served.models.GetModel(models_pb.GetModelRequest())
        assert "chat" in model.capabilities


@pytest.mark.parametrize(
    ("said", "word"),
    [(chat(), "at least one message"), (chat(("robot", "x")), "role"), (chat(("", "x")), "role")],
)
@pytest.mark.parametrize("service", ["generation", "tokenization"])
async def test_messages_that_break_a_rule_are_refused(template, service, said, word):
    async with serving(template=template) as served:
        if service == "generation":
            call = served.generation.Generate(generation_pb.GenerateRequest(chat=said))
        else:
            call = served.tokenization.RenderChat(pb.RenderChatRequest(chat=said))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        (violation,) = details_of(caught.value, error_details_pb2.BadRequest).field_violations
        assert violation.field == "messages"
        assert word in violation.description


async def test_messages_for_a_model_without_a_template_are_refused():
    async with serving() as served:
        said = generation_pb.GenerateRequest(chat=chat(("user", "hi")))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.generation.Generate(said)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert details_of(caught.value, error_details_pb2.ErrorInfo).reason == "NO_CHAT_TEMPLATE"

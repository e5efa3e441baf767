"""Several completions of a prompt, and how likely the prompt was, over a real channel."""

import threading

import grpc
import numpy as np
import pytest
from fake_model import FakeModel
from google.rpc import error_details_pb2
from local_server import details_of, request, serving, until
from tiny import tiny_egru_package

import spiketrain.v1.generation_pb2 as pb
from spiketrain import runtime
from spiketrain.runtime.scoring import token_nats

SAMPLED = {"seed": 3, "max_new_tokens": 20, "temperature": 1.0, "logprobs": True}


@pytest.fixture
def tiny(tmp_path):
    return runtime.load_model(tiny_egru_package(tmp_path / "tiny"))


async def streamed(served, wanted):
    """Text, tokens and finish of each completion of a stream, by index."""
    texts, tokens, finishes = {}, {}, {}
    messages = [message async for message in served.generation.GenerateStream(wanted)]
    assert messages[0].HasField("prompt")
    for message in messages[1:]:
        if message.HasField("delta"):
            index = message.delta.index
            assert index not in finishes
            texts[index] = texts.get(index, "") + message.delta.text
            tokens.setdefault(index, []).extend(message.delta.token_ids)
        else:
            finishes[message.finish.index] = message.finish
    return [(texts[i], tokens[i], finishes[i]) for i in sorted(finishes)]


async def read_all(call):
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_completions_differ_and_are_the_same_however_many_there_are(tiny):
    async with serving(tiny, max_batch_size=4) as served:
        one = await served.generation.Generate(request(**SAMPLED))
        three = await served.generation.Generate(request(**SAMPLED, n=3))
        five = await streamed(served, request(**SAMPLED, n=5))
        assert served.engine.num_running == 0
    assert (three.text, three.token_ids, three.logprobs) == (one.text, one.token_ids, one.logprobs)
    all_three = [three, *three.further]
    assert [reply.text for reply in all_three] == [text for text, _, _ in five[:3]]
    assert [list(reply.token_ids) for reply in all_three] == [tokens for _, tokens, _ in five[:3]]
    assert len({tuple(tokens) for _, tokens, _ in five}) == 5
    assert len(three.further[0].logprobs) == len(three.further[0].token_ids)


async def test_the_prompt_is_read_once_for_all():
    async with serving(FakeModel(), max_batch_size=4) as served:
        reply = await served.generation.Generate(request("x" * 10, n=4))
        reads = [size for kind, size in served.model.calls if kind == "forward"]
    assert sum(reads) == 10
    assert [other.text for other in reply.further] == ["hello world"] * 3
    assert reply.finish.activity.tokens == 10 + 11
    assert [other.finish.activity.tokens for other in reply.further] == [11] * 3


async def test_each_completion_follows_its_own_grammar(tiny):
    wanted = {**SAMPLED, "temperature": 9.0, "regex": "[ab]{8}", "n": 3}
    async with serving(tiny, max_batch_size=3) as served:
        reply = await served.generation.Generate(request(**wanted))
    texts = [reply.text, *(other.text for other in reply.further)]
    assert all(len(text) == 8 and set(text) <= set("ab") for text in texts)
    assert len(set(texts)) > 1


async def test_cancelling_frees_every_slot():
    async with serving(FakeModel(gate=threading.Semaphore(0)), max_batch_size=3) as served:
        call = served.generation.GenerateStream(request(n=3))
        served.model.gate.release(2)
        assert (await call.read()).HasField("prompt")
        await until(lambda: served.engine.num_running + served.engine.num_waiting == 3)
        call.cancel()
        await until(lambda: served.engine.num_running + served.engine.num_waiting == 0)


async def test_want_of_room_for_all_is_told_before_any_event():
    model = FakeModel(gate=threading.Semaphore(1))  # the prompt: the first is there for long
    async with serving(model, max_batch_size=1, max_queue=1) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.generation.GenerateStream(request(n=5)).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await until(lambda: served.engine.num_running + served.engine.num_waiting == 0)


async def test_a_crash_ends_all_completions():
    async with serving(FakeModel(gate=threading.Semaphore(0)), max_batch_size=3) as served:
        call = served.generation.GenerateStream(request(n=3))
        served.model.gate.release(2)
        assert (await call.read()).HasField("prompt")
        await until(lambda: served.engine.num_running + served.engine.num_waiting == 3)
        served.model.failures.append(RuntimeError("boom"))
        served.model.gate.release(1000)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_all(call)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        await until(lambda: served.engine.num_running + served.engine.num_waiting == 0)


async def test_a_time_limit_before_the_prompt_is_read_ends_each_completion():
    now_s = [0.0]
    model = FakeModel(gate=threading.Semaphore(0))
    async with serving(model, clock=lambda: now_s[0]) as served:
        running = served.generation.Generate(request())
        await until(lambda: served.engine.num_running == 1)
        waiting = served.generation.Generate(request(n=3, time_limit_s=5.0))
        await until(lambda: served.engine.num_waiting == 1)
        now_s[0] = 6.0
        served.model.gate.release(1000)
        reply = await waiting
        reasons = [reply.finish.reason, *(other.finish.reason for other in reply.further)]
        assert reasons == [pb.FINISH_REASON_TIME_LIMIT] * 3
        await running


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"prompt_logprobs": True, "text": "x" * 4097}, "prompt_logprobs"),
    ],
)
async def test_limits_hold(fields, field):
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.generation.Generate(request(**fields))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        (violation,) = details_of(caught.value, error_details_pb2.BadRequest).field_violations
        assert violation.field == field


@pytest.mark.parametrize("chunk", [1, 7, 512])
async def test_prompt_logprobs_are_the_models_however_the_prompt_is_cut(tiny, chunk):
    prompt = list(b"The old fox said that it was late. " * 4)
    logits = tiny.forward(tiny.new_state(), prompt)
    expected = -token_nats(logits[:-1], np.array(prompt[1:]))
    wanted = pb.GenerateRequest(
        token_ids=pb.TokenIds(ids=prompt),
        **{**SAMPLED, "prompt_logprobs": True, "top_logprobs": 2},
    )
    plain = pb.GenerateRequest(token_ids=pb.TokenIds(ids=prompt), **SAMPLED)
    async with serving(tiny, prefill_chunk=chunk, prefill_chunk_idle=chunk) as served:
        first = await served.generation.Generate(plain)
        reply = await served.generation.Generate(wanted)  # its beginning is cached by now
        again = await served.generation.Generate(wanted)
    assert [token.token_id for token in reply.prompt_logprobs] == prompt[1:]
    assert [token.logprob for token in reply.prompt_logprobs] == expected.tolist()
    best = logits[:-1].argmax(axis=1)
    assert [token.top[0].token_id for token in reply.prompt_logprobs] == best.tolist()
    assert all(len(token.top) == 2 for token in reply.prompt_logprobs)
    assert reply.token_ids == first.token_ids
    assert again.prompt_logprobs == reply.prompt_logprobs
    assert reply.prompt.reused_tokens == 0


async def test_prompt_logprobs_are_sent_once_and_with_the_first_completion(tiny):
    wanted = request("abc", **{**SAMPLED, "prompt_logprobs": True, "n": 2})
    async with serving(tiny, max_batch_size=2) as served:
        messages = [message async for message in served.generation.GenerateStream(wanted)]
    counts = [
        (message.delta.index, len(message.delta.prompt_logprobs))
        for message in messages
        if message.HasField("delta")
    ]
    assert counts[0] == (0, 2)
    assert sum(count for _, count in counts) == 2

"""Generation parameters over a real channel; the model likes to write its text."""

import asyncio
import threading

import grpc
import pytest
from fake_model import END_OF_TEXT, FakeModel
from google.rpc import error_details_pb2
from local_server import details_of, request, serving, until
from tiny import tiny_egru_package

import spiketrain.v1.generation_pb2 as pb
from spiketrain import runtime
from spiketrain.serving.client.client import Client
from spiketrain.serving.request.events import Delta
from spiketrain.serving.request.request import Request
from spiketrain.serving.rpc import generation_servicer as servicer
from spiketrain.serving.rpc.generation_servicer import MANY_LOGPROBS


async def complete(served, **fields):
    return await served.generation.Generate(request(**fields))


@pytest.mark.parametrize(
    ("fields", "text", "reason"),
    [
        ({"stop_token_ids": [ord("w")]}, "hello ", pb.FINISH_REASON_STOP_TOKEN),
        ({"regex": "[a-z]{3}"}, "hel", pb.FINISH_REASON_CONSTRAINT),
        ({"grammar": 'start: "help" | "hello"'}, "hello", pb.FINISH_REASON_CONSTRAINT),
        ({"json_schema": '{"const": "hello"}'}, '"hello"', pb.FINISH_REASON_CONSTRAINT),
        ({"allowed_token_ids": [*b"hel"], "max_new_tokens": 3}, "hel", pb.FINISH_REASON_LENGTH),
        ({"ignore_eos": True, "max_new_tokens": 12}, "hello world", pb.FINISH_REASON_LENGTH),
        ({"logit_bias": {END_OF_TEXT: 50.0}}, "", pb.FINISH_REASON_EOS_TOKEN),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_a_parameter_does_what_it_says(fields, text, reason):
    forgiving = FakeModel(strict=False)
    async with serving(forgiving) as served:
        reply = await complete(served, **fields)
        assert (reply.text, reply.finish.reason) == (text, reason)
        assert served.engine.num_running == 0


async def test_min_new_tokens_puts_the_end_off():
    async with serving(FakeModel(text=b"", strict=False)) as served:
        assert (await complete(served)).text == ""
        reply = await complete(served, min_new_tokens=4, allowed_token_ids=[ord("a"), END_OF_TEXT])
        assert reply.text == "aaaa"


async def test_logprobs_come_with_their_tokens_in_stream_and_unary():
    async with serving() as served:
        asked = request(logprobs=True, top_logprobs=2)
        reply = await served.generation.Generate(asked)
        call = served.generation.GenerateStream(asked)
        deltas = [message.delta async for message in call if message.HasField("delta")]
    assert [token.token_id for token in reply.logprobs] == list(reply.token_ids)
    assert [t for delta in deltas for t in delta.logprobs] == list(reply.logprobs)
    assert all(len(delta.logprobs) == len(delta.token_ids) for delta in deltas)
    first = reply.logprobs[0]
    assert (first.rank, first.top[0].token_id, len(first.top)) == (1, ord("h"), 2)
    assert first.top[0].logprob == first.logprob < 0


@pytest.mark.parametrize(("count", "beside"), [(MANY_LOGPROBS, False), (MANY_LOGPROBS + 1, True)])
async def test_many_logprobs_are_put_into_messages_beside_the_event_loop(
    count, beside, monkeypatch
):
    made = []

    def noting(make):
        def noted(content):
            made.append((len(content), threading.current_thread() is not threading.main_thread()))
            return make(content)

        return noted

    monkeypatch.setattr(servicer, "to_response", noting(servicer.to_response))
    async with serving(FakeModel(b"x" * 100)) as served:
        reply = await complete(served, logprobs=True, max_new_tokens=count)
        call = served.generation.GenerateStream(request(logprobs=True, max_new_tokens=count))
        deltas = [message.delta async for message in call]
    assert made == [(1, beside)]
    assert [t.token_id for t in reply.logprobs] == list(b"x" * count)
    assert [t for delta in deltas for t in delta.logprobs] == list(reply.logprobs)


async def test_a_reply_has_a_bounded_number_of_logprobs_and_a_stream_has_not(monkeypatch):
    monkeypatch.setattr(servicer, "MAX_LOGPROBS", 9)
    async with serving() as served:
        asked = request(logprobs=True, top_logprobs=2, max_new_tokens=3)
        assert len((await served.generation.Generate(asked)).logprobs) == 3
        asked.max_new_tokens = 4
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.generation.Generate(asked)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        (violation,) = details_of(caught.value, error_details_pb2.BadRequest).field_violations
        assert violation.field == "logprobs"
        assert "GenerateStream" in violation.description
        assert served.engine.num_running == 0
        call = served.generation.GenerateStream(asked)
        deltas = [message.delta async for message in call]
    assert sum(len(delta.logprobs) for delta in deltas) == 4


async def test_no_logprobs_come_unasked():
    async with serving() as served:
        assert not (await complete(served)).logprobs


async def test_a_time_limit_ends_a_completion_and_keeps_what_it_has():
    now_s = [0.0]
    model = FakeModel(gate=threading.Semaphore(0))
    async with serving(model, clock=lambda: now_s[0]) as served:
        call = served.generation.GenerateStream(request(time_limit_s=5.0, stop_sequences=["ex"]))
        assert (await call.read()).HasField("prompt")
        served.model.gate.release(2)
        assert (await call.read()).delta.text == "h"
        now_s[0] = 6.0
        served.model.gate.release(1000)
        rest = []
        while (message := await call.read()) is not grpc.aio.EOF:
            rest.append(message)
        finish = rest[-1].finish
    assert finish.reason == pb.FINISH_REASON_TIME_LIMIT
    text = "h" + "".join(message.delta.text for message in rest)
    assert "hello world".startswith(text)
    assert len(text) == finish.usage.new_tokens  # what was held back is shown


async def test_a_time_limit_in_the_queue_ends_without_a_token():
    now_s = [0.0]
    model = FakeModel(gate=threading.Semaphore(0))
    async with serving(model, clock=lambda: now_s[0]) as served:
        running = served.generation.Generate(request())
        await until(lambda: served.engine.num_running == 1)
        waiting = served.generation.Generate(request(time_limit_s=5.0))
        await until(lambda: served.engine.num_waiting == 1)
        now_s[0] = 6.0
        served.model.gate.release(1000)
        reply = await waiting
        assert reply.finish.reason == pb.FINISH_REASON_TIME_LIMIT
        assert reply.text == ""
        assert (await running).text == "hello world"


# Too much work, but only after an h: a trial goes another way.
LATE = 'start: z | "h" y{900}\ny: x{900}\nx: "a"\nz: /[0-9]{80}/'


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"regex": "x", "allowed_token_ids": [ord("y")]}, "NOTHING_ALLOWED"),
        ({"grammar": LATE}, "CONSTRAINT_FAILED"),
    ],
)
async def test_rules_that_cannot_be_followed_fail_their_own_request_alone(fields, reason):
    async with serving(max_batch_size=2) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await complete(served, **fields)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert details_of(caught.value, error_details_pb2.ErrorInfo).reason == reason
        assert (await complete(served)).text == "hello world"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop_sequences": ["x"] * 17}, "stop_sequences"),
        ({"regex": "("}, "regex"),
        ({"grammar": "x" * 65537}, "grammar"),
        ({"penalty_window": 3}, "penalty_window"),
        ({"logit_bias": {999: 1.0}}, "logit_bias"),
    ],
)
async def test_limits_hold_on_the_wire(fields, field):
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await complete(served, **fields)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        (violation,) = details_of(caught.value, error_details_pb2.BadRequest).field_violations
        assert violation.field == field


MIXED = [
    {"temperature": 0.9, "min_p": 0.05, "logprobs": True, "top_logprobs": 3},
    {"temperature": 1.3, "typical_p": 0.8, "presence_penalty": 0.7},
    {"temperature": 1.0, "repetition_penalty": 1.4, "frequency_penalty": 0.2, "penalty_window": 9},
    {"temperature": 1.1, "regex": "([a-z ]{3,9}, )*", "logit_bias": {ord("e"): 4.0}},
    {"temperature": 0.0, "min_new_tokens": 20, "stop_token_ids": (7, 8)},
    {"temperature": 2.0, "allowed_token_ids": tuple(range(32, 127))},
]


async def test_same_request_and_seed_same_bytes_whatever_else_is_running(tmp_path):
    model = runtime.load_model(tiny_egru_package(tmp_path / "tiny"))
    requests = [
        Request("Once", seed=seed, max_new_tokens=40, **fields)
        for seed in (1, 2)
        for fields in MIXED
    ]

    def one(port, wanted):
        with Client(f"127.0.0.1:{port}") as client:
            deltas = [e for e in client.generate_stream(wanted) if isinstance(e, Delta)]
        return (
            "".join(delta.text for delta in deltas),
            [token for delta in deltas for token in delta.token_ids],
            [token for delta in deltas for token in delta.logprobs],
        )

    async with serving(model, max_batch_size=8) as served:
        alone = [await asyncio.to_thread(one, served.port, wanted) for wanted in requests]
        together = await asyncio.gather(
            *(asyncio.to_thread(one, served.port, wanted) for wanted in requests)
        )
    assert together == alone
    assert len({tuple(tokens) for _, tokens, _ in alone}) == len(requests) - 1  # greedy: no seed

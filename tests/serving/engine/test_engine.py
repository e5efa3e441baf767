import asyncio
import sys
import threading

import pytest
import structlog
from engine_calls import collect, config, text_of, tokens_of, until
from fake_model import FakeModel

from spiketrain.serving.engine.engine import SWITCH_S, Engine
from spiketrain.serving.engine.pace import FIRST_TOKENS
from spiketrain.serving.errors import ConfigError
from spiketrain.serving.logs import log_to_stderr
from spiketrain.serving.request.events import Delta, Finish, FinishReason, PromptInfo
from spiketrain.serving.request.request import Request


@pytest.mark.parametrize(("before_s", "after_s"), [(0.005, SWITCH_S), (0.0001, 0.0001)])
def test_an_engine_makes_threads_take_turns_more_often_never_less(before_s, after_s):
    kept_s = sys.getswitchinterval()
    try:
        sys.setswitchinterval(before_s)
        with Engine(FakeModel(), config()):
            assert sys.getswitchinterval() == pytest.approx(after_s, abs=2e-6)
    finally:
        sys.setswitchinterval(kept_s)


async def test_a_stream_is_prompt_info_then_deltas_then_finish():
    with Engine(FakeModel(), config()) as engine:
        events = await collect(engine, Request("abc", seed=7))
    assert events[0] == PromptInfo(prompt_tokens=3, seed=7)
    assert all(isinstance(event, Delta) for event in events[1:-1])
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert text_of(events) == "hello world"
    assert tokens_of(events) == [*b"hello world", 256]
    assert finish.reason is FinishReason.EOS_TOKEN
    assert (finish.usage.prompt_tokens, finish.usage.new_tokens) == (3, 12)
    activity = finish.activity
    assert (activity.tokens, activity.events, activity.neurons) == (14, 28, 140)
    assert activity.firing_rate == 0.2
    assert activity.weight_bytes_touched_per_token == 100
    assert activity.weight_bytes_dense_per_token == 500
    assert engine.num_running == 0


async def test_max_new_tokens_ends_a_completion():
    with Engine(FakeModel(), config()) as engine:
        events = await collect(engine, Request("abc", max_new_tokens=4))
        assert text_of(events) == "hell"
        assert events[-1].reason is FinishReason.LENGTH
        assert engine.num_running == 0


async def test_a_stop_sequence_ends_a_completion_and_is_not_shown():
    with Engine(FakeModel(), config()) as engine:
        events = await collect(engine, Request("abc", stop_sequences=["lo w", "zz"]))
        assert text_of(events) == "hel"
        assert events[-1].reason is FinishReason.STOP_SEQUENCE
        assert events[-1].stop_sequence == "lo w"
        assert tokens_of(events) == list(b"hello w")
        assert engine.num_running == 0


async def test_text_held_for_a_stop_sequence_is_shown_when_the_completion_ends():
    with Engine(FakeModel(), config()) as engine:
        events = await collect(engine, Request("abc", max_new_tokens=5, stop_sequences=["lox"]))
    assert text_of(events) == "hello"
    assert events[-1].reason is FinishReason.LENGTH


async def test_a_character_cut_by_the_limit_is_replaced():
    with Engine(FakeModel("é".encode()), config()) as engine:
        events = await collect(engine, Request("a", max_new_tokens=1))
    assert text_of(events) == "\ufffd"


async def test_a_long_prompt_is_read_in_chunks():
    model = FakeModel()
    with Engine(model, config(prefill_chunk_idle=4)) as engine:
        await collect(engine, Request("x" * 10, max_new_tokens=1))
    assert model.calls == [("forward", 4), ("forward", 4), ("forward", 2)]


async def test_a_long_prompt_does_not_stall_a_running_stream():
    model = FakeModel(gate=threading.Semaphore(0))
    with Engine(model, config(prefill_chunk=2, prefill_chunk_idle=2)) as engine:
        first = asyncio.create_task(collect(engine, Request("a")))
        await until(lambda: engine.num_running == 1)
        second = asyncio.create_task(collect(engine, Request("x" * 20)))
        await until(lambda: engine.num_running + engine.num_waiting == 2)
        model.gate.release(1000)
        await asyncio.gather(first, second)
    kinds = [kind for kind, _ in model.calls]
    between = "".join(kind[0] for kind in kinds).split("s")
    assert max(len(forwards) for forwards in between[1 : len("hello world")]) <= 1


async def test_requests_that_run_together_are_decoded_in_one_call():
    model = FakeModel(gate=threading.Semaphore(0))
    with Engine(model, config(max_batch_size=3)) as engine:
        tasks = [asyncio.create_task(collect(engine, Request("ab"))) for _ in range(3)]
        await until(lambda: engine.num_running + engine.num_waiting == 3)
        model.gate.release(1000)
        results = await asyncio.gather(*tasks)
    assert [text_of(events) for events in results] == ["hello world"] * 3
    assert max(size for kind, size in model.calls if kind == "step") == 3


async def test_tokens_are_gathered_while_the_reader_lags():
    model = FakeModel()
    with Engine(model, config()) as engine:
        async with engine.stream(Request("a")) as events:
            assert isinstance(await anext(events), PromptInfo)
            model.wait_for(len("hello world"))  # the loop is held up all the while
            rest = [event async for event in events]
    assert len(rest) < 4
    assert text_of(rest) == "hello world"


async def test_tokens_are_gathered_for_the_flush_interval_but_the_first_is_sent_at_once():
    model = FakeModel(gate=threading.Semaphore(0))
    with Engine(model, config(flush_interval_s=3600.0)) as engine:
        async with engine.stream(Request("a")) as events:
            assert isinstance(await anext(events), PromptInfo)
            model.gate.release(1)
            assert await anext(events) == Delta(text="h", token_ids=(ord("h"),))
            model.gate.release(1000)
            assert (await anext(events)).text == "ello world"
            assert isinstance(await anext(events), Finish)


async def test_a_sequence_pauses_while_its_reader_is_too_far_behind():
    model = FakeModel(b"x" * 100)
    with Engine(model, config(max_unread_tokens=5)) as engine:
        async with engine.stream(Request("a")) as events:
            assert isinstance(await anext(events), PromptInfo)
            model.wait_for(4)
            with model.called:
                assert not model.called.wait_for(lambda: len(model.calls) > 5, 0.05)
            rest = [event async for event in events]
    assert text_of(rest) == "x" * 100
    assert max(len(event.token_ids) for event in rest[:-1]) <= 5


async def test_a_model_without_a_tokenizer_streams_token_ids():
    model = FakeModel(tokenizer=None)
    with Engine(model, config()) as engine:
        events = await collect(engine, Request([1, 2]))
    assert tokens_of(events) == [*b"hello world", 256]
    assert text_of(events) == ""


@pytest.fixture
def info_logs(capsys):
    log_to_stderr("info")
    yield capsys
    structlog.reset_defaults()


async def test_no_prompt_is_logged_at_info_level(info_logs):
    with Engine(FakeModel(), config()) as engine:
        await collect(engine, Request("my secret", stop_sequences=["hush"]))
    err = info_logs.readouterr().err
    assert "request ended" in err
    assert "secret" not in err
    assert "hush" not in err
    assert "hello" not in err


async def test_a_stop_sequence_met_in_the_last_flush_is_the_reason():
    model = FakeModel("é".encode()[:1])  # an unfinished character, then the end of text
    with Engine(model, config()) as engine:
        finish = (await collect(engine, Request("a", stop_sequences=["\ufffd"])))[-1]
    assert (finish.reason, finish.stop_sequence) == (FinishReason.STOP_SEQUENCE, "\ufffd")


async def test_several_tokens_go_into_one_message():
    model = FakeModel(b"x" * 100, gate=threading.Semaphore(0))
    with Engine(model, config(flush_interval_s=1000.0)) as engine:
        async with engine.stream(Request("a")) as events:
            assert isinstance(await anext(events), PromptInfo)
            model.gate.release(1)
            assert (await anext(events)).token_ids == (ord("x"),), "the first goes out at once"
            model.gate.release(1000)
            rest = [event async for event in events]
    assert [type(event) for event in rest] == [Delta, Finish], "the end does not wait"
    assert rest[0].token_ids == (*b"x" * 99, 256)


def test_bytes_for_states_limit_how_many_sequences_run():
    one = 8 + 4 * 257  # state and logits of the fake model
    assert Engine(FakeModel(), config(max_batch_size=9)).max_sequences == 9
    assert Engine(FakeModel(), config(max_batch_size=9, state_bytes=3 * one)).max_sequences == 3
    with pytest.raises(ConfigError, match=f"state_bytes must hold one sequence, {one}, got 99"):
        Engine(FakeModel(), config(state_bytes=99))


async def test_no_more_sequences_run_than_the_bytes_for_states_hold():
    model = FakeModel(gate=threading.Semaphore(0))
    one = 8 + 4 * 257
    with Engine(model, config(max_batch_size=9, state_bytes=2 * one)) as engine:
        tasks = [asyncio.create_task(collect(engine, Request("ab"))) for _ in range(5)]
        await until(lambda: engine.num_running + engine.num_waiting == 5)
        model.gate.release(1000)
        results = await asyncio.gather(*tasks)
    assert [text_of(events) for events in results] == ["hello world"] * 5
    assert max(size for kind, size in model.calls if kind == "step") == 2


async def test_a_prompt_is_read_in_pieces_that_keep_the_stall_short():
    """A model that takes 1 s a prompt token: after the first look, least pieces beside a stream."""
    now_s = [0.0]

    class Slow(FakeModel):
        def forward(self, state, tokens, last_only, cancelled):
            now_s[0] += len(tokens)
            return super().forward(state, tokens, last_only, cancelled)

    model = Slow(b"x" * 200, gate=threading.Semaphore(1000))
    settings = config(max_stall_s=6.0, prefill_chunk=64, prefill_chunk_idle=64)
    with Engine(model, settings, clock=lambda: now_s[0]) as engine:
        await collect(engine, Request("y" * 100, prefix_cache=False, max_new_tokens=1))
        sizes = [size for kind, size in model.calls]
        assert sizes[0] == FIRST_TOKENS
        assert max(sizes) <= 4 * 6, "four times as long while nobody decodes"
        model.gate = threading.Semaphore(0)
        del model.calls[:]
        stream = asyncio.create_task(collect(engine, Request("a", max_new_tokens=150)))
        await asyncio.to_thread(model.wait_for, 1, "forward")
        prompt = Request("y" * 60, prefix_cache=False, max_new_tokens=1)
        other = asyncio.create_task(collect(engine, prompt))
        await until(lambda: engine.num_running + engine.num_waiting == 2)
        model.gate.release(1000)
        await asyncio.gather(stream, other)
    kinds = [kind for kind, _ in model.calls]
    assert kinds[1:21:2] == ["forward"] * 10
    assert kinds[2:22:2] == ["step"] * 10
    assert [size for kind, size in model.calls if kind == "forward"] == [1, *[6] * 10]

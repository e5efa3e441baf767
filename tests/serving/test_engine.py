import asyncio
import random
import sys
import threading

import pytest
import structlog
from fake_model import PATIENCE_S, FakeModel

from runtime.errors import CallCancelled
from serving.config import ServingConfig
from serving.engine import SWITCH_S, Engine
from serving.errors import ConfigError, DeadlineExceeded, Draining, EngineFailure, QueueFull
from serving.events import Delta, Finish, FinishReason, PromptInfo
from serving.logs import log_to_stderr
from serving.pace import FIRST_TOKENS
from serving.request import Request


def config(**fields):
    return ServingConfig(**{"flush_interval_s": 0.0, "max_batch_size": 2, **fields})


async def collect(engine, request):
    async with engine.stream(request) as events:
        return [event async for event in events]


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, Delta))


def tokens_of(events):
    return [token for event in events if isinstance(event, Delta) for token in event.token_ids]


async def until(condition):
    """Let the loop run until a condition of the engine holds."""

    async def turn():
        while not condition():
            await asyncio.sleep(0)

    await asyncio.wait_for(turn(), PATIENCE_S)


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


async def test_cancelling_frees_the_slot_within_one_token():
    model = FakeModel(gate=threading.Semaphore(0))
    with Engine(model, config(max_batch_size=1)) as engine:
        model.gate.release(3)  # the prompt, two steps
        async with engine.stream(Request("a")) as events:
            async for event in events:
                if isinstance(event, Delta):
                    break
            model.wait_for(3)  # the third step is under way
        assert engine.num_running == 0
        waiting = asyncio.create_task(collect(engine, Request("b")))
        await until(lambda: engine.num_running + engine.num_waiting == 1)
        model.gate.release(1)  # ends the third step
        model.wait_for(2, "forward")  # the next call is the next request's
        assert [kind for kind, _ in model.calls] == ["forward", *["step"] * 3, "forward"]
        model.gate.release(1000)
        assert text_of(await waiting) == "hello world"


async def test_cancelling_the_reader_task_frees_the_slot():
    model = FakeModel(gate=threading.Semaphore(0))
    with Engine(model, config()) as engine:
        task = asyncio.create_task(collect(engine, Request("a")))
        await until(lambda: engine.num_running == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.num_running == 0
        model.gate.release(1000)


async def test_a_storm_of_cancellations_leaks_no_slot_and_spoils_no_text():
    chance = random.Random(0)
    with Engine(FakeModel(), config(max_batch_size=4, max_queue=200)) as engine:
        tasks = [asyncio.create_task(collect(engine, Request("abc"))) for _ in range(200)]
        for task in chance.sample(tasks, 120):
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert engine.num_running == engine.num_waiting == 0
    texts = [text_of(events) for events in results if isinstance(events, list)]
    assert len(texts) >= 80
    assert set(texts) == {"hello world"}


async def test_a_waiting_request_can_be_cancelled():
    model = FakeModel(gate=threading.Semaphore(0))
    with Engine(model, config(max_batch_size=1)) as engine:
        running = asyncio.create_task(collect(engine, Request("a")))
        await until(lambda: engine.num_running == 1)
        async with engine.stream(Request("b")):
            assert engine.num_waiting == 1
        assert engine.num_waiting == 0
        model.gate.release(1000)
        await running


async def test_a_full_queue_refuses_at_once():
    model = FakeModel(gate=threading.Semaphore(0))
    with Engine(model, config(max_batch_size=1, max_queue=0)) as engine:
        running = asyncio.create_task(collect(engine, Request("a")))
        await until(lambda: engine.num_running == 1)
        with pytest.raises(QueueFull):
            await collect(engine, Request("b"))
        model.gate.release(1000)
        await running


async def test_a_deadline_frees_the_slot_and_keeps_what_was_written():
    now_s = [100.0]
    model = FakeModel(gate=threading.Semaphore(0))
    with Engine(model, config(), clock=lambda: now_s[0]) as engine:
        async with engine.stream(Request("a", timeout_s=5.0)) as events:
            assert isinstance(await anext(events), PromptInfo)
            model.gate.release(1)
            assert await anext(events) == Delta("h", (ord("h"),))
            now_s[0] += 6.0
            model.gate.release(1)
            with pytest.raises(DeadlineExceeded, match=r"5\.000 s"):
                [event async for event in events]
        assert engine.num_running == 0
        model.gate.release(1000)


async def test_a_deadline_passes_in_the_queue_too():
    now_s = [0.0]
    model = FakeModel(gate=threading.Semaphore(0))
    with Engine(model, config(max_batch_size=1), clock=lambda: now_s[0]) as engine:
        running = asyncio.create_task(collect(engine, Request("a")))
        await until(lambda: engine.num_running == 1)
        waiting = asyncio.create_task(collect(engine, Request("b", timeout_s=1.0)))
        await until(lambda: engine.num_waiting == 1)
        now_s[0] = 2.0
        model.gate.release(1000)
        with pytest.raises(DeadlineExceeded):
            await waiting
        assert text_of(await running) == "hello world"


@pytest.mark.parametrize("steps", [0, 3], ids=["prefill", "decode"])
async def test_a_crash_of_the_model_fails_the_request_and_the_engine_goes_on(steps):
    model = FakeModel(gate=threading.Semaphore(0))
    with Engine(model, config()) as engine:
        task = asyncio.create_task(collect(engine, Request("a")))
        await until(lambda: engine.num_running == 1)
        if steps:
            model.gate.release(steps)
            model.wait_for(steps)
        model.failures.append(RuntimeError("boom"))
        model.gate.release(1)
        with pytest.raises(EngineFailure) as caught:
            await task
        assert "boom" not in str(caught.value)
        assert engine.num_running == 0
        model.gate.release(1000)
        assert text_of(await collect(engine, Request("b"))) == "hello world"


async def test_a_crash_on_one_prompt_leaves_the_other_streams_alone():
    model = FakeModel(gate=threading.Semaphore(0))
    with Engine(model, config()) as engine:
        good = asyncio.create_task(collect(engine, Request("a")))
        await until(lambda: engine.num_running == 1)
        model.gate.release(2)
        model.wait_for(2)
        bad = asyncio.create_task(collect(engine, Request("b")))
        await until(lambda: engine.num_waiting == 1)
        model.gate.release(1)
        model.wait_for(2, "forward")
        model.failures.append(MemoryError())
        model.gate.release(1000)
        with pytest.raises(EngineFailure):
            await bad
        assert text_of(await good) == "hello world"


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
            assert await anext(events) == Delta("h", (ord("h"),))
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


async def test_stopping_ends_running_and_waiting_requests():
    model = FakeModel(gate=threading.Semaphore(0))
    engine = Engine(model, config(max_batch_size=1))
    engine.start()
    tasks = [asyncio.create_task(collect(engine, Request("a"))) for _ in range(2)]
    await until(lambda: engine.num_running + engine.num_waiting == 2)
    stopping = asyncio.create_task(asyncio.to_thread(engine.stop))
    await until(lambda: engine.num_running + engine.num_waiting == 0)
    model.gate.release(1000)
    await stopping
    for task in tasks:
        with pytest.raises(Draining):
            await task
    with pytest.raises(Draining):
        await collect(engine, Request("a"))


async def test_a_model_without_a_tokenizer_streams_token_ids():
    model = FakeModel(tokenizer=None)
    with Engine(model, config()) as engine:
        events = await collect(engine, Request([1, 2]))
    assert tokens_of(events) == [*b"hello world", 256]
    assert text_of(events) == ""


async def test_a_reader_whose_loop_is_gone_does_not_stop_the_engine():
    model = FakeModel(gate=threading.Semaphore(0))
    with Engine(model, config()) as engine:

        def abandon():
            loop = asyncio.new_event_loop()
            stream = engine.stream(Request("a"))
            loop.run_until_complete(stream.__aenter__())
            loop.close()
            return stream

        kept = await asyncio.to_thread(abandon)
        model.gate.release(1000)
        await until(lambda: engine.num_running == 0)
        assert text_of(await collect(engine, Request("b"))) == "hello world"
        del kept


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


async def test_cancelling_stops_the_model_in_a_prompt():
    seen = []

    class Watching(FakeModel):
        def forward(self, state, tokens, last_only, cancelled):
            logits = super().forward(state, tokens, last_only, cancelled)
            seen.append(bool(cancelled[0]))
            if cancelled[0]:
                raise CallCancelled(0, len(tokens))
            return logits

    model = Watching(gate=threading.Semaphore(0))
    with Engine(model, config()) as engine:
        async with engine.stream(Request("a" * 500)):
            await asyncio.to_thread(model.wait_for, 1, "forward")
        assert engine.num_running == 0
        model.gate.release(1000)
        assert text_of(await collect(engine, Request("b"))) == "hello world"
    assert seen == [True, False]

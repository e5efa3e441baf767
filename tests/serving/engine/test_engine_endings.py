"""How requests end that do not run to their end: cancelled, late, crashed, refused, stopped."""

import asyncio
import itertools
import random
import threading

import pytest
from engine_calls import collect, config, text_of, until
from fake_model import FakeModel

from spiketrain.runtime.errors import CallCancelled
from spiketrain.serving.engine.completion import Completion
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.errors import DeadlineExceeded, Draining, EngineFailure, QueueFull
from spiketrain.serving.request.events import Delta, FinishReason, PromptInfo
from spiketrain.serving.request.request import Request


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
            assert await anext(events) == Delta(text="h", token_ids=(ord("h"),))
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


async def test_without_a_token_no_time_is_below_zero():
    ticks = itertools.count()
    with Engine(FakeModel(), config(prefill_chunk_idle=1), clock=lambda: next(ticks)) as engine:
        events = await collect(engine, Request("a" * 99, time_limit_s=9.0))
    finish = events[-1]
    assert finish.reason is FinishReason.TIME_LIMIT
    assert finish.timings.queue_s > 0
    assert finish.timings.prefill_s == finish.timings.decode_s == 0


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


async def test_the_engine_goes_on_though_the_choice_of_a_batch_failed(monkeypatch):
    def broken(job):
        raise RuntimeError("boom")

    now_s = [0.0]
    model = FakeModel(gate=threading.Semaphore(0))
    monkeypatch.setattr(Completion, "out_of_time", broken)
    with Engine(model, config(), clock=lambda: now_s[0]) as engine:
        task = asyncio.create_task(collect(engine, Request("a", time_limit_s=5.0)))
        await until(lambda: engine.num_running == 1)
        now_s[0] = 6.0
        model.gate.release(1000)
        with pytest.raises(EngineFailure):
            await task
        assert engine.num_running == 0
        assert text_of(await collect(engine, Request("b"))) == "hello world"


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


class Panic(BaseException):
    """As a library of another language panics: no Exception."""


async def test_a_panic_in_the_model_costs_its_request_alone():
    model = FakeModel()
    with Engine(model, config(max_batch_size=1)) as engine:
        for wanted in ("a", "b"):
            model.failures.append(Panic("wat"))
            with pytest.raises(EngineFailure):
                await collect(engine, Request(wanted))
        assert text_of(await collect(engine, Request("c"))) == "hello world"


@pytest.mark.parametrize("method", ["allowed", "push"])
async def test_a_panic_of_a_constraint_costs_its_request_alone(monkeypatch, method):
    def panic(*_):
        raise Panic("wat")

    with Engine(FakeModel(), config(max_batch_size=1)) as engine:
        with monkeypatch.context() as patch:
            processor = engine.input_processor
            completion = await processor.completion(Request("a", regex="hello .*"), None, 0.0)
            patch.setattr(completion.request.constraint, method, panic)
            with pytest.raises(EngineFailure):
                await engine.finish(completion)
        assert text_of(await collect(engine, Request("b"))) == "hello world"


async def test_a_round_that_panics_leaves_the_engine_running(monkeypatch):
    def panic(*_):
        raise Panic("wat")

    with Engine(FakeModel(), config(max_batch_size=1)) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(engine._runner, "run", panic)
            with pytest.raises(EngineFailure):
                await collect(engine, Request("a"))
        assert text_of(await collect(engine, Request("b"))) == "hello world"

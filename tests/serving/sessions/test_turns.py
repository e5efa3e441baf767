"""Turns without gRPC: a gated model and a clock that stands still until it is moved."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import pytest
from engine_calls import until
from fake_model import PATIENCE_S, FakeModel

from spiketrain.runtime.errors import RequestError
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.errors import DeadlineExceeded, Draining, EngineFailure
from spiketrain.serving.request.events import Delta, Finish, FinishReason, PromptInfo
from spiketrain.serving.request.request import Request, SessionTurn
from spiketrain.serving.sessions.errors import SessionStoreFull
from spiketrain.serving.sessions.sessions import Sessions
from spiketrain.serving.sessions.store import MemoryStore
from spiketrain.serving.sessions.turns import Turns


class Bench:
    """An engine, its sessions, and the engine's clock."""

    def __init__(self, **fields):
        self.now_s = 0.0
        self.model = FakeModel(gate=threading.Semaphore(0))
        config = ServingConfig(flush_interval_s=0.0, max_batch_size=2, **fields)
        self.engine = Engine(self.model, config, clock=lambda: self.now_s)
        self.sessions = Sessions(self.model, MemoryStore(config.session_bytes), config)
        self.turns = Turns(self.engine, self.sessions)

    def tokens(self, session):
        return self.sessions.get(session.id).head.num_tokens

    async def settled(self):
        self.model.gate.release(1000)
        await asyncio.wait_for(self.turns.settle(), PATIENCE_S)
        assert not self.sessions.busy()
        assert self.engine.num_running == self.engine.num_waiting == 0


@asynccontextmanager
async def bench(**fields):
    made = Bench(**fields)
    with made.engine:
        try:
            yield made
        finally:
            made.model.gate.release(1000)


def request(session, prompt="abc", keep=False, **fields):
    wanted = SessionTurn(session.id, keep_cancelled=keep)
    return Request(prompt, session=wanted, **{"max_new_tokens": 50, **fields})


async def read_tokens(bench, events, count):
    """Let the model write so many tokens and read them."""
    bench.model.gate.release(count)
    seen = []
    while len(seen) < count:
        event = await anext(events)
        seen += event.token_ids if isinstance(event, Delta) else ()
    return seen


@pytest.mark.parametrize("keep", [False, True])
async def test_a_turn_beyond_its_deadline_is_discarded_or_kept(keep):
    async with bench() as b:
        session = b.sessions.create()
        async with b.turns.stream(request(session, keep=keep, timeout_s=5.0)) as events:
            assert await read_tokens(b, events, 3) == list(b"hel")
            b.now_s = 6.0
            b.model.gate.release(1000)
            with pytest.raises(DeadlineExceeded):
                [event async for event in events]
        await b.settled()
        kept = b.tokens(session)
        assert kept >= 6 if keep else kept == 0
        if keep:
            async with b.turns.stream(request(session, None)) as events:
                seen = [event async for event in events]
            text = "".join(event.text for event in seen if isinstance(event, Delta))
            assert text == "hello world"[kept - 3 :]


async def test_a_time_limit_keeps_what_was_written():
    async with bench() as b:
        session = b.sessions.create()
        async with b.turns.stream(request(session, time_limit_s=5.0)) as events:
            await read_tokens(b, events, 3)
            b.now_s = 6.0
            b.model.gate.release(1000)
            last = [event async for event in events][-1]
        assert isinstance(last, Finish)
        assert last.reason is FinishReason.TIME_LIMIT
        assert last.session_tokens == b.tokens(session) == 3 + last.usage.new_tokens
        assert last.session_etag == b.sessions.get(session.id).etag != session.etag


async def test_a_time_limit_in_the_prompt_leaves_the_session_as_it_was():
    async with bench(prefill_chunk_idle=1) as b:
        session = b.sessions.create()
        async with b.turns.stream(request(session, time_limit_s=5.0)) as events:
            assert isinstance(await anext(events), PromptInfo)
            b.now_s = 6.0
            b.model.gate.release(1000)
            (last,) = [event async for event in events]
        assert last.reason is FinishReason.TIME_LIMIT
        assert (last.session_etag, last.session_tokens) == (session.etag, 0)
        assert b.sessions.get(session.id) == session


async def test_a_failure_of_the_model_leaves_the_session_as_it_was():
    async with bench() as b:
        session = b.sessions.create()
        b.model.failures.append(ValueError("broken"))
        b.model.gate.release(1000)
        with pytest.raises(EngineFailure):
            async with b.turns.stream(request(session, keep=True)) as events:
                [event async for event in events]
        await b.settled()
        assert b.sessions.get(session.id) == session


async def test_a_turn_that_cannot_be_stored_fails_and_leaves_the_session_as_it_was():
    async with bench(session_bytes=1500) as b:
        session = b.sessions.create()
        b.model.gate.release(1000)
        with pytest.raises(SessionStoreFull):
            async with b.turns.stream(request(session)) as events:
                [event async for event in events]
        await b.settled()
        assert b.sessions.get(session.id) == session


async def test_a_character_that_two_turns_share_is_whole_in_their_tokens_alone():
    async with bench() as b:
        b.model.text = "é".encode()
        b.model.gate.release(1000)
        session, found = b.sessions.create(), []
        for prompt in ("a", None):
            async with b.turns.stream(request(session, prompt, max_new_tokens=1)) as events:
                found += [event async for event in events if isinstance(event, Delta)]
    assert [delta.text for delta in found] == ["\ufffd", "\ufffd"]
    assert bytes(token for delta in found for token in delta.token_ids).decode() == "é"


async def test_a_turn_goes_on_where_its_reader_lags():
    async with bench(max_unread_tokens=2) as b:
        session = b.sessions.create()
        b.model.gate.release(1000)
        async with b.turns.stream(request(session, max_new_tokens=11)) as events:
            texts = [event.text async for event in events if isinstance(event, Delta)]
        assert "".join(texts) == "hello world"
        assert b.tokens(session) == 14


async def test_a_paused_turn_that_is_cancelled_can_be_kept():
    async with bench(max_unread_tokens=2) as b:
        session = b.sessions.create()
        async with b.turns.stream(request(session, keep=True)) as events:
            await anext(events)
            b.model.gate.release(1000)
            b.model.wait_for(1)  # the step that samples the second token that nobody reads
            async with b.engine.stream(Request("z", max_new_tokens=4)) as others:
                assert len([event async for event in others]) > 1  # so that step is over
        await b.settled()
        assert b.tokens(session) == 5


async def test_shutting_down_discards_turns():
    async with bench() as b:
        session = b.sessions.create()
        async with b.turns.stream(request(session, keep=True)) as events:
            await read_tokens(b, events, 2)
            stopping = asyncio.create_task(asyncio.to_thread(b.engine.stop))
            while b.engine.num_running:
                await asyncio.sleep(0)
            b.model.gate.release(1000)
            await stopping
            with pytest.raises(Draining):
                [event async for event in events]
        await b.settled()
        assert b.sessions.get(session.id) == session


async def in_last_step(b):
    """Have a turn of one token read it, up to the middle of the step that does."""
    b.model.gate.release(1)
    await asyncio.to_thread(b.model.wait_for, 1)


def release_after(job, gate):
    while job.end is None:
        time.sleep(0)
    gate.release(1000)


async def test_a_shutdown_while_the_last_token_is_read_discards_the_turn():
    async with bench() as b:
        session = b.sessions.create()
        async with b.turns.stream(request(session, max_new_tokens=1)) as events:
            await in_last_step(b)
            (job,) = b.engine._running_set.scheduler.sequences()
            threading.Thread(target=release_after, args=(job, b.model.gate)).start()
            b.engine.stop()  # holds the loop up until the engine has read the token
            with pytest.raises(Draining):
                [event async for event in events]
        await b.settled()
        assert b.sessions.get(session.id) == session


async def test_a_turn_that_is_cancelled_while_its_last_token_is_read_is_discarded():
    async with bench() as b:
        session = b.sessions.create()
        async with b.turns.stream(request(session, max_new_tokens=1)):
            await in_last_step(b)
            (job,) = b.engine._running_set.scheduler.sequences()
            b.engine.cancel(job)
            b.model.gate.release(1000)
            while not job.done:
                pass
        await b.settled()
        assert b.sessions.get(session.id) == session


async def test_a_failure_of_another_completion_leaves_the_session_as_it_was():
    async with bench() as b:
        session = b.sessions.create()
        b.model.gate.release(1)
        async with b.turns.stream(request(session, keep=True, max_new_tokens=2, n=2)) as events:
            await asyncio.to_thread(b.model.wait_for, 1)  # so the other lags by a step
            reading = asyncio.create_task(anext(events))
            await until(lambda: b.engine.num_running + b.engine.num_waiting == 2)
            b.model.gate.release(2)
            await asyncio.to_thread(b.model.wait_for, 3)  # the first has come to its end
            b.model.failures.append(ValueError("broken"))
            b.model.gate.release(1000)
            await reading
            with pytest.raises(EngineFailure):
                [event async for event in events]
        await b.settled()
        assert b.sessions.get(session.id) == session


async def test_a_session_is_busy_until_its_turn_is_stored_though_nobody_waits(monkeypatch):
    async with bench() as b:
        session = b.sessions.create()
        commit, storing, stored = b.sessions.commit, threading.Event(), threading.Event()

        def slowly(*given):
            storing.set()
            assert stored.wait(PATIENCE_S)
            return commit(*given)

        async def whole():
            async with b.turns.stream(request(session)) as events:
                return [event async for event in events]

        monkeypatch.setattr(b.sessions, "commit", slowly)
        b.model.gate.release(1000)
        task = asyncio.create_task(whole())
        await asyncio.to_thread(storing.wait, PATIENCE_S)
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert b.sessions.busy()
        stored.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await b.settled()
        assert b.tokens(session) == 15


async def test_an_append_that_is_cancelled_leaves_the_session_as_it_was():
    async with bench(prefill_chunk_idle=1) as b:
        session = b.sessions.create()
        task = asyncio.create_task(b.turns.append(SessionTurn(session.id), "abcdef", None))
        await asyncio.to_thread(b.model.wait_for, 1, "forward")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await b.settled()
        assert b.sessions.get(session.id) == session


async def test_an_append_has_a_deadline():
    async with bench(prefill_chunk_idle=1) as b:
        session = b.sessions.create()
        task = asyncio.create_task(b.turns.append(SessionTurn(session.id), "abcdef", 5.0))
        await asyncio.to_thread(b.model.wait_for, 1, "forward")
        b.now_s = 6.0
        b.model.gate.release(1000)
        with pytest.raises(DeadlineExceeded):
            await task
        await b.settled()
        assert b.sessions.get(session.id) == session


async def test_a_turn_with_an_empty_prompt_needs_logits():
    async with bench() as b:
        session = b.sessions.create()
        with pytest.raises(RequestError, match="prompt must hold at least one token"):
            async with b.turns.stream(request(session, None)):
                pass
        assert not b.sessions.busy()

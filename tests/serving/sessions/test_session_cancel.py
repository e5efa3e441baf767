"""Turns that are cancelled, refused or cut short, over a real local channel."""

import asyncio
import random
import threading

import grpc
import pytest
from fake_model import PATIENCE_S, FakeModel
from local_server import serving, until
from session_calls import PROMPT, begin, create, get, plain, refused, turn
from tiny import tiny_egru_package

import spiketrain.v1.sessions_pb2 as sessions_pb
from spiketrain.runtime import load_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_egru_package(tmp_path_factory.mktemp("sessions") / "model"))


def gated():
    return FakeModel(gate=threading.Semaphore(0))


async def test_another_turn_at_the_same_time_is_refused():
    async with serving(gated(), max_batch_size=2) as served:
        session = await create(served)
        call = served.generation.GenerateStream(turn(session, PROMPT))
        assert (await call.read()).HasField("prompt")
        for other in (
            served.generation.Generate(turn(session, PROMPT)),
            served.sessions.Checkpoint(sessions_pb.CheckpointRequest(id=session.id, name="c")),
        ):
            details = await refused(other, grpc.StatusCode.ABORTED, "SESSION_BUSY")
            assert details["RetryInfo"].retry_delay.ToNanoseconds() > 0
        fork = await served.sessions.Fork(sessions_pb.ForkRequest(id=session.id))
        assert fork.num_tokens == 0
        served.model.gate.release(1000)
        while not (message := await call.read()).HasField("finish"):
            pass
        assert message.finish.session_tokens == 9
        await served.generation.Generate(turn(session, None))


async def test_a_cancelled_turn_is_discarded():
    async with serving(gated()) as served:
        session = await create(served)
        call = await begin(served, turn(session, PROMPT, 50), 3)
        call.cancel()
        await until(lambda: not served.server.sessions.busy())
        served.model.gate.release(1000)
        assert await get(served, session) == session
        assert served.engine.num_running == 0
        reply = await served.generation.Generate(turn(session, PROMPT, 11))
        assert reply.text == "hello world"


async def test_a_cancelled_turn_can_be_kept_up_to_the_last_token():
    async with serving(gated()) as served:
        session = await create(served)
        call = await begin(served, turn(session, PROMPT, 50, keep_cancelled=True), 3)
        served.model.wait_for(3)
        call.cancel()
        await until(lambda: served.engine._running_set.scheduler.sequences()[0].giving_up)
        served.model.gate.release(1000)
        await until(lambda: not served.server.sessions.busy())
        kept = (await get(served, session)).num_tokens
        assert kept == 8, "the prompt, what was sampled, and nothing that was not"
        assert served.engine.num_running == 0
        reply = await served.generation.Generate(turn(session, None, 20))
        assert reply.text == "lo world"


async def test_a_turn_that_is_cancelled_in_its_prompt_leaves_nothing():
    async with serving(gated()) as served:
        session = await create(served)
        call = served.generation.GenerateStream(turn(session, PROMPT, keep_cancelled=True))
        assert (await call.read()).HasField("prompt")
        call.cancel()
        await until(lambda: not served.server.sessions.busy())
        served.model.gate.release(1000)
        assert await get(served, session) == session


async def test_a_storm_of_cancelled_turns_leaves_every_session_usable(model):
    chance = random.Random(1)
    async with serving(model, max_batch_size=4, max_queue=200) as served:
        sessions = [await create(served, seed=number) for number in range(30)]

        async def one(session, keep):
            call = served.generation.GenerateStream(turn(session, PROMPT, 40, keep_cancelled=keep))
            for _ in range(chance.randrange(4)):
                await call.read()
            call.cancel()

        await asyncio.gather(*(one(s, n % 2 == 0) for n, s in enumerate(sessions)))
        last = served.generation.GenerateStream(plain(PROMPT, 1, seed=0))
        while await last.read() is not grpc.aio.EOF:  # calls of one method arrive in order
            pass
        await until(lambda: not served.server.sessions.busy() and not served.engine.num_running)
        for number, session in enumerate(sessions):
            kept = (await get(served, session)).num_tokens
            assert kept in (0, 45) or number % 2 == 0
            if kept:
                reply = await served.generation.Generate(turn(session, None, 45 - kept or 1))
            else:
                reply = await served.generation.Generate(turn(session, PROMPT, 40))
            alone = await served.generation.Generate(plain(PROMPT, 40, seed=number))
            wanted = list(alone.token_ids)[max(kept - 5, 0) :]
            assert list(reply.token_ids)[: len(wanted)] == wanted


async def test_a_shutdown_leaves_sessions_on_disk_as_they_were(tmp_path):
    pytest.importorskip("lmdb")
    where = {"session_dir": str(tmp_path / "sessions")}
    async with serving(gated(), **where) as served:
        session = await create(served)
        call = await begin(served, turn(session, PROMPT, 50, keep_cancelled=True), 2)
        stopping = asyncio.create_task(served.server.stop(0.0))
        await until(lambda: served.engine.num_running == 0)
        served.model.gate.release(1000)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.wait_for(stopping, PATIENCE_S)
    async with serving(FakeModel(), **where) as served:
        assert await get(served, session) == session
        assert (await served.generation.Generate(turn(session, PROMPT, 11))).text == "hello world"

"""Several completions of a session's next turn: it keeps the first, the others are forgotten."""

import threading

import grpc
import pytest
from fake_model import FakeModel
from local_server import request, serving, until
from session_calls import PROMPT, create, get, ids, plain, turn
from tiny import tiny_egru_package

import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.sessions_pb2 as sessions_pb
from spiketrain.runtime import load_model

SAMPLED = {"temperature": 1.0, "repetition_penalty": 1.3, "logprobs": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_egru_package(tmp_path_factory.mktemp("sessions") / "model"))


def alternatives(session, prompt, count, n):
    wanted = turn(session, prompt, count)
    wanted.MergeFrom(pb.GenerateRequest(**SAMPLED, n=n))
    return wanted


@pytest.mark.parametrize("prompt", [PROMPT[2:], None])
async def test_completions_are_those_of_one_request_for_the_whole_text(model, prompt):
    before = PROMPT[:2] if prompt else PROMPT
    whole = plain(PROMPT, 9, seed=7)
    whole.MergeFrom(pb.GenerateRequest(**SAMPLED, n=3))
    async with serving(model, max_batch_size=3) as served:
        alone = await served.generation.Generate(whole)
        session = await create(served, seed=7)
        await served.sessions.Append(
            sessions_pb.AppendRequest(id=session.id, token_ids=ids(before))
        )
        reply = await served.generation.Generate(alternatives(session, prompt, 9, 3))
        now = await get(served, session)
    assert len({tuple(one.token_ids) for one in (reply, *reply.further)}) == 3
    for found, wanted in zip((reply, *reply.further), (alone, *alone.further), strict=True):
        assert (found.token_ids, found.logprobs) == (wanted.token_ids, wanted.logprobs)
    assert [other.finish.session_etag for other in reply.further] == ["", ""]
    assert reply.finish.session_etag == now.etag
    assert now.num_tokens == len(PROMPT) + 9


async def test_the_session_goes_on_as_after_a_single_completion(model):
    texts = []
    async with serving(model, max_batch_size=3) as served:
        for n in (1, 3):
            session = await create(served, seed=5)
            await served.generation.Generate(alternatives(session, PROMPT, 6, n))
            texts.append(await served.generation.Generate(alternatives(session, None, 8, 1)))
    assert texts[0].token_ids == texts[1].token_ids
    assert texts[0].logprobs == texts[1].logprobs


@pytest.mark.parametrize("keep", [False, True])
async def test_want_of_room_for_all_leaves_the_session_as_it_was(keep):
    model = FakeModel(gate=threading.Semaphore(1))  # the prompt: the first is there for long
    async with serving(model, max_batch_size=1, max_queue=1) as served:
        session = await create(served)
        wanted = request(n=5, session=pb.SessionTurn(id=session.id, keep_cancelled=keep))
        call = served.generation.GenerateStream(wanted)
        scheduler = served.engine._running_set.scheduler
        await until(lambda: served.engine.num_running == 1)
        await until(lambda: not scheduler.num_running or scheduler.sequences()[0].giving_up)
        model.gate.release(1000)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await until(lambda: served.engine.num_running + served.engine.num_waiting == 0)
        reply = await served.generation.Generate(request(session=pb.SessionTurn(id=session.id)))
        assert reply.finish.session_tokens == len("abc") + len(reply.token_ids)


@pytest.mark.parametrize("keep", [False, True])
async def test_a_cancelled_call_keeps_the_first_or_nothing(keep):
    async with serving(FakeModel(gate=threading.Semaphore(0)), max_batch_size=3) as served:
        session = await create(served)
        wanted = request(n=3, session=pb.SessionTurn(id=session.id, keep_cancelled=keep))
        call = served.generation.GenerateStream(wanted)
        served.model.gate.release(2)
        assert (await call.read()).HasField("prompt")
        await until(lambda: served.engine.num_running + served.engine.num_waiting == 3)
        call.cancel()
        await until(lambda: served.engine.num_running + served.engine.num_waiting <= keep)
        served.model.gate.release(1000)
        await until(lambda: not served.server.sessions.busy())
        kept = (await get(served, session)).num_tokens
    assert kept > len("abc") if keep else kept == 0

"""Sessions over a real local channel: turns, forks, checkpoints, and what is refused."""

import asyncio

import grpc
import pytest
from local_server import serving
from session_calls import PROMPT, create, export, get, ids, plain, refused, turn
from tiny import tiny_egru_package

import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.sessions_pb2 as sessions_pb
from spiketrain.runtime import load_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_egru_package(tmp_path_factory.mktemp("sessions") / "model"))


async def test_turns_of_a_session_write_what_one_request_would(model):
    async with serving(model) as served:
        alone = await served.generation.Generate(plain(PROMPT, 12, seed=7))
        session = await create(served, seed=7)
        assert (session.num_tokens, session.seed) == (0, 7)
        first = await served.generation.Generate(turn(session, PROMPT, 5))
        second = await served.generation.Generate(turn(session, None, 7))
        assert [*first.token_ids, *second.token_ids] == list(alone.token_ids)
        assert first.prompt == pb.PromptInfo(prompt_tokens=5, seed=7)
        assert second.prompt == pb.PromptInfo(prompt_tokens=0, seed=7, reused_tokens=10)
        assert first.finish.session_tokens == 10
        now = await get(served, session)
        assert (now.num_tokens, now.etag) == (17, second.finish.session_etag)
        assert second.finish.activity.tokens == 7, "nothing was computed twice"


async def test_a_streamed_turn_is_committed_when_its_end_is_heard(model):
    async with serving(model) as served:
        session = await create(served)
        messages = [m async for m in served.generation.GenerateStream(turn(session, PROMPT))]
        assert messages[-1].finish.session_etag == (await get(served, session)).etag
        assert messages[-1].finish.session_tokens == 9


async def test_what_is_appended_counts_like_a_prompt(model):
    async with serving(model, prefill_chunk_idle=2) as served:
        alone = await served.generation.Generate(plain(PROMPT, 6, seed=7))
        session = await create(served, seed=7)
        request = sessions_pb.AppendRequest(id=session.id, token_ids=ids(PROMPT[:3]))
        reply = await served.sessions.Append(request)
        assert (reply.tokens, reply.session.num_tokens) == (3, 3)
        reply = await served.generation.Generate(turn(session, PROMPT[3:], 6))
        assert reply.token_ids == alone.token_ids
        text = sessions_pb.AppendRequest(id=session.id, text="abc")
        assert (await served.sessions.Append(text)).session.num_tokens == 14


async def test_a_rolled_back_session_writes_the_same_again(model):
    async with serving(model) as served:
        session = await create(served, seed=3)
        await served.sessions.Append(
            sessions_pb.AppendRequest(id=session.id, token_ids=ids(PROMPT))
        )
        kept = await served.sessions.Checkpoint(
            sessions_pb.CheckpointRequest(id=session.id, name="here")
        )
        assert [(c.name, c.num_tokens) for c in kept.checkpoints] == [("here", 5)]
        texts = []
        for _ in range(3):
            reply = await served.generation.Generate(turn(session, None, 8))
            texts.append(list(reply.token_ids))
            back = await served.sessions.Rollback(
                sessions_pb.RollbackRequest(id=session.id, name="here")
            )
            assert back.num_tokens == 5
        assert texts[0] == texts[1] == texts[2]
        request = turn(session, None, 8)
        request.seed = 99
        other = await served.generation.Generate(request)
        assert list(other.token_ids) != texts[0]


async def test_forks_go_their_own_ways(model):
    async with serving(model, max_batch_size=4) as served:
        session = await create(served, seed=3)
        await served.generation.Generate(turn(session, PROMPT, 4))
        forks = [
            await served.sessions.Fork(sessions_pb.ForkRequest(id=session.id)) for _ in range(3)
        ]
        assert {fork.num_tokens for fork in forks} == {9}
        prompts = [[10], [20, 21], []]
        replies = await asyncio.gather(
            *(
                served.generation.Generate(turn(fork, prompt or None, 6))
                for fork, prompt in zip(forks, prompts, strict=True)
            )
        )
        assert (await get(served, session)).num_tokens == 9
        for prompt, reply in zip(prompts, replies, strict=True):
            again = await served.sessions.Fork(sessions_pb.ForkRequest(id=session.id))
            alone = await served.generation.Generate(turn(again, prompt or None, 6))
            assert alone.token_ids == reply.token_ids


async def test_what_does_not_exist_is_not_found(model):
    async with serving(model) as served:
        nobody = sessions_pb.Session(id="0" * 32)
        code, reason = grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"
        for call in (
            lambda: get(served, nobody),
            lambda: get(served, sessions_pb.Session()),
            lambda: served.generation.Generate(turn(nobody, PROMPT)),
            lambda: served.sessions.Append(sessions_pb.AppendRequest(id="x", token_ids=ids([1]))),
            lambda: served.sessions.Fork(sessions_pb.ForkRequest(id="x")),
            lambda: served.sessions.Rollback(sessions_pb.RollbackRequest(id="x", name="y")),
            lambda: served.sessions.DeleteSession(sessions_pb.DeleteSessionRequest(id="x")),
            lambda: export(served, nobody),
        ):
            details = await refused(call(), code, reason)
            assert details["ResourceInfo"].resource_type == "session"
        session = await create(served)
        rollback = sessions_pb.RollbackRequest(id=session.id, name="none")
        details = await refused(served.sessions.Rollback(rollback), code, "CHECKPOINT_NOT_FOUND")
        assert details["ResourceInfo"].resource_name == "none"
        assert not served.server.sessions.busy()


async def test_a_deleted_session_is_gone(model):
    async with serving(model) as served:
        session = await create(served)
        await served.sessions.DeleteSession(sessions_pb.DeleteSessionRequest(id=session.id))
        await refused(get(served, session), grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
        assert served.server.sessions.count() == (0, 0)


async def test_an_old_etag_is_refused(model):
    async with serving(model) as served:
        session = await create(served)
        old = session.etag
        await served.generation.Generate(turn(session, PROMPT, etag=old))
        for call in (
            lambda: served.generation.Generate(turn(session, PROMPT, etag=old)),
            lambda: served.sessions.Append(
                sessions_pb.AppendRequest(id=session.id, etag=old, token_ids=ids([1]))
            ),
            lambda: served.sessions.Fork(sessions_pb.ForkRequest(id=session.id, etag=old)),
            lambda: served.sessions.DeleteSession(
                sessions_pb.DeleteSessionRequest(id=session.id, etag=old)
            ),
        ):
            await refused(call(), grpc.StatusCode.ABORTED, "SESSION_CHANGED")
        assert (await get(served, session)).num_tokens == 9


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.GenerateRequest(text="a", cache_salt="x"), "cache_salt"),
        (pb.GenerateRequest(text="a", prefix_cache=True), "prefix_cache"),
        (pb.GenerateRequest(), "prompt"),
        (pb.GenerateRequest(text=""), "prompt"),
    ],
)
async def test_a_turn_that_makes_no_sense_is_refused_and_leaves_the_session_free(
    model, request_, field
):
    async with serving(model) as served:
        session = await create(served)
        request = pb.GenerateRequest()
        request.CopyFrom(request_)
        request.session.id = session.id
        call = served.generation.Generate(request)
        details = await refused(call, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert details["BadRequest"].field_violations[0].field == field
        await served.generation.Generate(turn(session, PROMPT))


@pytest.mark.parametrize("content", [{}, {"text": ""}, {"token_ids": ids([257])}])
async def test_nothing_that_could_be_appended_is_refused(model, content):
    async with serving(model) as served:
        session = await create(served)
        call = served.sessions.Append(sessions_pb.AppendRequest(id=session.id, **content))
        details = await refused(call, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert details["BadRequest"].field_violations[0].field == "content"
        assert (await get(served, session)) == session


async def test_nothing_of_one_session_is_seen_by_another(model):
    async with serving(model, max_batch_size=8) as served:
        prompts = [[number, 7, number] for number in range(24)]
        alone = [await served.generation.Generate(plain(p, 10, seed=5)) for p in prompts]
        sessions = [await create(served, seed=5) for _ in prompts]

        async def talk(session, prompt):
            first = await served.generation.Generate(turn(session, prompt, 4))
            second = await served.generation.Generate(turn(session, None, 6))
            return [*first.token_ids, *second.token_ids]

        together = await asyncio.gather(*map(talk, sessions, prompts))
        assert together == [list(reply.token_ids) for reply in alone]


async def test_penalties_see_what_the_session_has_read(model):
    async with serving(model) as served:
        session = await create(served, seed=3)
        fields = {"frequency_penalty": 5.0, "max_new_tokens": 8, "ignore_eos": True}
        alone = await served.generation.Generate(
            pb.GenerateRequest(token_ids=ids(PROMPT), seed=3, **fields)
        )
        await served.sessions.Append(
            sessions_pb.AppendRequest(id=session.id, token_ids=ids(PROMPT))
        )
        wanted = pb.GenerateRequest(session=pb.SessionTurn(id=session.id), **fields)
        reply = await served.generation.Generate(wanted)
        assert reply.token_ids == alone.token_ids

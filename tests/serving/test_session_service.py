"""Sessions over a real local channel: a tiny real model, and a fake one where a turn must wait."""

import asyncio
import random
import threading

import grpc
import pytest
from fake_model import PATIENCE_S, FakeModel
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from local_server import serving
from tiny import tiny_egru_package

import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.sessions_pb2 as sessions_pb
from runtime import load_model
from serving import session_service
from serving.session_ledger import RECORD_BYTES
from serving.session_servicer import PIECE_BYTES

PROMPT = [1, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_egru_package(tmp_path_factory.mktemp("sessions") / "model"))


def gated():
    return FakeModel(gate=threading.Semaphore(0))


def ids(tokens):
    return pb.TokenIds(ids=tokens)


def turn(session, prompt=None, max_new_tokens=4, **fields):
    wanted = {} if prompt is None else {"token_ids": ids(prompt)}
    session_turn = pb.SessionTurn(id=session.id, **fields)
    return pb.GenerateRequest(
        session=session_turn, max_new_tokens=max_new_tokens, ignore_eos=True, **wanted
    )


def plain(prompt, max_new_tokens, seed):
    return pb.GenerateRequest(
        token_ids=ids(prompt), max_new_tokens=max_new_tokens, ignore_eos=True, seed=seed
    )


def create(served, **fields):
    return served.sessions.CreateSession(sessions_pb.CreateSessionRequest(**fields))


def get(served, session):
    return served.sessions.GetSession(sessions_pb.GetSessionRequest(id=session.id))


async def export(served, session):
    call = served.sessions.Export(sessions_pb.ExportRequest(id=session.id))
    return b"".join([message.data async for message in call])


async def import_(served, blob, size=PIECE_BYTES, **fields):
    pieces = [
        sessions_pb.ImportRequest(data=blob[start : start + size])
        for start in range(0, len(blob), size)
    ] or [sessions_pb.ImportRequest()]
    for name, value in fields.items():
        setattr(pieces[0], name, value)
    return await served.sessions.Import(iter(pieces))


async def refused(call, code, reason):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code, caught.value.details()
    details = {}
    for detail in rpc_status.from_call(caught.value).details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.ResourceInfo,
            error_details_pb2.RetryInfo,
            error_details_pb2.BadRequest,
        ):
            if detail.Is(kind.DESCRIPTOR):
                details[kind.__name__] = kind.FromString(detail.value)
    assert details["ErrorInfo"].reason == reason
    return details


async def until(condition):
    async def turns():
        while not condition():
            await asyncio.sleep(0)

    await asyncio.wait_for(turns(), PATIENCE_S)


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


async def test_an_exported_session_goes_on_at_another_server(model):
    async with serving(model) as one, serving(model) as other:
        session = await create(one, seed=3)
        await one.generation.Generate(turn(session, PROMPT, 4))
        blob = await export(one, session)
        for size in (PIECE_BYTES, 1000):
            moved = await import_(other, blob, size, ttl_s=60.0)
            assert (moved.num_tokens, moved.seed) == (9, 3)
            assert moved.expires_s - moved.created_s == 60.0
            there = await other.generation.Generate(turn(moved, None, 6))
            back = await served_again(one, session)
            assert there.token_ids == back.token_ids


async def served_again(served, session):
    fork = await served.sessions.Fork(sessions_pb.ForkRequest(id=session.id))
    return await served.generation.Generate(turn(fork, None, 6))


async def test_bytes_that_are_no_session_of_this_model_are_refused(model, tmp_path):
    other = load_model(tiny_egru_package(tmp_path / "other", seed=1))
    async with serving(model) as served, serving(other) as foreign:
        session = await create(served)
        await served.generation.Generate(turn(session, PROMPT))
        blob = await export(served, session)
        await refused(
            import_(foreign, blob),
            grpc.StatusCode.FAILED_PRECONDITION,
            "SESSION_OF_ANOTHER_MODEL",
        )
        flipped = bytearray(blob)
        flipped[len(blob) // 2] ^= 1
        for bad in (bytes(flipped), blob[:-1], b"", b"x" * 500):
            await refused(import_(served, bad), grpc.StatusCode.DATA_LOSS, "SESSION_DAMAGED")
        code = grpc.StatusCode.INVALID_ARGUMENT
        await refused(import_(served, bytes(1 << 20)), code, "INVALID_REQUEST")
        await refused(import_(served, blob, ttl_s=-1.0), code, "INVALID_REQUEST")
        assert served.server.sessions.count()[0] == 1


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
        (pb.GenerateRequest(text="a", n=2), "n"),
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


async def begin(served, request, tokens):
    """Start a turn of a gated model and wait for some tokens of it."""
    call = served.generation.GenerateStream(request)
    served.model.gate.release(tokens)
    seen = 0
    while seen < tokens:
        seen += len((await call.read()).delta.token_ids)
    return call


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
        await until(lambda: served.engine._scheduler.sequences()[0].giving_up)
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


async def test_sessions_on_disk_survive_a_restart(model, tmp_path):
    pytest.importorskip("lmdb")
    where = {"session_dir": str(tmp_path / "sessions")}
    async with serving(model, **where) as served:
        session = await create(served, seed=3)
        await served.generation.Generate(turn(session, PROMPT, 4))
        await served.sessions.Checkpoint(sessions_pb.CheckpointRequest(id=session.id, name="here"))
        before = await get(served, session)
        expected = await served_again(served, session)
    async with serving(model, **where) as served:
        assert await get(served, session) == before
        assert (await served_again(served, session)).token_ids == expected.token_ids


async def test_pages_list_every_session_once(model):
    async with serving(model) as served:
        names = sorted([(await create(served)).id for _ in range(5)])
        found, token = [], ""
        while True:
            reply = await served.sessions.ListSessions(
                sessions_pb.ListSessionsRequest(page_size=2, page_token=token)
            )
            found += [session.id for session in reply.sessions]
            token = reply.next_page_token
            if not token:
                break
        assert found == names
        request = sessions_pb.ListSessionsRequest(page_size=0)
        await refused(
            served.sessions.ListSessions(request),
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
        )


async def test_a_full_store_is_said_so(model):
    async with serving(model, session_bytes=3000) as served:
        await create(served)
        details = await refused(create(served), grpc.StatusCode.RESOURCE_EXHAUSTED, "SESSIONS_FULL")
        assert details["RetryInfo"].retry_delay.seconds > 0


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


async def test_prompts_with_one_beginning_are_read_once_and_write_the_same(model):
    shared = [number % 250 for number in range(200)]
    async with serving(model) as served:
        replies = []
        for fields in (
            {"prefix_cache": False},
            {"cache_salt": "mine"},
            {"cache_salt": "mine"},
            {"cache_salt": "other"},
            {},
            {},
            {"prefix_cache": False},
        ):
            request = plain([*shared, 7, 8], 20, seed=3)
            request.MergeFrom(pb.GenerateRequest(**fields))
            replies.append(await served.generation.Generate(request))
        assert [reply.prompt.reused_tokens for reply in replies] == [0, 0, 192, 0, 0, 192, 0]
        assert len({tuple(reply.token_ids) for reply in replies}) == 1
        assert replies[0].finish.activity.tokens == replies[2].finish.activity.tokens + 192
        statistics = served.engine.intake.prefixes.statistics()
        assert (statistics.hits, statistics.misses) == (2, 3)
        request = pb.GenerateRequest(text="a", prefix_cache=False, cache_salt="x")
        code = grpc.StatusCode.INVALID_ARGUMENT
        await refused(served.generation.Generate(request), code, "INVALID_REQUEST")
        request = pb.GenerateRequest(text="a", cache_salt="x" * 65)
        await refused(served.generation.Generate(request), code, "INVALID_REQUEST")


async def test_prompt_logprobs_are_whole_though_the_prompt_was_read_before(model):
    prompt = [number % 250 for number in range(100)]
    async with serving(model) as served:
        request = plain(prompt, 4, seed=3)
        await served.generation.Generate(request)
        assert (await served.generation.Generate(request)).prompt.reused_tokens == 64
        request.logprobs = request.prompt_logprobs = True
        reply = await served.generation.Generate(request)
        assert reply.prompt.reused_tokens == 0
        assert [token.token_id for token in reply.prompt_logprobs] == prompt[1:]


@pytest.mark.parametrize("store", ["memory", "disk"])
async def test_names_of_any_length_are_answered(model, store, tmp_path):
    where = {}
    if store == "disk":
        pytest.importorskip("lmdb")
        where = {"session_dir": str(tmp_path / "sessions")}
    async with serving(model, **where) as served:
        session = await create(served)
        stub = served.sessions
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        for long in ("x" * 600, "x" * 1_000_000, "\0" * 600, "é" * 300):
            nobody = sessions_pb.Session(id=long)
            code = grpc.StatusCode.NOT_FOUND
            await refused(get(served, nobody), code, "SESSION_NOT_FOUND")
            await refused(served.generation.Generate(turn(nobody)), code, "SESSION_NOT_FOUND")
            rollback = sessions_pb.RollbackRequest(id=session.id, name=long)
            await refused(stub.Rollback(rollback), code, "CHECKPOINT_NOT_FOUND")
            page = sessions_pb.ListSessionsRequest(page_token=long)
            await refused(stub.ListSessions(page), invalid, "INVALID_REQUEST")
            checkpoint = sessions_pb.CheckpointRequest(id=session.id, name=long)
            await refused(stub.Checkpoint(checkpoint), invalid, "INVALID_REQUEST")
            changed = sessions_pb.DeleteSessionRequest(id=session.id, etag=long)
            await refused(stub.DeleteSession(changed), grpc.StatusCode.ABORTED, "SESSION_CHANGED")


async def test_what_has_expired_is_tidied_up(model, monkeypatch):
    monkeypatch.setattr(session_service, "TIDY_S", 0.0)
    async with serving(model) as served:
        kept = await create(served)
        gone = await create(served, ttl_s=1e-9)
        await refused(get(served, gone), grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
        await until(lambda: served.server.sessions.count()[0] == 1)
        assert await get(served, kept) == kept


async def test_sessions_and_kept_beginnings_are_metrics(model):
    async with serving(model, metrics_port=0) as served:
        session = await create(served)
        request = plain(list(range(100)), 2, seed=3)
        for _ in range(2):
            await served.generation.Generate(request)
        value = served.server.metrics.registry.get_sample_value
        assert value("spiketrain_sessions") == 1
        assert value("spiketrain_session_bytes") == session.nbytes + RECORD_BYTES
        assert value("spiketrain_prefix_hits_total") == value("spiketrain_prefix_misses_total") == 1
        assert value("spiketrain_prefix_reused_tokens_total") == 64
        assert value("spiketrain_sequences") == served.engine.max_sequences


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

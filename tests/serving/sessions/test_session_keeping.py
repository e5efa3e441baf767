"""Which sessions a server has: lists, limits, time to live, restarts, metrics."""

import grpc
import pytest
from local_server import serving, until
from session_calls import PROMPT, create, get, plain, refused, served_again, turn
from tiny import tiny_egru_package

import spiketrain.v1.sessions_pb2 as sessions_pb
from spiketrain.runtime import load_model
from spiketrain.serving.rpc import session_service
from spiketrain.serving.sessions.ledger import RECORD_BYTES


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_egru_package(tmp_path_factory.mktemp("sessions") / "model"))


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

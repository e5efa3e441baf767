"""Sessions belong to who created them: by token or by certificate, over real channels."""

import asyncio
import threading
from contextlib import asynccontextmanager

import grpc
import pytest
import trustme
from fake_model import FakeModel
from local_server import serving, until
from tiny import tiny_egru_package

import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.generation_pb2_grpc as generation_grpc
import spiketrain.v1.models_pb2 as models_pb
import spiketrain.v1.models_pb2_grpc as models_grpc
import spiketrain.v1.sessions_pb2 as sessions_pb
import spiketrain.v1.sessions_pb2_grpc as sessions_grpc
from spiketrain.runtime import load_model
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.errors import ConfigError
from spiketrain.serving.rpc.server import Server

ALICE, BOB = "alice-0123456789abcdef", "bob-0123456789abcdef"
PROMPT = pb.TokenIds(ids=[1, 2, 3])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_egru_package(tmp_path_factory.mktemp("owners") / "model"))


@pytest.fixture
def tokens_file(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(f'[callers.alice]\ntoken = "{ALICE}"\n[callers.bob]\ntoken = "{BOB}"\n')
    return str(path)


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


async def blob_of(call):
    return b"".join([message.data async for message in call])


def calls_on(session, served, metadata):
    """A call of every method that names a session, on this one."""
    sessions, generation = served.sessions, served.generation
    turn = pb.GenerateRequest(session=pb.SessionTurn(id=session.id), token_ids=PROMPT)
    turn.max_new_tokens = 2
    wanted = {
        sessions.GetSession: sessions_pb.GetSessionRequest(id=session.id),
        sessions.Append: sessions_pb.AppendRequest(id=session.id, token_ids=PROMPT),
        sessions.Fork: sessions_pb.ForkRequest(id=session.id),
        sessions.Checkpoint: sessions_pb.CheckpointRequest(id=session.id, name="x"),
        sessions.Rollback: sessions_pb.RollbackRequest(id=session.id, name="x"),
        generation.Generate: turn,
    }
    for method, message in wanted.items():
        yield method(message, metadata=metadata)
    yield blob_of(sessions.Export(sessions_pb.ExportRequest(id=session.id), metadata=metadata))
    yield sessions.DeleteSession(sessions_pb.DeleteSessionRequest(id=session.id), metadata=metadata)


async def code_of(call):
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def listed(served, metadata=()):
    reply = await served.sessions.ListSessions(
        sessions_pb.ListSessionsRequest(page_size=2), metadata=metadata
    )
    return [session.id for session in reply.sessions]


async def create(served, metadata=()):
    return await served.sessions.CreateSession(
        sessions_pb.CreateSessionRequest(), metadata=metadata
    )


async def test_nobody_else_finds_a_session_and_its_owner_may_do_everything(model, tokens_file):
    async with serving(model, tokens_file=tokens_file) as served:
        session = await create(served, bearer(ALICE))
        for call in calls_on(session, served, bearer(BOB)):
            assert await code_of(call) is grpc.StatusCode.NOT_FOUND
        for call in calls_on(session, served, bearer(ALICE)):
            assert await code_of(call) is grpc.StatusCode.OK


async def test_lists_forks_and_imports_are_the_callers_own(model, tokens_file):
    async with serving(model, tokens_file=tokens_file) as served:
        alices = await create(served, bearer(ALICE))
        request = sessions_pb.ForkRequest(id=alices.id)
        fork = await served.sessions.Fork(request, metadata=bearer(ALICE))
        export = sessions_pb.ExportRequest(id=alices.id)
        blob = await blob_of(served.sessions.Export(export, metadata=bearer(ALICE)))
        pieces = iter([sessions_pb.ImportRequest(data=blob)])
        bobs = await served.sessions.Import(pieces, metadata=bearer(BOB))
        assert await listed(served, bearer(ALICE)) == sorted([alices.id, fork.id])
        assert await listed(served, bearer(BOB)) == [bobs.id]


async def test_a_turn_under_way_is_no_reason_to_tell_others_of_a_session(tokens_file):
    model = FakeModel(gate=threading.Semaphore(0))
    async with serving(model, tokens_file=tokens_file, max_batch_size=2) as served:
        session = await create(served, bearer(ALICE))
        turn = pb.GenerateRequest(session=pb.SessionTurn(id=session.id), text="abc")
        running = asyncio.ensure_future(
            _whole(served.generation.Generate(turn, metadata=bearer(ALICE)))
        )
        await until(lambda: served.engine.num_running == 1)
        others = served.generation.Generate(turn, metadata=bearer(BOB))
        assert await code_of(others) is grpc.StatusCode.NOT_FOUND
        again = served.generation.Generate(turn, metadata=bearer(ALICE))
        assert await code_of(again) is grpc.StatusCode.ABORTED
        model.gate.release(1000)
        assert (await running).text == "hello world"


async def _whole(call):
    return await call


async def test_owners_are_kept_on_disk(model, tokens_file, tmp_path):
    folder = str(tmp_path / "sessions")
    async with serving(model, tokens_file=tokens_file, session_dir=folder) as served:
        session = await create(served, bearer(ALICE))
    async with serving(model, tokens_file=tokens_file, session_dir=folder) as served:
        assert await listed(served, bearer(ALICE)) == [session.id]
        assert await listed(served, bearer(BOB)) == []
    async with serving(model, session_dir=folder) as served:  # now nobody says who they are
        assert await listed(served) == []


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority, tmp_path_factory):
    """Settings of mutual TLS on localhost."""
    folder = tmp_path_factory.mktemp("pem")
    issued = authority.issue_cert("localhost")
    settings = {name: str(folder / name) for name in ("tls_cert", "tls_key", "tls_client_ca")}
    issued.private_key_pem.write_to_path(settings["tls_key"])
    authority.cert_pem.write_to_path(settings["tls_client_ca"])
    for part in issued.cert_chain_pems:
        part.write_to_path(settings["tls_cert"], append=True)
    return {"host": "localhost", **settings}


class As:
    """Stubs of a channel whose client has the certificate of these names."""

    def __init__(self, channel):
        self.sessions = sessions_grpc.SessionsStub(channel)
        self.models = models_grpc.ModelsStub(channel)
        self.generation = generation_grpc.GenerationStub(channel)


@asynccontextmanager
async def client(served, authority, *names, **fields):
    issued = authority.issue_cert(*names, **fields)
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(),
        issued.private_key_pem.bytes(),
        b"".join(part.bytes() for part in issued.cert_chain_pems),
    )
    async with grpc.aio.secure_channel(f"localhost:{served.port}", credentials) as channel:
        yield As(channel)


async def test_a_certificate_says_whose_a_session_is(model, authority, tls):
    async with (
        serving(model, **tls) as served,
        client(served, authority, "alice@example.org") as alice,
        client(served, authority, "alice@example.org") as renewed,
        client(served, authority, "bob@example.org") as bob,
        client(served, authority, common_name="carol") as carol,
    ):
        session = await create(alice)
        for other in (bob, carol):
            for call in calls_on(session, other, ()):
                assert await code_of(call) is grpc.StatusCode.NOT_FOUND
            assert await listed(other) == []
        assert await listed(renewed) == [session.id]
        carols = await create(carol)
        assert await listed(carol) == [carols.id]


async def test_a_tokens_file_can_go_by_certificates(model, authority, tls, tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(
        '[callers.alice]\ncertificate = "alice@example.org"\nservices = ["Models"]\n'
        f'[callers.bob]\ntoken = "{BOB}"\ncertificate = "bob@example.org"\n'
    )
    ask = models_pb.GetModelRequest()
    unknown = grpc.StatusCode.UNAUTHENTICATED
    async with (
        serving(model, **tls, tokens_file=str(path)) as served,
        client(served, authority, "x@example.org", "alice@example.org") as alice,
        client(served, authority, "bob@example.org") as bob,
    ):
        assert await code_of(alice.models.GetModel(ask)) is grpc.StatusCode.OK
        assert await code_of(create(alice)) is grpc.StatusCode.PERMISSION_DENIED
        assert await code_of(create(bob, bearer(BOB))) is grpc.StatusCode.OK
        assert await code_of(bob.models.GetModel(ask)) is unknown
        stolen = alice.models.GetModel(ask, metadata=bearer(BOB))
        assert await code_of(stolen) is unknown


def test_a_certificate_that_nobody_is_asked_for_is_a_mistake(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text('[callers.alice]\ncertificate = "alice@example.org"\n')
    with pytest.raises(ConfigError, match=r"callers\.alice\.certificate must be left out"):
        Server(Engine(FakeModel(), ServingConfig(tokens_file=str(path))), "fake")

"""Both clients against servers that are well, busy, gone, or ask who is there."""

import asyncio
import inspect
import random
import socket
import threading
import typing
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
import trustme
from fake_model import FakeModel
from local_server import serving, until
from tiny import tiny_egru_package

import spiketrain
import spiketrain.v1.scoring_pb2 as scoring_pb
import spiketrain.v1.sessions_pb2 as sessions_pb
from spiketrain import runtime
from spiketrain.runtime.errors import RequestError
from spiketrain.runtime.scoring import token_nats
from spiketrain.serving.errors import ConfigError, QueueFull
from spiketrain.serving.request.chat_template import ChatTemplate
from spiketrain.serving.request.events import Delta, Finish, FinishReason, PromptInfo

TOKEN = "alice-0123456789abcdef"
QUICK = spiketrain.Retry(attempts=4, base_s=0.01, longest_s=0.05)


class Plain:
    """The plain client with the face of the other one, so that one test is for both."""

    def __init__(self, *arguments, **fields):
        self._client = spiketrain.Client(*arguments, **fields)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        self._client.close()

    def __getattr__(self, name):
        method = getattr(self._client, name)

        async def call(*arguments, **fields):
            return await asyncio.to_thread(method, *arguments, **fields)

        return call

    async def generate_stream(self, request):
        async for event in self._each(self._client.generate_stream(request)):
            yield event

    async def score_stream(self, *arguments, **fields):
        async for reply in self._each(self._client.score_stream(*arguments, **fields)):
            yield reply

    async def _each(self, stream):
        while (event := await asyncio.to_thread(next, stream, None)) is not None:
            yield event


@pytest.fixture(params=[Plain, spiketrain.AsyncClient], ids=["plain", "async"])
def client(request):
    @asynccontextmanager
    async def connect(port, host="127.0.0.1", **fields):
        async with request.param(f"{host}:{port}", **{"retry": QUICK, **fields}) as client:
            yield client

    return connect


async def test_a_completion_comes_as_events_or_whole(client):
    wanted = spiketrain.Request("abc", seed=3, logprobs=True, max_new_tokens=5)
    async with serving() as served, client(served.port) as connected:
        events = [event async for event in connected.generate_stream(wanted)]
        whole = await connected.generate(wanted)
    assert events[0] == PromptInfo(3, 3) == whole.prompt
    text = "".join(event.text for event in events if isinstance(event, Delta))
    assert text == whole.text == "hello"
    assert whole.token_ids == tuple(b"hello")
    assert [found.token for found in whole.logprobs] == list(b"hello")
    assert isinstance(events[-1], Finish)
    assert whole.finish.reason is FinishReason.LENGTH


async def test_every_parameter_reaches_the_server(client):
    fields = {
        "temperature": 0.7,
        "top_k": 9,
        "top_p": 0.9,
        "min_p": 0.01,
        "typical_p": 0.95,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.1,
        "penalty_window": 32,
        "logit_bias": {104: 2.0},
        "allowed_token_ids": tuple(range(257)),
        "min_new_tokens": 2,
        "stop_token_ids": (1, 2),
        "time_limit_s": 60.0,
        "logprobs": True,
        "top_logprobs": 3,
        "prompt_logprobs": False,
        "ignore_eos": True,
        "cache_salt": "mine",
        "prefix_cache": True,
        "stop_sequences": ("wor",),
        "seed": 2**64 - 1,
        "max_new_tokens": 6,
        "dial": 1.0,
    }
    wanted = spiketrain.Request([1, 2, 3], **fields)
    async with serving() as served, client(served.port) as connected:
        received = []
        input_processor = served.engine.input_processor
        completion = input_processor.completion
        input_processor.completion = lambda *args: received.append(args[0]) or completion(*args)
        await connected.generate(wanted)
    (got,) = received
    for name, value in fields.items():
        assert getattr(got, name) == value, name
    assert got.prompt == (1, 2, 3)


async def test_text_tokens_and_the_model_are_to_be_had(client):
    async with serving() as served, client(served.port) as connected:
        assert await connected.tokenize("hé") == list("hé".encode())
        assert await connected.detokenize(list("hé".encode())) == "hé"
        assert (await connected.get_model()).name == "fake"


async def test_what_the_server_refuses_is_told_with_field_and_request_id(client):
    async with serving() as served, client(served.port) as connected:
        with pytest.raises(spiketrain.ServerError, match="at least one token") as caught:
            await connected.generate(spiketrain.Request(""))
    error = caught.value
    assert (error.code, error.reason, error.field) == (
        "INVALID_ARGUMENT",
        "INVALID_REQUEST",
        "prompt",
    )
    assert len(error.request_id) == 32


def watched(engine, monkeypatch):
    """What the engine will have refused for want of room."""
    refusals, check_room = [], engine.check_room

    def check():
        try:
            check_room()
        except QueueFull as error:
            refusals.append(error)
            raise

    monkeypatch.setattr(engine, "check_room", check)
    return refusals


async def test_a_refusal_for_want_of_room_is_tried_again(client, monkeypatch):
    async with (
        serving(FakeModel(gate=threading.Semaphore(0)), max_queue=0) as served,
        client(served.port, retry=spiketrain.Retry(attempts=100)) as connected,
    ):
        first = asyncio.create_task(connected.generate(spiketrain.Request("a")))
        await until(lambda: served.engine.num_running == 1)
        refusals = watched(served.engine, monkeypatch)
        second = asyncio.create_task(connected.generate(spiketrain.Request("b")))
        await until(lambda: refusals)
        served.model.gate.release(1000)
        assert (await first).text == (await second).text == "hello world"


async def test_without_retries_a_refusal_is_told_at_once(client):
    async with (
        serving(FakeModel(gate=threading.Semaphore(0)), max_queue=0) as served,
        client(served.port, retry=spiketrain.Retry(attempts=1)) as connected,
    ):
        first = asyncio.create_task(connected.generate(spiketrain.Request("a")))
        await until(lambda: served.engine.num_running == 1)
        with pytest.raises(spiketrain.ServerError) as caught:
            await connected.generate(spiketrain.Request("b"))
        served.model.gate.release(1000)
        await first
    assert (caught.value.reason, caught.value.retry_after_s) == ("QUEUE_FULL", 1.0)


async def test_a_failure_after_the_first_event_is_not_tried_again(client):
    async with (
        serving(FakeModel(gate=threading.Semaphore(0))) as served,
        client(served.port) as connected,
    ):
        events = aiter(connected.generate_stream(spiketrain.Request("a")))
        assert isinstance(await anext(events), PromptInfo)
        served.model.failures.append(RuntimeError("boom"))
        served.model.gate.release(1000)
        with pytest.raises(spiketrain.ServerError) as caught:
            [event async for event in events]
    assert caught.value.code == "INTERNAL"
    assert [kind for kind, _ in served.model.calls] == ["forward"]


async def test_nobody_there_is_an_error_after_the_last_try(client):
    with socket.socket() as taken:  # nobody listens, nor can anybody else
        taken.bind(("127.0.0.1", 0))
        async with client(taken.getsockname()[1]) as connected:
            with pytest.raises(spiketrain.ServerError) as caught:
                await connected.get_model()
    assert caught.value.code == "UNAVAILABLE"


async def test_leaving_a_stream_early_frees_the_slot():
    async with (
        serving(FakeModel(gate=threading.Semaphore(0))) as served,
        spiketrain.AsyncClient(f"127.0.0.1:{served.port}") as connected,
    ):
        stream = connected.generate_stream(spiketrain.Request("a"))
        assert isinstance(await anext(stream), PromptInfo)
        await stream.aclose()
        await until(lambda: served.engine.num_running + served.engine.num_waiting == 0)


async def test_a_token_and_certificates_open_a_guarded_server(client, tmp_path):
    authority = trustme.CA()
    server, own = authority.issue_cert("localhost"), authority.issue_cert("me@example.org")
    names = {name: str(tmp_path / name) for name in ("ca", "cert", "key", "mine", "minekey")}
    authority.cert_pem.write_to_path(names["ca"])
    for issued, cert, key in ((server, "cert", "key"), (own, "mine", "minekey")):
        issued.cert_chain_pems[0].write_to_path(names[cert])
        issued.private_key_pem.write_to_path(names[key])
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[callers.alice]\ntoken = "{TOKEN}"\n')
    access = {"ca": names["ca"], "cert": names["mine"], "key": names["minekey"]}
    async with serving(
        host="localhost",
        tls_cert=names["cert"],
        tls_key=names["key"],
        tls_client_ca=names["ca"],
        tokens_file=str(tokens),
    ) as served:
        good = spiketrain.Access(**access, token=TOKEN)
        async with client(served.port, "localhost", access=good) as connected:
            assert (await connected.generate(spiketrain.Request("a"))).text == "hello world"
        nobody = spiketrain.Access(**access)
        async with client(served.port, "localhost", access=nobody) as connected:
            with pytest.raises(spiketrain.ServerError) as caught:
                await connected.get_model()
    assert caught.value.code == "UNAUTHENTICATED"


def test_a_token_is_not_sent_in_clear_to_a_network():
    access = spiketrain.Access(token=TOKEN)
    with pytest.raises(ConfigError, match="token must not be sent in clear"):
        spiketrain.Client("models.example.org:1", access)
    for address in ("127.0.0.1:1", "[::1]:1", "localhost:1"):
        spiketrain.Client(address, access).close()


@pytest.mark.parametrize("fields", [{"cert": "x"}, {"token": "a\nb"}, {"ca": "nowhere.pem"}])
def test_access_that_cannot_be_is_refused(fields):
    with pytest.raises(ConfigError):
        spiketrain.Client("127.0.0.1:1", spiketrain.Access(**fields))


class Failed:
    """A failed call as grpc gives it, with the details of a status."""

    def __init__(self, code, *details):
        self._code = code
        self.details = lambda: "no"

    def code(self):
        return self._code

    def trailing_metadata(self):
        return ()


@pytest.mark.parametrize(
    ("code", "reason", "changes", "again"),
    [
        ("RESOURCE_EXHAUSTED", "QUEUE_FULL", True, True),
        ("UNAVAILABLE", "SHUTTING_DOWN", True, True),
        ("UNAVAILABLE", "", False, True),
        ("UNAVAILABLE", "", True, False),
        ("RESOURCE_EXHAUSTED", "", False, False),
        ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", False, False),
        ("INTERNAL", "MODEL_FAILED", False, False),
        ("INVALID_ARGUMENT", "INVALID_REQUEST", False, False),
    ],
)
def test_a_call_is_made_again_only_where_it_is_safe(code, reason, changes, again):
    error = spiketrain.ServerError(Failed(grpc.StatusCode[code]))
    error.reason = reason
    retry = spiketrain.Retry(attempts=3, base_s=1.0, longest_s=3.0, chance=random.Random(1))
    waits = [retry.wait_s(error, attempt, changes) for attempt in (1, 2, 3)]
    if again:
        assert 0.75 <= waits[0] <= 1.0
        assert 1.5 <= waits[1] <= 2.0
    else:
        assert waits[:2] == [None, None]
    assert waits[2] is None
    error.retry_after_s = 100.0
    if again:
        assert 2.25 <= retry.wait_s(error, 1, changes) <= 3.0


@pytest.mark.parametrize(
    ("turn", "tries"), [(None, 3), (("x",), 1), (("x", "an etag"), 3)], ids=["none", "turn", "etag"]
)
async def test_a_turn_is_made_again_after_a_lost_connection_if_an_etag_guards_it(
    client, monkeypatch, turn, tries
):
    """The server is gone each time, before anything has come."""
    made = []
    monkeypatch.setattr(spiketrain.Retry, "wait_s", counted(spiketrain.Retry.wait_s, made))
    wanted = spiketrain.Request("a", session=spiketrain.SessionTurn(*turn) if turn else None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port, retry = taken.getsockname()[1], spiketrain.Retry(attempts=3, base_s=0.0)
        async with client(port, retry=retry) as connected:
            with pytest.raises(spiketrain.ServerError):
                await connected.generate(wanted)
    assert len(made) == tries


def counted(wait_s, made):
    def wait(*arguments):
        made.append(arguments)
        return wait_s(*arguments)

    return wait


def test_both_clients_have_the_same_methods():
    def methods(kind):
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in vars(kind).items()
            if not name.startswith("_")
        }

    assert methods(spiketrain.Client) == methods(spiketrain.AsyncClient)
    assert {"generate", "generate_stream", "append", "close"} < set(methods(spiketrain.Client))


@pytest.mark.parametrize("kind", [spiketrain.Client, spiketrain.AsyncClient])
def test_a_method_has_the_name_types_and_docstring_of_its_description(kind):
    waits = kind is spiketrain.AsyncClient
    assert inspect.iscoroutinefunction(kind.tokenize) == waits
    assert inspect.isasyncgenfunction(kind.generate_stream) == waits
    assert inspect.isgeneratorfunction(kind.generate_stream) != waits
    assert kind.list_sessions.__name__ == "list_sessions"
    assert "page_token" in kind.list_sessions.__doc__
    signature = inspect.signature(kind.list_sessions)
    assert list(signature.parameters) == ["self", "page_token", "page_size"]
    assert signature.return_annotation == list[sessions_pb.Session]
    stream = typing.get_type_hints(kind.score_stream)["return"]
    assert typing.get_args(stream)[0] is scoring_pb.ScoreStreamResponse


@pytest.mark.parametrize("kind", [spiketrain.Client, spiketrain.AsyncClient])
def test_a_method_that_a_user_overrides_stays_overridden(kind):
    class Shouting(kind):
        def tokenize(self, text):
            return text.upper()

    assert Shouting.tokenize(None, "a") == "A"
    assert Shouting.generate is kind.generate


async def test_a_transfer_of_a_session_is_not_made_again(client, monkeypatch):
    waits = []
    monkeypatch.setattr(spiketrain.Retry, "wait_s", counted(spiketrain.Retry.wait_s, waits))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with client(taken.getsockname()[1]) as connected:
            with pytest.raises(spiketrain.ServerError):
                await connected.import_session(b"bytes")
            with pytest.raises(spiketrain.ServerError):
                await connected.export_session("id")
    assert not waits


async def test_closing_the_iterator_of_the_plain_client_frees_the_slot():
    async with serving(FakeModel(gate=threading.Semaphore(0))) as served:
        with spiketrain.Client(f"127.0.0.1:{served.port}") as connected:
            stream = connected.generate_stream(spiketrain.Request("a"))
            assert isinstance(await asyncio.to_thread(next, stream), PromptInfo)
            await asyncio.to_thread(stream.close)
            await until(lambda: served.engine.num_running + served.engine.num_waiting == 0)


async def test_a_session_is_kept_between_calls(client):
    async with serving() as served, client(served.port) as connected:
        session = await connected.create_session(seed=5)
        turn = spiketrain.SessionTurn(session.id)
        first = await connected.generate(spiketrain.Request("ab", session=turn, max_new_tokens=2))
        assert (first.text, first.finish.session_tokens) == ("he", 4)
        kept = await connected.checkpoint(session.id, "here", first.finish.session_etag)
        twin = await connected.fork(session.id, etag=kept.etag, seed=6)
        assert twin.seed == 6
        found = await connected.list_sessions()
        assert [one.id for one in found] == sorted([session.id, twin.id])
        assert await connected.list_sessions(page_token=found[0].id, page_size=1) == found[1:]
        longer = await connected.append(session.id, [1, 2, 3], kept.etag)
        assert (twin.num_tokens, longer.num_tokens) == (4, 7)
        with pytest.raises(spiketrain.ServerError) as caught:
            await connected.append(session.id, "x", kept.etag)
        assert caught.value.code == "ABORTED"
        assert (await connected.rollback(session.id, "here")).num_tokens == 4
        assert (await connected.get_session(session.id)).num_tokens == 4
        await connected.delete_session(session.id)
        with pytest.raises(spiketrain.ServerError) as caught:
            await connected.get_session(session.id)
        assert caught.value.code == "NOT_FOUND"


async def test_messages_are_a_prompt(client):
    template = ChatTemplate("{% for m in messages %}{{ m.content }};{% endfor %}", {}, "test")
    chat = spiketrain.Chat([spiketrain.Message("user", "hi")])
    async with serving(template=template) as served, client(served.port) as connected:
        assert await connected.render_chat(chat) == "hi;"
        assert (await connected.generate(spiketrain.Request(chat))).prompt.prompt_tokens == 3


async def test_a_session_moves_from_one_server_to_another(client, tmp_path):
    model = runtime.load_model(tiny_egru_package(tmp_path / "tiny"))
    wanted = {"seed": 3, "max_new_tokens": 12}
    async with (
        serving(model) as served,
        serving(model) as other,
        client(served.port) as here,
        client(other.port) as there,
    ):
        session = await here.create_session()
        await here.append(session.id, "The old fox")
        blob = await here.export_session(session.id)
        moved = await there.import_session(blob, ttl_s=60.0)
        texts = [
            (await connected.generate(
                spiketrain.Request(" said", session=spiketrain.SessionTurn(found.id), **wanted)
            )).text
            for connected, found in ((here, session), (there, moved))
        ]  # fmt: skip
        with pytest.raises(spiketrain.ServerError) as caught:
            await there.import_session(blob[:-1] + bytes([blob[-1] ^ 1]))
    assert texts[0] == texts[1]
    assert len(texts[0]) > 0
    assert caught.value.code == "DATA_LOSS"


async def test_a_continuation_is_scored(client, tmp_path):
    model = runtime.load_model(tiny_egru_package(tmp_path / "tiny"))
    logits = model.forward(model.new_state(), list(b"abc"))
    expected = -token_nats(logits[1:], np.array([ord("c"), ord("d")])).sum()
    async with serving(model) as served, client(served.port) as connected:
        found = await connected.score("ab", "cd")
        with pytest.raises(RequestError, match="continuation must hold token ids from 0"):
            await connected.score([1], [-1])
    assert (found.tokens, found.bytes) == (2, 2)
    assert found.log_probability == pytest.approx(expected, rel=1e-12)


async def test_a_text_is_scored_in_pieces(client, tmp_path):
    model = runtime.load_model(tiny_egru_package(tmp_path / "tiny"))
    async with serving(model) as served, client(served.port) as connected:
        whole = await connected.score([97], [98, 99, 100], per_token=True)
        pieces = ([97], [98, 99], [100])
        found = [reply async for reply in connected.score_stream(pieces, per_token=True)]
        with pytest.raises(spiketrain.ServerError) as caught:
            _ = [reply async for reply in connected.score_stream([[10**6]])]
    assert [reply.piece.tokens for reply in found] == [1, 2, 1]
    scores = [score for reply in found[1:] for score in reply.piece.token_scores]
    assert [score.token_id for score in scores] == [98, 99, 100]
    assert len(whole.token_scores) == 3
    assert found[-1].total_tokens == 4
    assert caught.value.code == "INVALID_ARGUMENT"


async def test_several_completions_come_by_index(client):
    async with serving(max_batch_size=3) as served, client(served.port) as connected:
        found = await connected.generate_all(spiketrain.Request("abc", n=3))
    assert [completed.text for completed in found] == ["hello world"] * 3
    assert [completed.finish.index for completed in found] == [0, 1, 2]

"""The dial of requests, sessions and scores, over real local channels."""

import asyncio

import grpc
import numpy as np
import pytest
from local_server import serving
from session_calls import PROMPT, create, export, get, ids, import_, plain, refused, turn
from session_records import session as session_record
from tiny import tiny_egru_package
from tiny_spikegpt import tiny_spikegpt_package
from tiny_spikingbrain import tiny_spikingbrain_package

import spiketrain
import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.models_pb2 as models_pb
import spiketrain.v1.scoring_pb2 as scoring_pb
import spiketrain.v1.sessions_pb2 as sessions_pb
from spiketrain.runtime import load_model
from spiketrain.runtime.scoring import token_nats
from spiketrain.serving.client.conversation import Conversation
from spiketrain.serving.engine.prefix_cache import PrefixCache
from spiketrain.serving.sessions.session import Session

DIALS = (1.0, 1.1, 1.25, 1.5)
INVALID = grpc.StatusCode.INVALID_ARGUMENT
LONG = [number * 7 % 250 for number in range(130)]


@pytest.fixture(scope="module", params=["spikingbrain", "spikegpt"])
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("dial") / "model"
    if request.param == "spikegpt":
        tiny_spikegpt_package(path, neuron_position="projections", max_dial=2.5)
    else:
        tiny_spikingbrain_package(path, weights="int4-go", max_dial=2.5)
    return load_model(path, threads=2)


@pytest.fixture(scope="module")
def egru(tmp_path_factory):
    return load_model(tiny_egru_package(tmp_path_factory.mktemp("dial") / "egru"))


def asked(dial=None, prompt=PROMPT, tokens=12, **fields):
    found = plain(prompt, tokens, 5)
    found.temperature = 0.0
    if dial is not None:
        found.dial = dial
    found.MergeFrom(pb.GenerateRequest(**fields))
    return found


def likeliest(model, dial, prompt=PROMPT, tokens=12):
    """What one sequence by itself writes, and its state then."""
    state = model.new_state(dial)
    logits, written = model.forward(state, prompt, last_only=True), []
    for _ in range(tokens):
        written.append(int(logits.argmax()))
        if len(written) < tokens:
            logits = model.step([state], [written[-1]])[0]
    return written, state


async def test_requests_of_different_dials_share_batches_and_write_as_alone(model):
    alone = [likeliest(model, dial) for dial in DIALS]
    assert len({state.events for _, state in alone}) == len(DIALS)
    async with serving(model, max_batch_size=12) as served:
        calls = [served.generation.Generate(asked(dial)) for dial in DIALS * 3]
        replies = await asyncio.gather(*calls)
    for reply, (written, state) in zip(replies, alone * 3, strict=True):
        assert list(reply.token_ids) == written
        assert reply.finish.activity.events == state.events
    assert len({tuple(written) for written, _ in alone}) > 1


async def test_kept_states_of_prompts_are_those_of_the_same_dial(model):
    async with serving(model) as served:
        replies = [
            await served.generation.Generate(asked(dial, LONG))
            for dial in (1, 1, 1.3, 1.3, None, 1.5)
        ]
    assert [reply.prompt.reused_tokens for reply in replies] == [0, 128, 0, 128, 128, 0]
    for reply, dial in zip(replies, (1, 1, 1.3, 1.3, 1, 1.5), strict=True):
        assert list(reply.token_ids) == likeliest(model, dial, LONG)[0]


def test_keys_of_kept_states_differ_with_the_dial():
    cache = PrefixCache(1 << 20, "model")
    keys = [cache.keys(LONG, "", dial)[64] for dial in (1.0, 1.1, 2.0)]
    assert len(set(keys)) == 3
    assert cache.keys(LONG, "") == cache.keys(LONG, "", 1.0)


async def test_several_completions_have_the_dial_of_their_request(model):
    async with serving(model, max_batch_size=3) as served:
        one = await served.generation.Generate(asked(1.4))
        three = await served.generation.Generate(asked(1.4, n=3))
    assert {tuple(found.token_ids) for found in three.further} == {tuple(one.token_ids)}
    assert list(one.token_ids) == likeliest(model, 1.4)[0]


async def test_a_session_keeps_its_dial(model):
    written, _ = likeliest(model, 1.3)
    async with serving(model) as served:
        session = await create(served, dial=1.3)
        assert session.dial == 1.3
        first = turn(session, PROMPT, 5)
        first.temperature = 0.0
        reply = await served.generation.Generate(first)
        fork = await served.sessions.Fork(sessions_pb.ForkRequest(id=session.id))
        moved = await import_(served, await export(served, session))
        for place in (session, fork, moved):
            assert (await get(served, place)).dial == 1.3
            rest = turn(place, None, 7)
            rest.temperature, rest.dial = 0.0, 1.3
            found = await served.generation.Generate(rest)
            assert list(reply.token_ids) + list(found.token_ids) == written


async def test_a_fork_goes_on_at_another_dial_if_asked(model):
    state = model.new_state(1.3)
    logits = model.forward(state, PROMPT, last_only=True)
    model.set_dial(state, 1.0)
    written = []
    for _ in range(6):
        written.append(int(logits.argmax()))
        logits = model.step([state], written[-1:])[0]
    async with serving(model) as served:
        session = await create(served, dial=1.3)
        append = sessions_pb.AppendRequest(id=session.id, token_ids=ids(PROMPT))
        await served.sessions.Append(append)
        await served.sessions.Checkpoint(sessions_pb.CheckpointRequest(id=session.id, name="a"))
        await served.generation.Generate(turn(session))
        fork = await served.sessions.Fork(
            sessions_pb.ForkRequest(id=session.id, checkpoint="a", dial=1.0)
        )
        assert (fork.dial, fork.num_tokens, fork.seed) == (1.0, len(PROMPT), session.seed)
        wanted = turn(fork, None, 6)
        wanted.temperature = 0.0
        assert list((await served.generation.Generate(wanted)).token_ids) == written
        assert (await get(served, session)).dial == 1.3
        for bad in (0.5, 2.6, float("nan")):
            call = served.sessions.Fork(sessions_pb.ForkRequest(id=session.id, dial=bad))
            details = await refused(call, INVALID, "INVALID_REQUEST")
            assert details["BadRequest"].field_violations[0].field == "dial"
        async with spiketrain.AsyncClient(f"127.0.0.1:{served.port}") as client:
            assert (await client.fork(session.id, dial=2.5)).dial == 2.5


async def test_a_turn_of_another_dial_than_its_sessions_is_refused_and_changes_nothing(model):
    async with serving(model) as served:
        session = await create(served, dial=1.3)
        before = (await served.generation.Generate(turn(session, PROMPT))).finish.session_etag
        for other in (1.0, 2.5):
            wanted = turn(session, PROMPT)
            wanted.dial = other
            details = await refused(served.generation.Generate(wanted), INVALID, "INVALID_REQUEST")
            (violation,) = details["BadRequest"].field_violations
            assert violation.field == "dial"
            assert "1.3, the session's" in violation.description
        assert (await get(served, session)).etag == before
        await served.generation.Generate(turn(session))  # nor does it stay busy
        assert (await create(served)).dial == 1.0


async def test_scores_are_those_of_the_dial(model):
    tokens = [*PROMPT, 9, 8, 7, 6]
    sums = []
    async with serving(model) as served:
        for dial in DIALS:
            request = scoring_pb.ScoreRequest(
                context_token_ids=ids(PROMPT), continuation_token_ids=ids(tokens[5:]), dial=dial
            )
            found = await served.scoring.Score(request)
            logits = model.forward(model.new_state(dial), tokens[:-1])[4:]
            sums.append(found.log_probability)
            assert -found.log_probability == token_nats(logits, np.array(tokens[5:])).sum()
        async with spiketrain.AsyncClient(f"127.0.0.1:{served.port}") as client:
            pieces = [tokens[:3], tokens[3:]]
            ends = [reply async for reply in client.score_stream(pieces, dial=1.3)]
            score = await client.score(tokens[:1], tokens[1:], dial=1.3)
    assert len(set(sums)) == len(DIALS)
    whole = [model.eos_token_ids[0], *tokens]
    logits = model.forward(model.new_state(1.3), whole[:-1])
    wanted = token_nats(logits, np.array(tokens)).sum()
    assert -ends[-1].total_log_probability == pytest.approx(wanted, rel=1e-12)
    logits = model.forward(model.new_state(1.3), tokens[:-1])
    assert -score.log_probability == token_nats(logits, np.array(tokens[1:])).sum()


async def test_a_stream_of_scores_has_one_dial(model):
    async with serving(model) as served:
        pieces = [
            scoring_pb.ScoreStreamRequest(token_ids=ids([1, 2]), dial=1.4),
            scoring_pb.ScoreStreamRequest(token_ids=ids([3]), dial=1.4),
        ]
        call = served.scoring.ScoreStream(iter(pieces))
        assert (await call.read()).total_tokens == 2
        details = await refused(call.read(), INVALID, "INVALID_REQUEST")
        assert details["BadRequest"].field_violations[0].field == "dial"


def calls_with(served, dial):
    yield lambda: served.generation.Generate(asked(dial))
    yield lambda: served.generation.GenerateStream(asked(dial)).read()
    score = scoring_pb.ScoreRequest(
        context_token_ids=ids([1]), continuation_token_ids=ids([2]), dial=dial
    )
    yield lambda: served.scoring.Score(score)
    piece = scoring_pb.ScoreStreamRequest(token_ids=ids([1, 2]), dial=dial)
    yield lambda: served.scoring.ScoreStream(iter([piece])).read()
    yield lambda: create(served, dial=dial)


async def assert_refused(served, dial, rule):
    for call in calls_with(served, dial):
        details = await refused(call(), INVALID, "INVALID_REQUEST")
        (violation,) = details["BadRequest"].field_violations
        assert violation.field == "dial"
        assert rule in violation.description


async def test_dials_out_of_range_are_refused_by_every_call(model):
    async with serving(model) as served:
        for dial in (0.0, -1.0, 0.99, 2.51, float("nan"), float("inf"), 1e300):
            await assert_refused(served, dial, "from 1 to 2.5")
        described = await served.models.GetModel(models_pb.GetModelRequest())
    assert described.limits.max_dial == 2.5
    assert "dial" in described.capabilities


async def test_a_model_without_a_dial_takes_one_alone(egru):
    async with serving(egru) as served:
        for dial in (1.5, 0.5, float("nan")):
            await assert_refused(served, dial, "be 1: this model has no other")
        for call in calls_with(served, 1.0):
            await call()
        described = await served.models.GetModel(models_pb.GetModelRequest())
        session = await create(served)
    assert session.dial == 1.0
    assert described.limits.max_dial == 1.0
    assert "dial" not in described.capabilities


async def test_clients_ask_for_a_dial(model):
    written, _ = likeliest(model, 1.4)
    wanted = spiketrain.Request(
        PROMPT, max_new_tokens=12, temperature=0.0, ignore_eos=True, dial=1.4
    )
    async with serving(model) as served:
        address = f"127.0.0.1:{served.port}"
        async with spiketrain.AsyncClient(address) as client:
            assert list((await client.generate(wanted)).token_ids) == written
            assert (await client.create_session(dial=1.4)).dial == 1.4
            with pytest.raises(spiketrain.ServerError) as caught:
                await client.generate(spiketrain.Request(PROMPT, dial=9.0))
            assert (caught.value.code, caught.value.field) == ("INVALID_ARGUMENT", "dial")
        await asyncio.to_thread(plain_client_asks, address, wanted, written)


def plain_client_asks(address, wanted, written):
    with spiketrain.Client(address) as client:
        assert list(client.generate(wanted).token_ids) == written
        assert client.create_session(dial=1.5).dial == 1.5
        talk = Conversation(client, None, {"dial": 1.4, "max_new_tokens": 3})
        assert "".join(talk.say("abc"))
        assert 1.4 in [session.dial for session in client.list_sessions()]


def test_a_session_stored_before_there_were_dials_has_one():
    before = session_record().to_json().replace(b',"dial":1.0', b"")
    assert b"dial" not in before
    assert Session.from_json(before) == session_record()

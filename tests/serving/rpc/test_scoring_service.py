"""Scoring over a real local channel, against one call of the model over all tokens."""

import asyncio
import itertools

import grpc
import numpy as np
import pytest
from fake_model import FakeModel
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from local_server import serving
from tiny import tiny_egru_package

import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.scoring_pb2 as scoring_pb
from spiketrain.runtime import load_model
from spiketrain.runtime.scoring import token_nats

TEXT = "the old fox said to the little girl that the wood was dark"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_egru_package(tmp_path_factory.mktemp("scoring") / "model"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Without tokenizer and end of text."""
    path = tmp_path_factory.mktemp("scoring") / "plain"
    return load_model(tiny_egru_package(path, with_tokenizer=False))


def expected(model, tokens, first):
    logits = model.forward(model.new_state(), tokens[:-1])[first - 1 :]
    targets = np.array(tokens[first:])
    return token_nats(logits, targets), logits.argmax(axis=1) == targets


def token_request(context, continuation, **fields):
    return scoring_pb.ScoreRequest(
        context_token_ids=pb.TokenIds(ids=context),
        continuation_token_ids=pb.TokenIds(ids=continuation),
        **fields,
    )


def text_request(context, continuation, **fields):
    return scoring_pb.ScoreRequest(context_text=context, continuation_text=continuation, **fields)


async def refused(call, code=grpc.StatusCode.INVALID_ARGUMENT):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code
    for detail in rpc_status.from_call(caught.value).details:
        if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            return error_details_pb2.BadRequest.FromString(detail.value).field_violations[0].field
    return None


@pytest.mark.parametrize("chunk", [1, 3, 512])
async def test_scores_are_those_of_one_pass_whatever_the_chunks(model, chunk):
    tokens = model.tokenizer.encode(TEXT)
    nats, greedy = expected(model, tokens, 20)
    async with serving(model, prefill_chunk_idle=chunk) as served:
        reply = await served.scoring.Score(token_request(tokens[:20], tokens[20:], per_token=True))
    assert reply.log_probability == -nats.sum()
    assert reply.tokens == len(tokens) - 20
    assert reply.bytes == len(TEXT) - 20
    assert reply.is_greedy == greedy.all()
    assert [score.token_id for score in reply.token_scores] == tokens[20:]
    assert [score.log_probability for score in reply.token_scores] == list(-nats)
    assert [score.is_greedy for score in reply.token_scores] == list(greedy)


async def test_what_the_model_would_write_is_greedy(model):
    async with serving(model) as served:
        request = pb.GenerateRequest(
            text="abc", temperature=0.0, max_new_tokens=10, ignore_eos=True
        )
        written = await served.generation.Generate(request)
        context = list(b"abc")
        reply = await served.scoring.Score(token_request(context, written.token_ids))
        assert reply.is_greedy
        other = [*written.token_ids[:-1], (written.token_ids[-1] + 1) % 250]
        assert not (await served.scoring.Score(token_request(context, other))).is_greedy
        assert not reply.token_scores


async def test_text_is_encoded_as_a_whole_and_blanks_go_with_the_continuation(model):
    async with serving(model) as served:
        one = await served.scoring.Score(text_request("the old ", "fox"))
        other = await served.scoring.Score(text_request("the old", " fox"))
    tokens = model.tokenizer.encode("the old fox")
    nats, _ = expected(model, tokens, 7)
    assert one == other
    assert (one.log_probability, one.tokens, one.bytes) == (-nats.sum(), 4, 4)


async def test_without_a_context_the_end_of_text_stands_before(model, plain):
    async with serving(model) as served:
        reply = await served.scoring.Score(text_request("", "fox"))
    nats, _ = expected(model, [256, *b"fox"], 1)
    assert (reply.log_probability, reply.tokens) == (-nats.sum(), 3)
    async with serving(plain) as served:
        assert await refused(served.scoring.Score(token_request([], [1]))) == "context"
        reply = await served.scoring.Score(token_request([2], [1]))
        assert (reply.tokens, reply.bytes) == (1, 0)
        code = grpc.StatusCode.FAILED_PRECONDITION
        await refused(served.scoring.Score(text_request("a", "b")), code)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (scoring_pb.ScoreRequest(), "context"),
        (scoring_pb.ScoreRequest(context_text="a"), "continuation"),
        (text_request("a", ""), "continuation"),
        (text_request("", ""), "continuation"),
        (token_request([1], []), "continuation"),
        (token_request([1], [257]), "continuation"),
        (token_request([300], [1]), "context"),
        (token_request([1] * 10, [1] * 11), "continuation"),
        (
            scoring_pb.ScoreRequest(context_text="a", continuation_token_ids=pb.TokenIds(ids=[1])),
            "continuation",
        ),
    ],
)
async def test_what_cannot_be_scored_is_refused(model, request_, field):
    async with serving(model, max_prompt_tokens=20) as served:
        assert await refused(served.scoring.Score(request_)) == field


def pieces(tokens, cuts):
    bounds = [0, *cuts, len(tokens)]
    for start, stop in itertools.pairwise(bounds):
        yield scoring_pb.ScoreStreamRequest(
            token_ids=pb.TokenIds(ids=tokens[start:stop]), per_token=True
        )


@pytest.mark.parametrize("cuts", [[], [1], [1, 2, 30], [0, 7, 7, 58]])
async def test_a_stream_scores_like_one_pass_however_it_is_cut(model, cuts):
    tokens = model.tokenizer.encode(TEXT)
    nats, _ = expected(model, [256, *tokens], 1)
    async with serving(model) as served:
        replies = [r async for r in served.scoring.ScoreStream(pieces(tokens, cuts))]
    assert len(replies) == len(cuts) + 1
    scores = [score for reply in replies for score in reply.piece.token_scores]
    assert [score.token_id for score in scores] == tokens
    assert [score.log_probability for score in scores] == list(-nats)
    assert replies[-1].total_tokens == len(tokens)
    assert replies[-1].total_bytes == len(TEXT)
    assert replies[-1].total_log_probability == pytest.approx(-nats.sum())


async def test_the_first_token_of_a_stream_may_have_nothing_before_it(plain):
    tokens = list(range(1, 30))
    nats, _ = expected(plain, tokens, 1)
    async with serving(plain) as served:
        replies = [r async for r in served.scoring.ScoreStream(pieces(tokens, [1, 5]))]
    assert [reply.piece.tokens for reply in replies] == [0, 4, 24]
    assert replies[-1].total_log_probability == pytest.approx(-nats.sum())


async def test_a_stream_goes_on_for_longer_than_any_prompt(model):
    async with serving(model, max_prompt_tokens=16) as served:
        stream = served.scoring.ScoreStream()
        for number in range(50):
            await stream.write(scoring_pb.ScoreStreamRequest(text="ten tokens"))
            assert (await stream.read()).total_tokens == 10 * (number + 1)
        await stream.write(scoring_pb.ScoreStreamRequest(text="x" * 17))
        assert await refused(stream.read()) == "content"
        assert served.engine.num_running == 0


async def test_only_so_many_streams_may_hold_a_state(model):
    piece = scoring_pb.ScoreStreamRequest(text="abc")
    async with serving(model, max_batch_size=1, max_queue=1) as served:
        streams = [served.scoring.ScoreStream() for _ in range(2)]
        for stream in streams:
            await stream.write(piece)
            assert (await stream.read()).total_tokens == 3
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        third = served.scoring.ScoreStream(iter([piece]))
        await refused(third.read(), code)
        assert await third.details() == "2 streams of scores are open, no more may be"
        await streams[0].done_writing()
        assert await streams[0].read() is grpc.aio.EOF
        assert (await served.scoring.ScoreStream(iter([piece])).read()).total_tokens == 3
        await streams[1].write(piece)
        assert (await streams[1].read()).total_tokens == 6


async def test_a_piece_without_content_is_refused(model):
    async with serving(model) as served:
        stream = served.scoring.ScoreStream(iter([scoring_pb.ScoreStreamRequest()]))
        assert await refused(stream.read()) == "content"


async def test_scores_do_not_depend_on_what_else_is_running(model):
    texts = [TEXT[start:] for start in range(20)]
    async with serving(model, max_batch_size=8) as served:
        alone = [await served.scoring.Score(text_request(t[:9], t[9:])) for t in texts]
        writing = [
            served.generation.Generate(pb.GenerateRequest(text=t, max_new_tokens=40)) for t in texts
        ]
        together = await asyncio.gather(
            *(served.scoring.Score(text_request(t[:9], t[9:])) for t in texts)
        )
        await asyncio.gather(*writing)
    assert together == alone


async def test_a_failure_of_the_model_is_internal():
    model = FakeModel(failures=[ValueError("broken")])
    async with serving(model) as served:
        call = served.scoring.Score(text_request("a", "b"))
        await refused(call, grpc.StatusCode.INTERNAL)
        assert served.engine.num_running == 0

"""States of prompts' beginnings, over a real local channel."""

import grpc
import pytest
from local_server import serving
from session_calls import plain, refused
from tiny import tiny_egru_package

import spiketrain.v1.generation_pb2 as pb
from spiketrain.runtime import load_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_egru_package(tmp_path_factory.mktemp("sessions") / "model"))


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
        statistics = served.engine.input_processor.prefixes.statistics()
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

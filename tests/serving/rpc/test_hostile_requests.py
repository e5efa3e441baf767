"""Whatever a request holds, its answer is a completion or a status that blames the request."""

import asyncio

import grpc
import pytest
from fake_model import VOCAB_SIZE
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from local_server import serving
from tiny import tiny_egru_package

import spiketrain.v1.generation_pb2 as pb
from spiketrain import runtime

BLAMED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
BLAMED |= {grpc.StatusCode.FAILED_PRECONDITION}
REAL = st.floats() | st.sampled_from([0.0, 1.0, 1e-300, 1e300, -1.0, 0.5])
WHOLE = st.integers(0, 20) | st.integers(0, 2**32 - 1)
TOKEN = st.integers(0, VOCAB_SIZE) | st.integers(0, 2**32 - 1)
TEXT = st.text(max_size=20)
# fmt: off
GRAMMAR = TEXT | st.sampled_from([
    "a*", "(", "[", ".*" * 30, "a{1,99999}", "\\p{L}+|^$", "{}", "true", '{"type": "array"}',
    '{"$ref": "#"}', "start: start", 'start: "a" start | "b"', 'start: ""', "start: /x{0,400}/",
])
# fmt: on
FIELDS = {
    "max_new_tokens": st.integers(0, 9),
    "temperature": REAL,
    "top_k": WHOLE,
    "top_p": REAL,
    "seed": st.integers(0, 2**64 - 1),
    "stop_sequences": st.lists(TEXT, max_size=3),
    "min_p": REAL,
    "typical_p": REAL,
    "repetition_penalty": REAL,
    "frequency_penalty": REAL,
    "presence_penalty": REAL,
    "penalty_window": WHOLE,
    "logit_bias": st.dictionaries(TOKEN, REAL, max_size=3),
    "allowed_token_ids": st.lists(TOKEN, max_size=5),
    "min_new_tokens": st.integers(0, 9),
    "ignore_eos": st.booleans(),
    "stop_token_ids": st.lists(TOKEN, max_size=3),
    "time_limit_s": REAL,
    "logprobs": st.booleans(),
    "top_logprobs": WHOLE,
    "prompt_logprobs": st.booleans(),
    "n": st.integers(0, 4),
    "json_schema": GRAMMAR,
    "regex": GRAMMAR,
    "grammar": GRAMMAR,
    "session": st.builds(pb.SessionTurn, id=TEXT, etag=TEXT),
    "prefix_cache": st.booleans(),
    "cache_salt": TEXT,
}
PROMPTS = {
    "text": TEXT,
    "token_ids": st.builds(pb.TokenIds, ids=st.lists(TOKEN, max_size=9)),
    "chat": st.builds(pb.Chat, messages=st.lists(st.builds(pb.ChatMessage, role=TEXT), max_size=2)),
}
SOME = st.lists(st.sampled_from(sorted(FIELDS)), max_size=4, unique=True)


@st.composite
def requests(draw):
    prompt = draw(st.sampled_from(["text", "text", "token_ids", "chat"]))
    fields = {name: draw(FIELDS[name]) for name in draw(SOME)}
    return pb.GenerateRequest(**{"max_new_tokens": 5, prompt: draw(PROMPTS[prompt]), **fields})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return runtime.load_model(tiny_egru_package(tmp_path_factory.mktemp("tiny") / "package"))


@seed(6)
@settings(max_examples=12)
@given(st.lists(requests(), min_size=20, max_size=20))
def test_no_request_is_the_servers_fault(tiny, wanted):
    async def codes():
        async with serving(tiny, max_batch_size=8) as served:
            calls = [served.generation.Generate(message) for message in wanted]
            found = [await call.code() for call in calls]
            assert served.engine.num_running == served.engine.num_waiting == 0
            return found

    for message, code in zip(wanted, asyncio.run(codes()), strict=True):
        assert code is grpc.StatusCode.OK or code in BLAMED, message

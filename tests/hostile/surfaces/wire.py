"""Requests on the wire: raw bytes for every method of a server on this machine."""

import asyncio
from contextlib import closing, contextmanager

import tiny
from mutation import changed_bytes

TARGET, BATCH, NEEDS = 100_000, 500, ("grpc", "structlog", "tokenizers", "grpc_health")
TIMEOUT_S = 60.0
UNARY = (
    "Generation/Generate",
    "Scoring/Score",
    "Sessions/CreateSession",
    "Sessions/GetSession",
    "Sessions/ListSessions",
    "Sessions/UpdateSession",
    "Sessions/DeleteSession",
    "Sessions/Fork",
    "Sessions/Append",
    "Models/GetModel",
    "Tokenization/Tokenize",
    "Tokenization/Detokenize",
)


def prepare(folder):
    """The package, and messages that servers take."""
    from spiketrain.v1 import generation_pb2, sessions_pb2

    ids = generation_pb2.TokenIds(ids=[1, 2, 300])
    request = generation_pb2.GenerateRequest
    messages = [
        request(text="abc", max_new_tokens=3, seed=2**64 - 1, stop_sequences=["a"], logprobs=True),
        request(token_ids=ids, max_new_tokens=2, temperature=0.5, top_k=3, logit_bias={1: 2.0}),
        request(text="a", max_new_tokens=2, n=2, allowed_token_ids=[1, 2], time_limit_s=1.0),
        request(session=generation_pb2.SessionTurn(id="a" * 22), max_new_tokens=1),
        sessions_pb2.CreateSessionRequest(),
    ]
    package = tiny.tiny_egru_package(folder / "wire", hidden_sizes=(5, 4), embedding_size=4)
    return package, [message.SerializeToString() for message in messages]


def make(chance, seeds):
    """The number of a method, then a message."""
    message = changed_bytes(chance, chance.choice(seeds[1]))
    method = 0 if chance.random() < 0.5 else chance.randrange(len(UNARY))
    return bytes([method]) + message


@contextmanager
def open_calls(seeds):
    """One server for a batch."""
    from local_server import serving

    from spiketrain.runtime import load_model

    with closing(asyncio.new_event_loop()) as loop:
        context = serving(load_model(seeds[0]), max_batch_size=4, max_new_tokens=8)
        served = loop.run_until_complete(context.__aenter__())
        try:
            yield lambda data: loop.run_until_complete(_call(served.channel, data))
        finally:
            loop.run_until_complete(context.__aexit__(None, None, None))


class BlamedError(Exception):
    """The server refused a message and says whose fault that is."""


async def _call(channel, data):
    import grpc

    name = UNARY[data[0] % len(UNARY)]
    method = channel.unary_unary(f"/spiketrain.v1.{name}")
    try:
        await method(data[1:], timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        codes = grpc.StatusCode
        foreseen = {codes.INVALID_ARGUMENT, codes.NOT_FOUND, codes.FAILED_PRECONDITION}
        foreseen |= {codes.ABORTED, codes.RESOURCE_EXHAUSTED, codes.UNIMPLEMENTED}
        foreseen |= {codes.OUT_OF_RANGE}
        if error.code() not in foreseen:
            raise
        raise BlamedError from None


def allowed():
    return (BlamedError,)

"""Calls of the services Sessions and Generation on sessions, as several tests make them."""

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.sessions_pb2 as sessions_pb
from spiketrain.serving.rpc.sessions_servicer import PIECE_BYTES

PROMPT = [1, 2, 3, 4, 5]


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


async def begin(served, request, tokens):
    """Start a turn of a gated model and wait for some tokens of it."""
    call = served.generation.GenerateStream(request)
    served.model.gate.release(tokens)
    seen = 0
    while seen < tokens:
        seen += len((await call.read()).delta.token_ids)
    return call


async def served_again(served, session):
    fork = await served.sessions.Fork(sessions_pb.ForkRequest(id=session.id))
    return await served.generation.Generate(turn(fork, None, 6))

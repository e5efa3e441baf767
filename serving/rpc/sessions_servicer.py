"""The Sessions service: messages to calls of Sessions and Turns, and back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

import spiketrain.v1.sessions_pb2 as pb
import spiketrain.v1.sessions_pb2_grpc as sessions_grpc
from spiketrain.runtime.errors import RequestError
from spiketrain.serving.request.request import SessionTurn
from spiketrain.serving.rpc.caller import caller
from spiketrain.serving.rpc.inflight import InFlight
from spiketrain.serving.rpc.status import errors_as_status
from spiketrain.serving.rpc.timeout import timeout_s
from spiketrain.serving.rpc.wire import given, ids_of
from spiketrain.serving.sessions.session import Session
from spiketrain.serving.sessions.sessions import DEFAULT_PAGE, Sessions
from spiketrain.serving.sessions.turns import Turns

PIECE_BYTES = 1 << 20  # of an exported session


class SessionsServicer(sessions_grpc.SessionsServicer):
    """Sessions: sequences that outlive a call."""

    def __init__(self, sessions: Sessions, turns: Turns, inflight: InFlight) -> None:
        self._sessions = sessions
        self._turns = turns
        self._inflight = inflight

    async def CreateSession(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """A new session."""
        with self._inflight:
            async with errors_as_status(context):
                ttl_s, seed = given(request, "ttl_s"), given(request, "seed")
                args = (ttl_s, seed, caller(), given(request, "dial"))
                return to_session(await asyncio.to_thread(self._sessions.create, *args))

    async def GetSession(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """What is known of it."""
        with self._inflight:
            async with errors_as_status(context):
                args = (request.id, "", caller())
                return to_session(await asyncio.to_thread(self._sessions.get, *args))

    async def ListSessions(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """A page of them; the token of the next one is the last id."""
        with self._inflight:
            async with errors_as_status(context):
                count = given(request, "page_size")
                args = (request.page_token, count, caller())
                page = await asyncio.to_thread(self._sessions.page, *args)
                full = len(page) == (DEFAULT_PAGE if count is None else count)
                return pb.ListSessionsResponse(
                    sessions=map(to_session, page), next_page_token=page[-1].id if full else ""
                )

    async def DeleteSession(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Nothing, once it is forgotten."""
        with self._inflight:
            async with errors_as_status(context):
                args = (request.id, request.etag, caller())
                await asyncio.to_thread(self._sessions.delete, *args)
                return pb.DeleteSessionResponse()

    async def Append(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The session once it has read the content."""
        with self._inflight:
            async with errors_as_status(context):
                kind = request.WhichOneof("content")
                if kind is None:
                    raise RequestError("content", "be given as text or as token_ids", None)
                content = request.text if kind == "text" else ids_of(request.token_ids.ids)
                wanted = SessionTurn(request.id, request.etag)
                limit_s = timeout_s(context)
                read = await self._turns.append(wanted, content, limit_s, caller())
                session, tokens = read
                return pb.AppendResponse(session=to_session(session), tokens=tokens)

    async def Fork(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The new session."""
        with self._inflight:
            async with errors_as_status(context):
                session = await asyncio.to_thread(
                    self._sessions.fork,
                    request.id,
                    request.etag,
                    request.checkpoint,
                    given(request, "ttl_s"),
                    given(request, "seed"),
                    caller(),
                    given(request, "dial"),
                )
                return to_session(session)

    async def Checkpoint(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The session with the checkpoint."""
        with self._inflight:
            async with errors_as_status(context):
                args = (request.id, request.name, request.etag, caller())
                return to_session(await asyncio.to_thread(self._sessions.checkpoint, *args))

    async def Rollback(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The session where the checkpoint is."""
        with self._inflight:
            async with errors_as_status(context):
                args = (request.id, request.name, request.etag, caller())
                return to_session(await asyncio.to_thread(self._sessions.rollback, *args))

    async def Export(self, request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        """The session's bytes, piece by piece."""
        with self._inflight:
            async with errors_as_status(context):
                args = (request.id, request.etag, caller())
                blob = await asyncio.to_thread(self._sessions.export, *args)
                for start in range(0, len(blob), PIECE_BYTES):
                    yield pb.ExportResponse(data=blob[start : start + PIECE_BYTES])

    async def Import(
        self, request_iterator: AsyncIterator[Any], context: grpc.aio.ServicerContext
    ) -> Any:
        """A new session from exported bytes; more than any session has are not gathered."""
        with self._inflight:
            async with errors_as_status(context):
                async with aclosing(self._inflight.messages(request_iterator)) as requests:
                    blob, ttl_s = await self._gathered(requests)
                args = (blob, ttl_s, caller())
                return to_session(await asyncio.to_thread(self._sessions.import_, *args))

    async def _gathered(self, requests: AsyncIterator[Any]) -> tuple[bytes, float | None]:
        """The bytes of all pieces, and the time to live."""
        ttl_s, blob, most = None, bytearray(), self._sessions.max_blob_bytes
        first = True
        async for request in requests:
            if first:
                ttl_s = given(request, "ttl_s")
            elif given(request, "ttl_s") is not None:
                raise RequestError("ttl_s", "be in the first message alone", request.ttl_s)
            first = False
            blob += request.data
            if len(blob) > most:
                raise RequestError("data", f"be at most {most} bytes in all", len(blob))
        return bytes(blob), ttl_s


def to_session(session: Session) -> Any:
    """Session -> message."""
    return pb.Session(
        id=session.id,
        etag=session.etag,
        num_tokens=session.head.num_tokens,
        seed=session.seed,
        nbytes=session.nbytes,
        created_s=session.created_s,
        changed_s=session.changed_s,
        expires_s=session.expires_s,
        checkpoints=[
            pb.SessionCheckpoint(name=name, num_tokens=snapshot.num_tokens)
            for name, snapshot in session.checkpoints.items()
        ],
        dial=session.dial,
    )

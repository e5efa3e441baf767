"""Turns: the engine's work on sessions. A turn is committed before its reader receives the end.

A turn that fails, is cancelled or passes its deadline leaves its session unchanged. With
`keep_cancelled` a turn is committed where a cancellation or its deadline cut it, whether or not a
reader is left.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import structlog

from spiketrain.serving.engine.completion import Completion
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.engine.starting_point import Turn
from spiketrain.serving.errors import DeadlineExceeded, ServingError
from spiketrain.serving.request.events import Event, Finish
from spiketrain.serving.request.request import Request, SessionTurn
from spiketrain.serving.sessions.session import Session
from spiketrain.serving.sessions.sessions import Sessions

log = structlog.get_logger()


class Turns:
    """The turns of sessions on an engine; used on one event loop."""

    def __init__(self, engine: Engine, sessions: Sessions) -> None:
        self._engine = engine
        self._sessions = sessions
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def stream(
        self, request: Request, owner: str = ""
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """`Engine.stream` on the session that the request names; raises its errors as well."""
        named = request.session
        assert named is not None
        arrived_s = self._engine.now_s
        session, turn = await self._open(named, owner)
        try:
            if request.seed is None:
                request = replace(request, seed=session.seed)
            completion = await self._engine.submit(request, turn, arrived_s)
        except BaseException:
            self._sessions.release(session.id, owner)
            raise
        closing = partial(self._close, session, turn, completion)
        async with self._engine.events(completion, closing) as events:
            yield self._committed(session, turn, events)

    async def append(
        self,
        named: SessionTurn,
        content: str | Sequence[int],
        timeout_s: float | None,
        owner: str = "",
    ) -> tuple[Session, int]:
        """Have a session read a text or tokens; the session then, and how many tokens it was."""
        self._engine.check_room()
        arrived_s = self._engine.now_s
        session, turn = await self._open(named, owner)
        try:
            job = await self._engine.input_processor.reading(content, turn, timeout_s, arrived_s)
            await self._engine.finish(job)
            return await self._commit(session, turn), len(job.prompt_ids)
        finally:
            self._sessions.release(session.id, owner)

    async def settle(self) -> None:
        """Wait for turns that are kept though nobody reads them any more."""
        while self._closing:
            await asyncio.wait(self._closing)

    async def _open(self, named: SessionTurn, owner: str) -> tuple[Session, Turn]:
        self._sessions.occupy(named.id, owner)
        try:
            args = (named.id, named.etag, owner)
            session, start = await asyncio.to_thread(self._sessions.open, *args)
        except BaseException:
            self._sessions.release(named.id, owner)
            raise
        return session, Turn(start, keep_cancelled=named.keep_cancelled)

    async def _committed(
        self, session: Session, turn: Turn, events: AsyncIterator[Event]
    ) -> AsyncIterator[Event]:
        """The events, of which the end of the first completion comes last: once all went well."""
        last = None
        try:
            async for event in events:
                if isinstance(event, Finish) and event.index == 0:
                    last = event
                else:
                    yield event
        except ServingError as error:
            turn.refused = not isinstance(error, DeadlineExceeded)
            raise
        assert last is not None
        now = await self._commit(session, turn)
        self._release(session, turn)  # who hears of the end may go on
        yield replace(last, session_etag=now.etag, session_tokens=now.head.num_tokens)

    async def _commit(self, session: Session, turn: Turn) -> Session:
        """The session after its turn, once; as it was if the turn left nothing.

        Who leaves meanwhile has to wait: until then the session is not free for another turn.
        """
        end, turn.end = turn.end, None
        if end is None:
            return session
        task = asyncio.ensure_future(asyncio.to_thread(self._sessions.commit, session, end))
        try:
            return await asyncio.shield(task)
        finally:
            await asyncio.wait([task])

    async def _close(self, session: Session, turn: Turn, completion: Completion) -> None:
        """Free the session once its turn is over, even where the reader is cancelled meanwhile."""
        task = asyncio.ensure_future(self._wait_and_release(session, turn, completion))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        await asyncio.shield(task)

    async def _wait_and_release(self, session: Session, turn: Turn, completion: Completion) -> None:
        try:
            while self._engine.take(completion)[1] is None:
                await completion.ready.wait()
                completion.ready.clear()
            if turn.keep_cancelled and not turn.refused:
                await self._commit(session, turn)
        except ServingError as error:
            log.warning("a turn could not be kept", error=str(error))
        finally:
            self._release(session, turn)

    def _release(self, session: Session, turn: Turn) -> None:
        if not turn.over:
            turn.over = True
            self._sessions.release(session.id, session.owner)

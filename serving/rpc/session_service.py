"""SessionService: the store, the sessions and their turns of one server, and who tidies up."""

import asyncio
from pathlib import Path
from typing import Any

import structlog

import spiketrain.v1.sessions_pb2_grpc as sessions_grpc
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.rpc.inflight import InFlight
from spiketrain.serving.rpc.sessions_servicer import SessionsServicer
from spiketrain.serving.sessions.sessions import Sessions
from spiketrain.serving.sessions.store import MemoryStore, SessionStore
from spiketrain.serving.sessions.turns import Turns

log = structlog.get_logger()

TIDY_S = 10.0  # between looks for sessions whose time has passed


class SessionService:
    """Sessions of an engine, added to a gRPC server. Use: start, then stop."""

    def __init__(self, engine: Engine) -> None:
        self.sessions = Sessions(engine.model, _open_store(engine.config), engine.config)
        self.turns = Turns(engine, self.sessions)
        self._tidying: asyncio.Task[None] | None = None

    def add_to(self, server: Any, inflight: InFlight) -> None:
        """Serve the Sessions service."""
        servicer = SessionsServicer(self.sessions, self.turns, inflight)
        sessions_grpc.add_SessionsServicer_to_server(servicer, server)

    def start(self) -> None:
        """Forget sessions from now on when their time has passed."""
        self._tidying = asyncio.ensure_future(self._tidy())

    async def stop(self) -> None:
        """Wait for turns that are being committed, then close the store."""
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.wait([self._tidying])
        await self.turns.settle()
        await asyncio.to_thread(self.sessions.close)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_S)
            try:
                await asyncio.to_thread(self.sessions.expire)
            except Exception:
                log.exception("sessions whose time has passed could not be forgotten")


def _open_store(config: ServingConfig) -> SessionStore:
    """The store that the config names. Raises ConfigError."""
    if config.session_dir is None:
        return MemoryStore(config.session_bytes)
    from spiketrain.serving.sessions.lmdb_store import LmdbStore

    directory = Path(config.session_dir)
    return LmdbStore(directory, config.session_bytes, config.session_sync)

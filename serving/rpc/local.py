"""A server in a thread of this process, for commands that want one path to the engine."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.request.chat_template import ChatTemplate
from spiketrain.serving.rpc.server import Server


@contextmanager
def serving_locally(
    engine: Engine, name: str, template: ChatTemplate | None = None
) -> Iterator[str]:
    """The address of a server on a free loopback port; it stops with the context.

    Raises ListenError, ConfigError.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="local-server", daemon=True)
    thread.start()

    async def start() -> tuple[Server, int]:
        server = Server(engine, name, template)
        return server, await server.start()

    try:
        server, port = asyncio.run_coroutine_threadsafe(start(), loop).result()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(0.0), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

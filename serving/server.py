"""A server: wiring, health, reflection, draining. No policy: the engine has it."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

import spiketrain.v1.generation_pb2_grpc as generation_grpc
import spiketrain.v1.models_pb2_grpc as models_grpc
from serving.config import ServingConfig
from serving.engine import Engine
from serving.errors import ListenError
from serving.inflight import InFlight
from serving.servicer import GenerationServicer, ModelsServicer
from serving.wire import strictly

log = structlog.get_logger()

SERVICES = ("spiketrain.v1.Generation", "spiketrain.v1.Models")
LAST_WORDS_S = 0.2  # for health watchers, and for what the last requests still have to hear


class StrictRequests(grpc.aio.ServerInterceptor):
    """Hands bytes that are no request to our servicers as an error, instead of failing inside."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Replace the request parser of our own services."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/spiketrain."):
            return handler
        return handler._replace(request_deserializer=strictly(handler.request_deserializer))


class Server:
    """A gRPC server over one engine, which it starts and stops. Use: start, then stop."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._config = engine.config
        self._inflight = InFlight()
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server = grpc.aio.server(
            interceptors=[StrictRequests()],
            options=[
                ("grpc.so_reuseport", 0),  # a port in use is an error, not a shared port
                ("grpc.max_receive_message_length", self._config.max_message_bytes),
                ("grpc.max_send_message_length", -1),
            ],
        )
        generation_grpc.add_GenerationServicer_to_server(
            GenerationServicer(engine, self._inflight), self._server
        )
        models_grpc.add_ModelsServicer_to_server(ModelsServicer(engine, name), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self) -> int:
        """Listen, then say that every service is ready; returns the port. Raises ListenError."""
        port = self._listen()
        self._engine.start()
        await self._server.start()
        for service in ("", *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self, grace_s: float) -> None:
        """Refuse new requests, give running ones `grace_s` to end, end the rest as Draining."""
        self._engine.refuse()
        await self._health.enter_graceful_shutdown()
        await self._inflight.wait_idle(grace_s)
        await asyncio.to_thread(self._engine.stop)
        await self._server.stop(LAST_WORDS_S)

    def _listen(self) -> int:
        host, port = self._config.host, self._config.port
        address = to_address(host, port)
        try:
            return self._server.add_insecure_port(address)
        except RuntimeError:
            raise ListenError(address, _why_not(host, port)) from None


def to_address(host: str, port: int) -> str:
    """host:port, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(
    engine: Engine, name: str, on_listening: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal cuts the draining short."""
    config = engine.config
    server = Server(engine, name)
    port = await server.start()
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    try:
        if config.port_file is not None:
            _write_port(Path(config.port_file), port)
        log.info("listening", host=config.host, port=port, model=name)
        if on_listening is not None:
            on_listening(to_address(config.host, port))
        received = await signals.get()
        log.info("draining", signal=received.name, grace_s=config.grace_s)
    finally:
        await _stop(server, config, signals)
        if config.port_file is not None and Path(config.port_file).is_file():
            Path(config.port_file).unlink(missing_ok=True)
    log.info("stopped")


async def _stop(
    server: Server, config: ServingConfig, signals: "asyncio.Queue[signal.Signals]"
) -> None:
    stopping = asyncio.ensure_future(server.stop(config.grace_s))
    impatient = asyncio.ensure_future(signals.get())
    await asyncio.wait({stopping, impatient}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        stopping.cancel()
        await server.stop(0.0)
    else:
        stopping.result()
    impatient.cancel()


def _write_port(path: Path, port: int) -> None:
    """Write the port so that whoever waits for the file never reads half a number."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(f"{port}\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _why_not(host: str, port: int) -> str:
    """The system's reason for refusing to listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return "refused by the system"

"""A server: wiring, health, reflection, draining. No policy: the engine has it."""

import asyncio
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

import spiketrain.v1.generation_pb2_grpc as generation_grpc
import spiketrain.v1.models_pb2_grpc as models_grpc
import spiketrain.v1.scoring_pb2_grpc as scoring_grpc
import spiketrain.v1.tokenization_pb2_grpc as tokenization_grpc
from spiketrain.runtime.durable_files import replace_file
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.engine.scoring import Scoring
from spiketrain.serving.errors import ConfigError, ListenError
from spiketrain.serving.isolation.budget import Budget
from spiketrain.serving.isolation.trimming import keep_few_arenas
from spiketrain.serving.request.chat_template import ChatTemplate
from spiketrain.serving.request.tokenization import Tokenization
from spiketrain.serving.rpc.arrivals import Arrivals
from spiketrain.serving.rpc.bodies import Bodies, Reading
from spiketrain.serving.rpc.credentials import server_credentials
from spiketrain.serving.rpc.generation_servicer import GenerationServicer
from spiketrain.serving.rpc.inflight import InFlight
from spiketrain.serving.rpc.interceptors import Calls, short_name
from spiketrain.serving.rpc.models_servicer import ModelsServicer
from spiketrain.serving.rpc.scoring_servicer import ScoringServicer
from spiketrain.serving.rpc.server_options import server_options
from spiketrain.serving.rpc.session_service import SessionService
from spiketrain.serving.rpc.tokenization_servicer import TokenizationServicer
from spiketrain.serving.rpc.tokens import CertificatesAlone, Tokens, read_tokens
from spiketrain.serving.rpc.tracing import Tracing, to_endpoint

if TYPE_CHECKING:
    from spiketrain.serving.rpc.metrics import Metrics, MetricsServer

log = structlog.get_logger()

SERVICES = (
    "spiketrain.v1.Generation",
    "spiketrain.v1.Models",
    "spiketrain.v1.Scoring",
    "spiketrain.v1.Sessions",
    "spiketrain.v1.Tokenization",
)
# Methods whose calls enter the engine's queue: while it is full, their requests are not read.
QUEUED = (
    "/spiketrain.v1.Generation/Generate",
    "/spiketrain.v1.Generation/GenerateStream",
    "/spiketrain.v1.Scoring/Score",
    "/spiketrain.v1.Sessions/Append",
)
GOODBYE_S = 2.0  # at most, for requests that were ended to tell their clients
LAST_WORDS_S = 0.2  # for health watchers, and for what is on its way to clients


class Server:
    """A gRPC server over one engine, which it starts and stops. Use: start, then stop."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        template: ChatTemplate | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._engine = engine
        self._config = config = engine.config
        self.metrics = None if config.metrics_port is None else _metrics(engine)
        self._metrics_server: MetricsServer | None = None
        self._credentials = server_credentials(config)
        if tracing is None and config.otlp_endpoint is not None:
            tracing = to_endpoint(config.otlp_endpoint)
        self._tracing = tracing
        self._inflight = InFlight()
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server = grpc.aio.server(
            interceptors=[self._calls()],
            options=server_options(config),
        )
        self._session_service = SessionService(engine)
        self.sessions = self._session_service.sessions
        self._session_service.add_to(self._server, self._inflight)
        if self.metrics is not None:
            sessions = self.sessions
            self.metrics.show("sessions", "Sessions kept.", lambda: sessions.count()[0])
            self.metrics.show("session_bytes", "Bytes they use.", lambda: sessions.count()[1])
        self._tokenization = tokenization = Tokenization(
            engine.tokenizer, engine.model.vocab_size, template, config.max_prompt_tokens
        )
        generation_grpc.add_GenerationServicer_to_server(
            GenerationServicer(
                engine, self._session_service.turns, tokenization, self._inflight, self.metrics
            ),
            self._server,
        )
        scoring_grpc.add_ScoringServicer_to_server(
            ScoringServicer(Scoring(engine), self._inflight), self._server
        )
        tokenization_grpc.add_TokenizationServicer_to_server(
            TokenizationServicer(tokenization), self._server
        )
        models_grpc.add_ModelsServicer_to_server(
            ModelsServicer(engine, name, tokenization.has_chat), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self) -> int:
        """Listen, then say that every service is ready; returns the port. Raises ListenError."""
        config, port = self._config, self._listen()
        if self.metrics is not None:
            self._metrics_server = self.metrics.serve(config.metrics_host, config.metrics_port or 0)
        self._engine.start()
        self._session_service.start()
        await self._server.start()
        for service in ("", *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return port

    def warm(self) -> None:
        """Start the processes that run clients' and packages' programs, before anybody waits."""
        self._engine.input_processor.warm()
        self._tokenization.warm()

    async def stop(self, grace_s: float) -> None:
        """Refuse new requests, give running ones `grace_s` to end, end the rest as Draining."""
        self._engine.refuse()
        await self._health.enter_graceful_shutdown()
        await self._inflight.wait_idle(grace_s)
        self._inflight.wait_for_no_more()
        await asyncio.to_thread(self._engine.stop)
        await self._inflight.wait_idle(GOODBYE_S)
        await self._server.stop(LAST_WORDS_S)
        await self._session_service.stop()
        await asyncio.to_thread(self._tokenization.close)
        if self._metrics_server is not None:
            await asyncio.to_thread(self._metrics_server.stop)
            self._metrics_server = None
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.stop)

    @property
    def metrics_port(self) -> int | None:
        """Where metrics are shown; None before `start` and where they are not."""
        return self._metrics_server.port if self._metrics_server else None

    def _calls(self) -> Calls:
        bodies = Bodies(self._reading(), self._reading())
        return Calls(bodies, self.metrics, self._tracing, self._authority())

    def _authority(self) -> Tokens | CertificatesAlone | None:
        """Who says whether a call may be made; None lets everybody."""
        if self._config.tokens_file is not None:
            if self._credentials is None:
                log.warning("bearer tokens travel in clear: set tls_cert and tls_key")
            return self._tokens(self._config.tokens_file)
        return None if self._config.tls_client_ca is None else CertificatesAlone()

    def _check_room(self) -> None:
        """Refuse early what the engine would refuse once the request is read."""
        self._engine.check_room()

    def _reading(self) -> Reading:
        config = self._config
        return Reading(
            Budget(config.max_calls, config.request_bytes),
            Arrivals(config.request_timeout_s, config.idle_stream_s),
            dict.fromkeys(QUEUED, self._check_room),
        )

    def _tokens(self, path: str) -> Tokens:
        tokens = read_tokens(path, frozenset(map(short_name, (*SERVICES, reflection.SERVICE_NAME))))
        if tokens.with_certificate is not None and self._config.tls_client_ca is None:
            where = f"{path}: callers.{tokens.with_certificate}.certificate"
            raise ConfigError(f"{where} must be left out without tls_client_ca")
        return tokens

    def _listen(self) -> int:
        host, port = self._config.host, self._config.port
        address = to_address(host, port)
        try:
            if self._credentials is not None:
                return self._server.add_secure_port(address, self._credentials)
            return self._server.add_insecure_port(address)
        except RuntimeError:
            raise ListenError(address, _why_not(host, port)) from None


def _metrics(engine: Engine) -> "Metrics":
    from spiketrain.serving.rpc.metrics import Metrics  # late: nobody waits for what is not shown

    return Metrics(engine)


def to_address(host: str, port: int) -> str:
    """host:port, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(
    engine: Engine,
    name: str,
    on_listening: Callable[[str], None] | None = None,
    template: ChatTemplate | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal cuts the draining short."""
    keep_few_arenas()
    config = engine.config
    server = Server(engine, name, template)
    port = await server.start()
    server.warm()
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    try:
        if config.port_file is not None:
            _write_port(Path(config.port_file), port)
        log.info(
            "listening",
            host=config.host,
            port=port,
            model=name,
            sequences=engine.max_sequences,
            tls=config.tls_cert is not None,
            metrics_port=server.metrics_port,
        )
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
    replace_file(path, f"{port}\n".encode())


def _why_not(host: str, port: int) -> str:
    """The system's reason for refusing to listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return "refused by the system"

"""Spans of calls for OpenTelemetry, which is an extra: imported when an endpoint is set."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from spiketrain.serving.errors import ConfigError


class Tracing:
    """Makes one span a call, within the caller's trace if its metadata names one."""

    def __init__(self, provider: Any) -> None:
        """`provider`: an opentelemetry TracerProvider."""
        self._provider = provider
        self._tracer = provider.get_tracer("spiketrain")

    @contextmanager
    def span(self, method: str, metadata: Mapping[str, str]) -> Iterator[Any]:
        """A span of the call of "/package.Service/Method"; it ends with the context."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        service, _, name = method.lstrip("/").partition("/")
        span = self._tracer.start_span(
            method.lstrip("/"),
            context=TraceContextTextMapPropagator().extract(metadata),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        )
        try:
            yield span
        finally:
            span.end()

    def stop(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def to_endpoint(endpoint: str) -> Tracing:
    """Tracing that sends spans to an OTLP collector at `endpoint`, such as http://host:4317.

    Raises ConfigError without the extra.
    """
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            f"otlp_endpoint needs the extra otel: pip install 'spiketrain[otel]' ({error})"
        ) from None
    provider = TracerProvider(resource=Resource.create({"service.name": "spiketrain"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Tracing(provider)

"""Metrics of a server in Prometheus' terms, and the HTTP port that shows them.

What a request took comes from its Finish; what is true now is read when somebody looks.
"""

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.engine.prefix_cache import PrefixCache
from spiketrain.serving.errors import ListenError
from spiketrain.serving.model import Model
from spiketrain.serving.request.events import Finish

# Seconds. From a tenth of a millisecond: a token of a small model takes less than one.
FAST = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 5.0)
SLOW = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)


class Metrics:
    """Counts what happens, in a registry of its own. Any thread."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self._calls = self._add(Counter, "calls", "Calls ended.", ["method", "code"])
        self._ended = self._add(Counter, "completions", "Completions ended.", ["reason"])
        self._prompt = self._add(Counter, "prompt_tokens", "Prompt tokens of completions.")
        self._new = self._add(Counter, "new_tokens", "Tokens sampled.")
        self._spikes = self._add(Counter, "spikes", "Units that fired for completions.")
        self._queue = self._add(Histogram, "queue_seconds", "Arrival to slot.", buckets=SLOW)
        self._first = self._add(
            Histogram, "time_to_first_token_seconds", "Arrival to first token.", buckets=SLOW
        )
        self._each = self._add(
            Histogram,
            "time_per_output_token_seconds",
            "Mean time of a completion's tokens after the first.",
            buckets=FAST,
        )
        self.show("running", "Slots in use.", lambda: engine.num_running)
        self.show("waiting", "Requests in the queue.", lambda: engine.num_waiting)
        self.show(
            "state_bytes", "Bytes of one sequence's state.", lambda: engine.model.state_nbytes
        )
        self.show("sequences", "Sequences that may run at once.", lambda: engine.max_sequences)
        self.registry.register(ModelActivity(engine.model))
        self.registry.register(PrefixCounts(engine.input_processor.prefixes))

    def show(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when somebody looks."""
        gauge: Gauge = self._add(Gauge, name, text)
        gauge.set_function(value)

    def serve(self, host: str, port: int) -> "MetricsServer":
        """Show them on an HTTP port. Raises ListenError."""
        return MetricsServer(self.registry, host, port)

    def finished(self, finish: Finish) -> None:
        """Take what one completion took."""
        usage, timings = finish.usage, finish.timings
        self._ended.labels(finish.reason.value).inc()
        self._prompt.inc(usage.prompt_tokens)
        self._new.inc(usage.new_tokens)
        self._spikes.inc(finish.activity.events)
        self._queue.observe(timings.queue_s)
        if usage.new_tokens:
            self._first.observe(timings.queue_s + timings.prefill_s)
        if usage.new_tokens > 1:
            self._each.observe(timings.decode_s / (usage.new_tokens - 1))

    def ended(self, method: str, code: str) -> None:
        """Count a call by its canonical code."""
        self._calls.labels(method, code).inc()

    def _add(self, kind: Any, name: str, text: str, *labels: Any, **options: Any) -> Any:
        return kind(f"spiketrain_{name}", text, *labels, registry=self.registry, **options)


class ModelActivity(Collector):
    """What the network has done since it was loaded, over all requests."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def collect(self) -> Iterator[Metric]:
        """Read the model's counters."""
        activity = self._model.activity()
        for name, text in (
            ("tokens", "Tokens read."),
            ("neurons", "Units evaluated."),
            ("events", "Units that fired."),
            ("weight_bytes_touched", "Weight bytes read."),
            ("macs_effective", "Multiply-accumulates done."),
            ("acs_effective", "Accumulates done."),
        ):
            value = getattr(activity, name)
            yield CounterMetricFamily(f"spiketrain_network_{name}", text, value)
        synops = activity.macs_effective + activity.acs_effective
        yield CounterMetricFamily(
            "spiketrain_synops", "Synaptic operations: accumulates done, with or without.", synops
        )


class PrefixCounts(Collector):
    """What kept states of prompts' beginnings have saved."""

    def __init__(self, prefixes: PrefixCache) -> None:
        self._prefixes = prefixes

    def collect(self) -> Iterator[Metric]:
        """Read the cache's counters."""
        now = self._prefixes.statistics()
        for name, text, value in (
            ("hits", "Prompts whose beginning was kept.", now.hits),
            ("misses", "Prompts of which nothing was kept.", now.misses),
            ("reused_tokens", "Prompt tokens not read for it.", now.reused_tokens),
            ("evictions", "States given up for others.", now.evictions),
        ):
            yield CounterMetricFamily(f"spiketrain_prefix_{name}", text, value)
        yield GaugeMetricFamily("spiketrain_prefix_bytes", "Bytes of kept states.", now.nbytes)


class MetricsServer:
    """Shows metrics at http://HOST:PORT/metrics from a thread of its own."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        """Listen; port 0 takes a free one. Raises ListenError."""
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ListenError(f"{host}:{port}", error.strerror or str(error)) from None
        self.port: int = self._server.server_address[1]

    def stop(self) -> None:
        """Stop listening and wait for the thread to end."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

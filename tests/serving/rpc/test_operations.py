"""TLS, tokens, request ids, limits, metrics and spans over real channels."""

import asyncio
import json
import sys
import threading
import urllib.request

import grpc
import pytest
import structlog
import trustme
from fake_model import PATIENCE_S, FakeModel
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from local_server import details_of, request, serving, until
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_service_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import spiketrain.v1.generation_pb2_grpc as generation_grpc
import spiketrain.v1.models_pb2 as models_pb
import spiketrain.v1.models_pb2_grpc as models_grpc
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.errors import ConfigError, ListenError
from spiketrain.serving.logs import log_to_stderr
from spiketrain.serving.rpc.server import Server
from spiketrain.serving.rpc.tracing import Tracing

TOKEN = "alice-0123456789abcdef"
MODELS_TOKEN = "bob-0123456789abcdef"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def pem(authority, tmp_path_factory):
    """Names of files: the server's certificate and key, and who signed them."""
    folder = tmp_path_factory.mktemp("pem")
    issued = authority.issue_cert("localhost")
    files = {name: str(folder / f"{name}.pem") for name in ("cert", "key", "ca")}
    issued.private_key_pem.write_to_path(files["key"])
    authority.cert_pem.write_to_path(files["ca"])
    for part in issued.cert_chain_pems:
        part.write_to_path(files["cert"], append=True)
    return files


def client_of(authority):
    issued = authority.issue_cert("client@example.org")
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    return {"private_key": issued.private_key_pem.bytes(), "certificate_chain": chain}


async def answer(channel, metadata=()):
    stub = models_grpc.ModelsStub(channel)
    return await stub.GetModel(models_pb.GetModelRequest(), metadata=metadata, timeout=PATIENCE_S)


async def answer_over_tls(port, authority, **client):
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), **client)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        return await answer(channel)


async def test_tls_serves_those_who_know_who_signed(authority, pem):
    async with serving(tls_cert=pem["cert"], tls_key=pem["key"], host="localhost") as served:
        assert (await answer_over_tls(served.port, authority)).name == "fake"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer_over_tls(served.port, trustme.CA())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.aio.AioRpcError):  # in clear
            await answer(served.channel)


async def test_mutual_tls_asks_for_a_certificate_of_the_authority(authority, pem):
    files = {"tls_cert": pem["cert"], "tls_key": pem["key"], "tls_client_ca": pem["ca"]}
    async with serving(host="localhost", **files) as served:
        own = client_of(authority)
        assert (await answer_over_tls(served.port, authority, **own)).name == "fake"
        for client in ({}, client_of(trustme.CA())):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await answer_over_tls(served.port, authority, **client)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_files_that_are_no_certificate_and_key_are_refused(pem, tmp_path):
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    good = {"tls_cert": pem["cert"], "tls_key": pem["key"]}
    for bad, word in (
        ({"tls_cert": str(junk)}, "must be a PEM certificate and its key"),
        ({"tls_key": pem["ca"]}, "must be a PEM certificate and its key"),
        ({"tls_key": "nowhere.pem"}, "tls_key: nowhere.pem cannot be read"),
        ({"tls_client_ca": str(junk)}, "tls_client_ca must hold PEM certificates"),
    ):
        with pytest.raises(ConfigError, match=word):
            Server(Engine(FakeModel(), ServingConfig(**{**good, **bad})), "fake")


@pytest.fixture
def tokens_file(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[callers.alice]\ntoken = "{TOKEN}"\n'
        f'[callers.bob]\ntoken = "{MODELS_TOKEN}"\nservices = ["Models", "ServerReflection"]\n'
    )
    return str(path)


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


async def test_a_token_opens_what_it_is_good_for(tokens_file):
    async with serving(tokens_file=tokens_file) as served:
        assert (await answer(served.channel, bearer(TOKEN))).name == "fake"
        assert (await answer(served.channel, bearer(MODELS_TOKEN))).name == "fake"
        reply = await served.generation.Generate(request(), metadata=bearer(TOKEN))
        assert reply.text == "hello world"


@pytest.mark.parametrize("method", ["Generate", "GenerateStream"])
@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ((), grpc.StatusCode.UNAUTHENTICATED),
        (bearer("wrong-0123456789abcdef"), grpc.StatusCode.UNAUTHENTICATED),
        (bearer(MODELS_TOKEN), grpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_others_are_refused_before_any_work(tokens_file, method, metadata, code):
    async with serving(tokens_file=tokens_file) as served:
        call = getattr(served.generation, method)(request(), metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call if method == "Generate" else call.read())
        assert caught.value.code() is code
        info = details_of(caught.value, error_details_pb2.ErrorInfo)
        assert (info.reason, info.domain) == (code.name, "spiketrain")
        assert details_of(caught.value, error_details_pb2.RequestInfo).request_id
        assert served.model.calls == []


async def test_health_needs_no_token_and_reflection_does(tokens_file):
    async with serving(tokens_file=tokens_file) as served:
        reply = await served.health.Check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ServerReflectionInfo(iter([asked])).read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        call = stub.ServerReflectionInfo(iter([asked]), metadata=bearer(MODELS_TOKEN))
        assert (await call.read()).list_services_response.service
        call.cancel()


async def test_an_unknown_method_is_unimplemented(tokens_file):
    async with serving(tokens_file=tokens_file) as served:
        for metadata in ((), bearer(TOKEN)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.channel.unary_unary("/spiketrain.v1.None/None")(b"", metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_above_the_limit_is_refused():
    async with serving(max_message_bytes=4096) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.generation.Generate(request("x" * 5000))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await served.generation.Generate(request("x" * 50))).text == "hello world"


def test_a_message_may_have_4_mb_unless_told_otherwise():
    assert ServingConfig().max_message_bytes == 4 << 20


@pytest.fixture
def log_lines(capsys):
    log_to_stderr("info")

    def read():
        return [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    yield read
    structlog.reset_defaults()


async def test_a_request_id_is_in_the_trailers_the_log_and_the_errors(log_lines):
    async with serving() as served:
        call = served.generation.Generate(request(), metadata=(("x-request-id", "abc-1"),))
        await call
        assert ("x-request-id", "abc-1") in tuple(await call.trailing_metadata())
        (line,) = [line for line in log_lines() if line["event"] == "request ended"]
        assert line["request_id"] == "abc-1"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.generation.Generate(request(""), metadata=(("x-request-id", "abc-2"),))
        assert details_of(caught.value, error_details_pb2.RequestInfo).request_id == "abc-2"


@pytest.mark.parametrize("asked", [(), (("x-request-id", "a b"),), (("x-request-id", "x" * 129),)])
async def test_a_request_without_a_good_id_gets_one(asked):
    async with serving() as served:
        ids = set()
        for _ in range(2):
            call = served.generation.Generate(request(), metadata=asked)
            await call
            ids.add(dict(await call.trailing_metadata())["x-request-id"])
    assert {len(found) for found in ids} == {32}
    assert len(ids) == 2


def read_metrics(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as reply:
        lines = reply.read().decode().splitlines()
    pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs}


async def test_metrics_count_what_happened():
    async with serving(metrics_port=0) as served:
        for _ in range(3):
            await served.generation.Generate(request())
        with pytest.raises(grpc.aio.AioRpcError):
            await served.generation.Generate(request(""))
        labels = {"code": "INVALID_ARGUMENT", "method": "spiketrain.v1.Generation/Generate"}
        value = served.server.metrics.registry.get_sample_value
        await until(lambda: value("spiketrain_calls_total", labels))  # the error comes before it
        call = served.generation.GenerateStream(request())
        assert [message async for message in call][-1].HasField("finish")
        found = await asyncio.to_thread(read_metrics, served.server.metrics_port)
    calls = 'spiketrain_calls_total{code="%s",method="spiketrain.v1.Generation/%s"}'
    assert found[calls % ("OK", "Generate")] == 3
    assert found[calls % ("INVALID_ARGUMENT", "Generate")] == 1
    assert found[calls % ("OK", "GenerateStream")] == 1
    assert found['spiketrain_completions_total{reason="eos_token"}'] == 4
    assert found["spiketrain_prompt_tokens_total"] == 4 * 3
    assert found["spiketrain_new_tokens_total"] == 4 * 12
    assert found["spiketrain_spikes_total"] == 4 * 28
    for name in ("queue", "time_to_first_token", "time_per_output_token"):
        assert found[f"spiketrain_{name}_seconds_count"] == 4
    assert found["spiketrain_running"] == found["spiketrain_waiting"] == 0
    assert found["spiketrain_state_bytes"] == 8
    assert found["spiketrain_network_events_total"] == 2 * 44
    assert found["spiketrain_synops_total"] == 3 * 44 + 5 * 44


async def test_a_cancelled_call_is_counted_as_such():
    async with serving(FakeModel(gate=threading.Semaphore(0)), metrics_port=0) as served:
        call = served.generation.GenerateStream(request())
        assert (await call.read()).HasField("prompt")
        call.cancel()
        method = "spiketrain.v1.Generation/GenerateStream"
        labels = {"code": "CANCELLED", "method": method}
        value = served.server.metrics.registry.get_sample_value
        await until(lambda: value("spiketrain_calls_total", labels) == 1)


async def test_a_metrics_port_in_use_is_an_error():
    async with serving(metrics_port=0) as served:
        taken = ServingConfig(port=0, metrics_port=served.server.metrics_port)
        with pytest.raises(ListenError, match="in use"):
            await Server(Engine(FakeModel(), taken), "fake").start()


class Collector(trace_service_grpc.TraceServiceServicer):
    """Takes spans as OpenTelemetry's own collector does."""

    def __init__(self):
        self.names = []

    async def Export(self, request, context):  # noqa: N802
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.names += [span.name for span in scope.spans]
        return trace_service.ExportTraceServiceResponse()


async def test_spans_arrive_at_the_collector():
    collector, receiver = Collector(), grpc.aio.server()
    trace_service_grpc.add_TraceServiceServicer_to_server(collector, receiver)
    port = receiver.add_insecure_port("127.0.0.1:0")
    await receiver.start()
    async with serving(otlp_endpoint=f"http://127.0.0.1:{port}") as served:
        await served.generation.Generate(request())
    await receiver.stop(0.0)
    assert collector.names == ["spiketrain.v1.Generation/Generate"]


def test_without_the_extra_an_endpoint_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    config = ServingConfig(otlp_endpoint="http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="otlp_endpoint needs the extra otel"):
        Server(Engine(FakeModel(), config), "fake")


async def test_a_call_is_a_span_of_its_callers_trace():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    server = Server(Engine(FakeModel(), ServingConfig(port=0)), "fake", tracing=Tracing(provider))
    port = await server.start()
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = generation_grpc.GenerationStub(channel)
            await stub.Generate(request(), metadata=(("traceparent", f"00-{trace}-{parent}-01"),))
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Generate(request(""))
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            await until(lambda: len(exporter.get_finished_spans()) == 2)  # errors come before
        good, bad = exporter.get_finished_spans()
    finally:
        await server.stop(0.0)
    assert good.name == "spiketrain.v1.Generation/Generate"
    assert f"{good.context.trace_id:032x}" == trace
    assert f"{good.parent.span_id:016x}" == parent
    assert good.attributes["rpc.grpc.status_code"] == "OK"
    assert bad.attributes["rpc.grpc.status_code"] == "INVALID_ARGUMENT"
    assert bad.parent is None
    assert len(bad.attributes["spiketrain.request_id"]) == 32

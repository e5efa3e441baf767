"""What a shutdown leaves to calls under way, and what the others hear, over a real channel."""

import asyncio
import threading
from contextlib import asynccontextmanager

import grpc
import pytest
from fake_model import PATIENCE_S, FakeModel
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from local_server import details_of, request, serving, until
from tiny import tiny_egru_package

import spiketrain.v1.scoring_pb2 as scoring_pb
import spiketrain.v1.sessions_pb2 as sessions_pb
from spiketrain.runtime import load_model
from spiketrain.serving.rpc import generation_servicer as servicer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_egru_package(tmp_path_factory.mktemp("draining") / "model"))


def gated():
    return FakeModel(gate=threading.Semaphore(0))


async def draining(served):
    """Begin a shutdown that waits, and wait until it has begun."""
    stopping = asyncio.create_task(served.server.stop(PATIENCE_S))
    ready = health_pb2.HealthCheckResponse.SERVING
    while (await served.health.Check(health_pb2.HealthCheckRequest())).status == ready:
        pass
    return stopping


async def told_to_come_back(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert details_of(caught.value, error_details_pb2.ErrorInfo).reason == "SHUTTING_DOWN"
    assert details_of(caught.value, error_details_pb2.RetryInfo).retry_delay.seconds == 1


async def test_draining_lets_running_requests_end_and_refuses_new_ones():
    async with serving(gated()) as served:
        running = aiter(served.generation.GenerateStream(request()))
        assert (await anext(running)).HasField("prompt")
        watch = served.health.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.create_task(served.server.stop(PATIENCE_S))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.generation.Generate(request())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        details_of(caught.value, error_details_pb2.RetryInfo)
        served.model.gate.release(1000)
        messages = [message async for message in running]
        assert "".join(message.delta.text for message in messages) == "hello world"
        assert messages[-1].HasField("finish")
        await asyncio.wait_for(stopping, PATIENCE_S)


async def test_what_takes_longer_than_the_grace_period_ends_as_draining():
    async with serving(gated()) as served:
        running = served.generation.GenerateStream(request())
        assert (await running.read()).HasField("prompt")
        stopping = asyncio.create_task(served.server.stop(0.01))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details_of(caught.value, error_details_pb2.ErrorInfo).reason == "SHUTTING_DOWN"
        served.model.gate.release(1000)
        await asyncio.wait_for(stopping, PATIENCE_S)


async def test_all_completions_of_a_request_that_runs_come_to_their_end():
    async with serving(gated(), max_batch_size=3) as served:
        call = served.generation.Generate(request(n=3))
        await until(lambda: served.engine.num_running == 1)
        stopping = await draining(served)
        served.model.gate.release(1000)
        reply = await call
        assert [reply.text, *(other.text for other in reply.further)] == ["hello world"] * 3
        await asyncio.wait_for(stopping, PATIENCE_S)


async def test_a_stream_of_scores_that_has_begun_goes_on_and_no_other_begins(model):
    async with serving(model) as served:
        stream, late = served.scoring.ScoreStream(), served.scoring.ScoreStream()
        piece = scoring_pb.ScoreStreamRequest(text="abc")
        await stream.write(piece)
        assert (await stream.read()).total_tokens == 3
        stopping = await draining(served)
        await stream.write(piece)
        assert (await stream.read()).total_tokens == 6
        await late.write(piece)
        await told_to_come_back(late.read())
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        await asyncio.wait_for(stopping, PATIENCE_S)


async def test_streams_that_wait_for_their_clients_are_told(model):
    async with serving(model) as served:
        scores, imported = served.scoring.ScoreStream(), served.sessions.Import()
        await scores.write(scoring_pb.ScoreStreamRequest(text="abc"))
        assert (await scores.read()).total_tokens == 3
        await imported.write(sessions_pb.ImportRequest(data=b"x"))
        await until(lambda: served.server._inflight._count == 2)
        stopping = asyncio.create_task(served.server.stop(0.01))
        await told_to_come_back(scores.read())
        await told_to_come_back(imported)
        await asyncio.wait_for(stopping, PATIENCE_S)


async def test_what_is_cut_off_is_told_so_however_long_that_takes(monkeypatch):
    told = servicer.errors_as_status

    @asynccontextmanager
    async def slowly(context):
        async with told(context):
            try:
                yield
            finally:
                await asyncio.sleep(0.5)

    monkeypatch.setattr(servicer, "errors_as_status", slowly)
    async with serving(gated()) as served:
        running = served.generation.GenerateStream(request())
        assert (await running.read()).HasField("prompt")
        await until(lambda: served.engine.num_running == 1)
        stopping = asyncio.create_task(served.server.stop(0.0))
        await until(lambda: served.engine.num_running == 0)
        served.model.gate.release(1000)
        await told_to_come_back(running.read())
        await asyncio.wait_for(stopping, PATIENCE_S)

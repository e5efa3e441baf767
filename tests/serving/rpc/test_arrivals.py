"""Requests that are late, and connections that nobody uses."""

import asyncio

import grpc
import pytest
from fake_model import PATIENCE_S
from google.rpc import error_details_pb2
from local_server import details_of, request, serving, until

import spiketrain.serving.rpc.arrivals as arrivals
import spiketrain.v1.models_pb2 as models_pb
from spiketrain.serving.errors import RequestLate, ServerBusy
from spiketrain.serving.rpc.arrivals import LANES, MAX_LATE, Arrivals


async def never():
    await asyncio.Event().wait()


async def at_once():
    return b"x"


async def test_a_request_that_is_there_does_not_wait_for_those_that_are_late(monkeypatch):
    monkeypatch.setattr(arrivals, "PROMPT_S", 0.0)
    all_ = Arrivals(PATIENCE_S, PATIENCE_S)
    late = [asyncio.create_task(all_.request(never)) for _ in range(LANES)]
    assert await asyncio.wait_for(all_.request(at_once), PATIENCE_S) == b"x"
    await until(lambda: all_.num_late == LANES)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    assert all_.num_late == 0


async def test_the_oldest_of_too_many_late_requests_is_ended(monkeypatch):
    monkeypatch.setattr(arrivals, "PROMPT_S", 0.0)
    all_ = Arrivals(PATIENCE_S, PATIENCE_S)
    late = [asyncio.create_task(all_.request(never)) for _ in range(MAX_LATE + 2)]
    await asyncio.wait(late, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    await until(lambda: all_.num_late == MAX_LATE)
    assert [task.done() for task in late] == [True, True] + [False] * MAX_LATE
    assert isinstance(late[0].exception(), ServerBusy)
    for task in late[2:]:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)


async def test_a_request_that_never_comes_ends_its_call():
    all_ = Arrivals(1e-3, PATIENCE_S)
    with pytest.raises(RequestLate, match=r"within 0\.001 s"):
        await all_.request(never)
    assert await all_.request(at_once) == b"x"


async def test_who_is_cancelled_while_reading_is_cancelled():
    all_ = Arrivals(PATIENCE_S, PATIENCE_S)
    task = asyncio.create_task(all_.request(never))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


@pytest.mark.parametrize(
    "method", ["Generation/Generate", "Scoring/ScoreStream", "Sessions/Import"]
)
async def test_a_call_whose_client_sends_nothing_ends(method):
    limits = {"request_timeout_s": 0.01, "idle_stream_s": 0.01}
    async with serving(**limits) as served:
        call = served.channel.stream_stream(f"/spiketrain.v1.{method}")()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(call.read(), PATIENCE_S)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        info = details_of(caught.value, error_details_pb2.ErrorInfo)
        assert info.reason == "REQUEST_LATE"


async def test_an_idle_connection_is_closed_and_opened_again():
    async with serving(idle_connection_s=0.01) as served:
        await served.models.GetModel(models_pb.GetModelRequest())
        state = served.channel.get_state()
        while state is grpc.ChannelConnectivity.READY:
            await asyncio.wait_for(served.channel.wait_for_state_change(state), PATIENCE_S)
            state = served.channel.get_state()
        assert (await served.models.GetModel(models_pb.GetModelRequest())).name == "fake"


async def test_a_connection_above_the_number_is_refused():
    async with serving(max_connections=2) as served:
        await served.models.GetModel(models_pb.GetModelRequest())
        opened = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(2)]
        reads = [asyncio.create_task(reader.read()) for reader, _ in opened]
        done, _ = await asyncio.wait(reads, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        assert done  # closed by the server
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*reads, return_exceptions=True)
        assert (await served.generation.Generate(request())).text == "hello world"

"""What calls and their requests hold, and who waits or is refused."""

import asyncio
import threading

import grpc
import pytest
from fake_model import PATIENCE_S
from google.rpc import error_details_pb2
from local_server import details_of, request, serving, until

import spiketrain.serving.isolation.trimming as trimming
import spiketrain.v1.tokenization_pb2 as tokenization_pb
from spiketrain.serving.errors import ServerBusy
from spiketrain.serving.isolation.beside import beside
from spiketrain.serving.isolation.budget import COST, PARTS, SMALL_BYTES, Budget, settle

MIB = 1 << 20
LARGE = MIB  # bytes of a request that holds the most that one may


def budget(max_calls=100, max_bytes=4 * PARTS * MIB):
    return Budget(max_calls, max_bytes)


async def turns():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_call_above_the_number_is_refused_until_one_ends():
    calls = budget(max_calls=2)
    first = calls.enter("")
    calls.enter("")
    with pytest.raises(ServerBusy, match="2 calls are under way"):
        calls.enter("")
    first.end()
    calls.enter("")
    assert calls.num_calls == 2


async def test_a_caller_with_a_name_has_half_of_the_calls():
    calls = budget(max_calls=4)
    calls.enter("alice")
    calls.enter("alice")
    with pytest.raises(ServerBusy):
        calls.enter("alice")
    calls.enter("bob")


async def test_a_request_holds_many_times_its_bytes_and_gives_all_back():
    held_by = budget()
    held = held_by.enter("")
    await held_by.hold(held, 1000)
    assert held_by.num_bytes == held.nbytes == COST * 1000
    held.shrink(5)
    assert held_by.num_bytes == 5
    held.end()
    assert held_by.num_bytes == held_by.num_calls == 0


async def test_large_requests_wait_in_their_order_and_small_ones_pass():
    all_bytes = budget()
    first = [all_bytes.enter("") for _ in range(PARTS)]
    for held in first:
        await all_bytes.hold(held, LARGE)
    order = []

    async def wait(name):
        held = all_bytes.enter("")
        await all_bytes.hold(held, LARGE)
        order.append(name)

    tasks = [asyncio.create_task(wait(name)) for name in "ab"]
    await turns()
    assert order == []
    assert all_bytes.num_waiting_bytes == 2 * LARGE
    small = all_bytes.enter("")
    await asyncio.wait_for(all_bytes.hold(small, SMALL_BYTES), PATIENCE_S)
    small.end()
    first[0].end()
    await turns()
    assert order == ["a"]
    first[1].end()
    await asyncio.gather(*tasks)
    assert order == ["a", "b"]
    assert all_bytes.num_waiting_bytes == 0


async def test_more_than_may_wait_is_refused_at_once():
    all_bytes = budget()
    for _ in range(PARTS):
        await all_bytes.hold(all_bytes.enter(""), LARGE)
    waiting = [asyncio.create_task(all_bytes.hold(all_bytes.enter(""), LARGE)) for _ in range(4)]
    await turns()
    with pytest.raises(ServerBusy, match=f"requests of {4 * LARGE} bytes are waiting"):
        await all_bytes.hold(all_bytes.enter(""), LARGE)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert all_bytes.num_waiting_bytes == 0


async def test_who_is_cancelled_with_its_turn_at_hand_holds_nothing():
    all_bytes = budget()
    first = [all_bytes.enter("") for _ in range(PARTS)]
    for held in first:
        await all_bytes.hold(held, LARGE)
    task = asyncio.create_task(all_bytes.hold(all_bytes.enter(""), LARGE))
    await turns()
    first[0].end()  # its turn
    task.cancel()  # before it hears of that
    await asyncio.gather(task, return_exceptions=True)
    for held in first[1:]:
        held.end()
    assert all_bytes.num_bytes == 0


async def test_a_cancelled_call_holds_its_bytes_until_its_thread_has_ended():
    all_bytes, begun, go = budget(), threading.Event(), threading.Event()

    def work():
        begun.set()
        go.wait(PATIENCE_S)

    async def call():
        held = all_bytes.enter("")
        await all_bytes.hold(held, LARGE)
        try:
            await beside(False, work)
        finally:
            held.end()

    task = asyncio.create_task(call())
    await until(begun.is_set)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert all_bytes.num_bytes
    go.set()
    await until(lambda: not all_bytes.num_bytes)
    assert all_bytes.num_calls == 0


async def test_a_job_holds_nothing_of_the_budget():
    all_bytes = budget()
    held = all_bytes.enter("")
    await all_bytes.hold(held, LARGE)
    settle()
    assert all_bytes.num_bytes == 0
    assert all_bytes.num_calls == 1


@pytest.fixture
def budgets(monkeypatch):
    """Every Budget that is made."""
    made, init = [], Budget.__init__

    def watched(self, *args):
        made.append(self)
        init(self, *args)

    monkeypatch.setattr(Budget, "__init__", watched)
    return made


async def test_calls_of_a_server_give_back_all_they_held(budgets):
    async with serving() as served:
        tokenize = served.tokenization.Tokenize
        texts = ["x" * 100_000, "", "y"]
        await asyncio.gather(*(tokenize(tokenization_pb.TokenizeRequest(text=t)) for t in texts))
        cancelled = tokenize(tokenization_pb.TokenizeRequest(text="x" * 1_000_000))
        cancelled.cancel()
        with pytest.raises(grpc.aio.AioRpcError):
            await served.generation.Generate(request("x" * 2_000_000))
        await until(lambda: not any(one.num_calls or one.num_bytes for one in budgets))


async def test_a_running_completion_counts_as_a_call_and_holds_no_bytes(budgets):
    async with serving(max_unread_tokens=1) as served:
        call = served.generation.GenerateStream(request("x" * 1000))
        assert (await call.read()).HasField("prompt")
        assert sum(one.num_calls for one in budgets) == 1
        assert sum(one.num_bytes for one in budgets) == 0
        call.cancel()
        await until(lambda: not any(one.num_calls for one in budgets))


async def test_a_server_with_too_many_calls_says_when_to_come_back(budgets):
    async with serving(max_calls=1) as served:
        waiting = served.channel.stream_stream("/spiketrain.v1.Scoring/ScoreStream")()
        reading = asyncio.create_task(waiting.read())
        await until(lambda: any(one.num_calls for one in budgets))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.generation.Generate(request())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details_of(caught.value, error_details_pb2.RetryInfo).retry_delay.seconds == 1
        waiting.cancel()
        await asyncio.wait({reading})


async def test_memory_is_given_back_once_after_large_requests():
    done, given_back = threading.Event(), []

    def trim(pad):
        given_back.append(pad)
        done.set()

    memory = trimming.Trimming(trim)
    memory.freed(1)
    assert not given_back
    for _ in range(3):
        memory.freed(trimming.LARGE_BYTES)
    await asyncio.to_thread(done.wait, PATIENCE_S)
    assert given_back == [0]

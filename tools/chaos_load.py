"""Load on a server that runs beside: cancels, slow and vanished clients, SIGTERM, endurance.

Commands of `tools/chaos.py`. Each takes a Count and says there what it saw.
"""

import asyncio
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.generation_pb2_grpc as generation_grpc

START_S, STOP_S, CALL_S = 60.0, 60.0, 120.0
AT_ONCE = 8  # calls under way
WARM_SHARE = 0.2  # of an endurance run, before memory is measured first
ANSWER_TOKENS, STREAM_TOKENS = 4, 1000


class Load:
    """A server in a process of its own, and calls to it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port
        self.channel = self.another_channel()

    def another_channel(self) -> grpc.aio.Channel:
        """A connection of its own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options)

    def stream(self, tokens: int, channel: grpc.aio.Channel | None = None) -> Any:
        """A call that streams so many tokens, always the same ones."""
        return _stub(channel or self.channel).GenerateStream(_request(tokens), timeout=CALL_S)

    async def answer(self, tokens: int) -> list[int]:
        """The tokens of one completion."""
        done = await _stub(self.channel).Generate(_request(tokens), timeout=CALL_S)
        return list(done.token_ids)

    def rss_kib(self) -> int:
        """Memory of the server that is resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])


def _stub(channel: grpc.aio.Channel) -> Any:
    return generation_grpc.GenerationStub(channel)


def _request(tokens: int) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        text="Once upon a time", max_new_tokens=tokens, seed=7, ignore_eos=True, prefix_cache=False
    )


@asynccontextmanager
async def loaded() -> AsyncIterator[Load]:
    """Start a server of the bundled model; however it ends, it is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder, "port")
        command = [sys.executable, "-m", "spiketrain", "serve", "--port", "0"]
        command += ["--port-file", str(port_file), "--log-level", "error", "--grace-s", "60"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            load = Load(process, await asyncio.wait_for(_port(process, port_file), START_S))
            async with load.channel:
                yield load
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _port(process: subprocess.Popen[bytes], port_file: Path) -> int:
    while not port_file.exists() or not port_file.read_text().strip():
        if process.poll() is not None:
            sys.exit(f"error: the server ended with status {process.returncode}")
        await asyncio.sleep(0.05)
    return int(port_file.read_text())


async def _in_turn(work: list[Coroutine[Any, Any, None]]) -> None:
    """Run all, some at once."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(task: Coroutine[Any, Any, None]) -> None:
        async with gate:
            await task

    await asyncio.gather(*map(one, work))


async def cancels(seen: Any, count: int, chance: random.Random) -> None:
    """Streams that their clients cancel after some messages; what follows is served as before."""
    async with loaded() as load:
        before = await load.answer(20)

        async def cut(messages: int) -> None:
            call = load.stream(200)
            for _ in range(messages):
                await call.read()
            call.cancel()
            seen.add("streams")
            seen.add("cancelled", await call.code() is grpc.StatusCode.CANCELLED)

        await _in_turn([cut(chance.randrange(5)) for _ in range(count)])
        seen.add("differ", await load.answer(20) != before)


async def slow(seen: Any, count: int, chance: random.Random) -> None:
    """Clients that stop reading, half of which vanish; others are served all the same."""
    async with loaded() as load:
        before, calls, channels = await load.answer(20), [], []
        for _ in range(count):
            channels.append(load.another_channel())
            calls.append(load.stream(200, channels[-1]))
            await calls[-1].read()
            seen.add("streams")
        seen.add("differ", await load.answer(20) != before)
        for channel in chance.sample(channels, len(channels) // 2):
            await channel.close()
            seen.add("vanished")
        seen.add("differ", await load.answer(20) != before)
        for channel in channels:
            await channel.close()


async def sigterm(seen: Any, count: int, chance: random.Random) -> None:
    """SIGTERM while streams run: each of them ends as it would have."""
    async with loaded() as load:
        calls = [load.stream(chance.randint(50, 150)) for _ in range(count)]
        for call in calls:
            await call.read()
        load.process.send_signal(signal.SIGTERM)
        await _in_turn([_to_the_end(seen, call) for call in calls])
        status = await asyncio.to_thread(load.process.wait, STOP_S)
        seen.add("differ", status != 0)


async def _to_the_end(seen: Any, call: Any) -> None:
    seen.add("streams")
    finished = False
    try:
        while (message := await call.read()) is not grpc.aio.EOF:
            finished |= message.HasField("finish")
    except grpc.aio.AioRpcError as error:
        print(f"a stream ended with {error.code()}: {error.details()}", file=sys.stderr)
    seen.add("ended", finished)
    seen.add("broken", not finished)


async def endurance(seen: Any, requests: int, tokens: int, most_percent: float) -> None:
    """Memory after a share of the requests and tokens, and after all of them."""
    async with loaded() as load:
        await _run(load, seen, int(WARM_SHARE * requests), int(WARM_SHARE * tokens))
        before = load.rss_kib()
        await _run(load, seen, requests, tokens)
        after = load.rss_kib()
    seen.most("rss_before", before)
    seen.most("rss_after", after)
    seen.add("grown", after > before * (1 + most_percent / 100))


async def _run(load: Load, seen: Any, requests: int, tokens: int) -> None:
    async def answer() -> None:
        seen.add("requests")
        seen.add("tokens", len(await load.answer(ANSWER_TOKENS)))

    async def stream(length: int) -> None:
        seen.add("requests")
        async for message in load.stream(length):
            seen.add("tokens", len(message.delta.token_ids))

    for start in range(0, requests, 1000):
        await _in_turn([answer() for _ in range(min(1000, requests - start))])
    rest = max(tokens - ANSWER_TOKENS * requests, 0)
    whole, last = divmod(rest, STREAM_TOKENS)
    await _in_turn([stream(STREAM_TOKENS) for _ in range(whole)])
    if last:
        await stream(last)

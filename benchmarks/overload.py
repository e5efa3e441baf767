"""How soon a server says that it is full, over gRPC on this machine.

    python benchmarks/overload.py [--model DIRECTORY] [--refusals N] [--json FILE]

A server in a process of its own is filled by another one until slots and queue are taken by
completions that go on. Requests with a short and with a long prompt are then refused, one after the
other, and many at once. Times are those from the call to the status RESOURCE_EXHAUSTED. `empty` is
a handler in the same server that returns no bytes at once: what gRPC itself costs. A round is one
call of each. Calls at once have a fifth of the rounds, at least one.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from empty_server import EMPTY
from harness import Measure, Report, Sample, Turns, in_turns, parser, timed
from server import started

import spiketrain
import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.generation_pb2_grpc as generation_grpc

LONG = "Once upon a time there was a king. " * 5000  # 175 kB of text
SLOTS, QUEUE = 32, 128
ENDLESS = pb.GenerateRequest(text="Once", max_new_tokens=65536, ignore_eos=True)
CROWDS = (100, 500)  # calls at once
EMPTY_SERVER = str(Path(__file__).with_name("empty_server.py"))
PAUSE_S = 0.01  # between requests
FULL = grpc.StatusCode.RESOURCE_EXHAUSTED


async def fill(address: str) -> None:
    """Take every slot and place, and read what comes, until this process is ended."""

    async def drain(stub: Any) -> None:
        while True:
            with suppress(grpc.aio.AioRpcError):  # refused: another one had the last place
                async for _ in stub.GenerateStream(ENDLESS):
                    pass
            await asyncio.sleep(0.1)

    async with grpc.aio.insecure_channel(address) as channel:
        stub = generation_grpc.GenerationStub(channel)
        await asyncio.gather(*(drain(stub) for _ in range(SLOTS + QUEUE)))


def status_of(call: Callable[[], object]) -> grpc.StatusCode:
    """What a call ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def wait_until_full(stub: Any, filler: subprocess.Popen[bytes]) -> None:
    """Return once a request is refused."""
    while status_of(lambda: stub.Generate(ENDLESS, timeout=1.0)) is not FULL:
        if filler.poll() is not None:
            raise SystemExit(f"who fills the server ended with {filler.returncode}")
        time.sleep(0.1)


def ending_with(expected: grpc.StatusCode, call: Callable[[], object]) -> Measure:
    """A call that must end with this status, after a pause."""

    def check() -> None:
        status = status_of(call)
        if status is not expected:
            raise SystemExit(f"expected {expected.name}, got {status.name}")

    def measure() -> Sample:
        time.sleep(PAUSE_S)
        return timed(check)

    return measure


async def at_once(call: Callable[[], Any], expected: grpc.StatusCode, calls: int) -> list[float]:
    """Seconds of each of so many calls that begin together and must end with this status."""

    async def one() -> float:
        before_s = time.perf_counter()
        status = await call().code()
        if status is not expected:
            raise SystemExit(f"expected {expected.name}, got {status.name}")
        return time.perf_counter() - before_s

    return await asyncio.gather(*(one() for _ in range(calls)))


async def crowds(address: str, rounds: int) -> list[list[str]]:
    """Rows of the table of calls at once, in turns of refusals and empty calls."""
    short, rows = pb.GenerateRequest(text="Once"), []
    async with grpc.aio.insecure_channel(address) as channel:
        stub, empty = generation_grpc.GenerationStub(channel), channel.unary_unary(EMPTY)
        for calls in CROWDS:
            times: dict[str, list[list[float]]] = {"empty": [], "refused": []}
            for _ in range(max(1, rounds // 5)):
                found = await at_once(lambda: empty(b""), grpc.StatusCode.OK, calls)
                times["empty"].append(found)
                found = await at_once(lambda: stub.Generate(short), FULL, calls)
                times["refused"].append(found)
            rows.append([str(calls), *(spread(each) for each in times.values()), ratio(times)])
    return rows


def spread(rounds: list[list[float]]) -> str:
    """Median and 99th percentile, each the median of the rounds."""
    half, most = np.median([np.percentile(each, [50, 99]) for each in rounds], axis=0)
    return f"{1e3 * half:.1f} / {1e3 * most:.1f} ms"


def ratio(times: dict[str, list[list[float]]]) -> str:
    """Median of a refusal over that of an empty call, within rounds."""
    pairs = zip(times["refused"], times["empty"], strict=True)
    return f"{np.median([np.median(one) / np.median(other) for one, other in pairs]):.2f}x"


def measure(address: str, refusals: int) -> tuple[Turns, list[list[str]]]:
    """Calls in turns once the server is full, and calls at once."""
    filler = subprocess.Popen([sys.executable, __file__, "--fill", address])
    try:
        with grpc.insecure_channel(address) as channel:
            stub = generation_grpc.GenerationStub(channel)
            empty = channel.unary_unary(EMPTY)
            wait_until_full(stub, filler)
            short, long = pb.GenerateRequest(text="Once"), pb.GenerateRequest(text=LONG)
            variants = {
                "empty": ending_with(grpc.StatusCode.OK, lambda: empty(b"")),
                "short prompt": ending_with(FULL, lambda: stub.Generate(short)),
                "long prompt": ending_with(FULL, lambda: stub.Generate(long)),
            }
            turns = in_turns(variants, refusals)
        return turns, asyncio.run(crowds(address, refusals))
    finally:
        filler.kill()
        filler.wait()


def main(arguments: list[str] | None = None) -> None:
    """Parse and measure."""
    shared = parser(__doc__, rounds=100)
    shared.add_argument("--model", type=Path, default=spiketrain.bundled_model())
    shared.add_argument("--refusals", type=int, dest="rounds", help="the same as --rounds")
    shared.add_argument("--fill", help=argparse.SUPPRESS)  # ADDRESS: be the one that fills
    options = shared.parse_args(arguments)
    if options.fill is not None:
        asyncio.run(fill(options.fill))
        return
    report = Report(options)
    with started(options.model, (EMPTY_SERVER,), max_batch_size=SLOTS, max_queue=QUEUE) as server:
        turns, rows = measure(server.address, options.rounds)
    p99 = {
        name: f"{1e3 * np.percentile([one.wall_s for one in samples], 99):.2f} ms"
        for name, samples in turns.samples.items()
    }
    report.turns("Calls on a full server", "call", turns, {"p99": p99})
    header = ("calls at once", "empty, median / p99", "refused, median / p99", "refused of empty")
    report.table("Calls at once on a full server", header, rows)
    report.finish()


if __name__ == "__main__":
    main()

"""How soon a server says that it is full, over gRPC on this machine.

    python benchmarks/overload.py [--model DIRECTORY] [--refusals N] [--json FILE]

A server in a process of its own is filled by another one until slots and queue are taken by
completions that go on; then requests with a short and with a long prompt are refused, one after the
other. Times are those from the call to the status RESOURCE_EXHAUSTED, and for comparison to the
answer of GetModel, which asks nothing of the engine. A round is one call of each.
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
from harness import Measure, Report, Sample, Turns, in_turns, parser, timed
from server import started

import spiketrain
import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.generation_pb2_grpc as generation_grpc
import spiketrain.v1.models_pb2 as models_pb
import spiketrain.v1.models_pb2_grpc as models_grpc

LONG = "Once upon a time there was a king. " * 5000  # 175 kB of text
SLOTS, QUEUE = 32, 128
ENDLESS = pb.GenerateRequest(text="Once", max_new_tokens=65536, ignore_eos=True)
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


def measure(address: str, refusals: int) -> Turns:
    """Calls in turns once the server is full."""
    filler = subprocess.Popen([sys.executable, __file__, "--fill", address])
    try:
        with grpc.insecure_channel(address) as channel:
            stub = generation_grpc.GenerationStub(channel)
            models = models_grpc.ModelsStub(channel)
            wait_until_full(stub, filler)
            short, long = pb.GenerateRequest(text="Once"), pb.GenerateRequest(text=LONG)
            about = models_pb.GetModelRequest()
            variants = {
                "GetModel": ending_with(grpc.StatusCode.OK, lambda: models.GetModel(about)),
                "short prompt": ending_with(FULL, lambda: stub.Generate(short)),
                "long prompt": ending_with(FULL, lambda: stub.Generate(long)),
            }
            return in_turns(variants, refusals)
    finally:
        filler.kill()
        filler.wait()


def main(arguments: list[str] | None = None) -> None:
    """Parse and measure."""
    shared = parser(__doc__, rounds=500)
    shared.add_argument("--model", type=Path, default=spiketrain.bundled_model())
    shared.add_argument("--refusals", type=int, dest="rounds", help="the same as --rounds")
    shared.add_argument("--fill", help=argparse.SUPPRESS)  # ADDRESS: be the one that fills
    options = shared.parse_args(arguments)
    if options.fill is not None:
        asyncio.run(fill(options.fill))
        return
    report = Report(options)
    with started(options.model, max_batch_size=SLOTS, max_queue=QUEUE) as server:
        turns = measure(server.address, options.rounds)
    p99 = {
        name: f"{1e3 * np.percentile([one.wall_s for one in samples], 99):.2f} ms"
        for name, samples in turns.samples.items()
    }
    report.turns("Calls on a full server", "call", turns, {"p99": p99}, compare=False)
    report.finish()


if __name__ == "__main__":
    main()

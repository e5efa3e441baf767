"""How soon a server says that it is full, over gRPC on this machine.

    python benchmarks/overload.py [--model DIRECTORY] [--refusals N] [--json]

A server in a process of its own is filled by another one until slots and queue are taken by
completions that go on; then requests with a short and with a long prompt are refused one after the
other. Milliseconds are those from the call to the status RESOURCE_EXHAUSTED, and for comparison to
the answer of GetModel, which asks nothing of the engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from load import started  # beside this file

import spiketrain
import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.generation_pb2_grpc as generation_grpc
import spiketrain.v1.models_pb2 as models_pb
import spiketrain.v1.models_pb2_grpc as models_grpc

LONG = "Once upon a time there was a king. " * 5000  # 175 kB of text
SLOTS, QUEUE = 32, 128
ENDLESS = pb.GenerateRequest(text="Once", max_new_tokens=65536, ignore_eos=True)
PAUSE_S = 0.01  # between requests


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


async def wait_until_full(stub: Any, filler: subprocess.Popen[bytes]) -> None:
    """Return once a request is refused."""
    code = None
    while code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        if filler.poll() is not None:
            raise SystemExit(f"who fills the server ended with {filler.returncode}")
        await asyncio.sleep(0.1)
        code = await stub.Generate(ENDLESS, timeout=1.0).code()


async def milliseconds(ask: Any, expected: grpc.StatusCode, times: int) -> dict[str, float]:
    """Median, 99th percentile and greatest time of calls one after the other."""
    taken = []
    for _ in range(times):
        await asyncio.sleep(PAUSE_S)
        started_s = time.perf_counter()
        code = await ask().code()
        taken.append(1e3 * (time.perf_counter() - started_s))
        if code is not expected:
            raise SystemExit(f"expected {expected.name}, got {code.name}")
    half, most = np.percentile(taken, [50, 99])
    return {"median_ms": float(half), "p99_ms": float(most), "max_ms": max(taken)}


async def measure(model: Path, refusals: int) -> dict[str, dict[str, float]]:
    """Times by what was asked."""
    async with (
        started(model, max_batch_size=SLOTS, max_queue=QUEUE) as (address, _),
        grpc.aio.insecure_channel(address) as channel,
    ):
        filler = subprocess.Popen([sys.executable, __file__, "--fill", address])
        try:
            stub = generation_grpc.GenerationStub(channel)
            models = models_grpc.ModelsStub(channel)
            await wait_until_full(stub, filler)
            full = grpc.StatusCode.RESOURCE_EXHAUSTED
            short, long = pb.GenerateRequest(text="Once"), pb.GenerateRequest(text=LONG)
            asked = models_pb.GetModelRequest()
            return {
                "GetModel": await milliseconds(
                    lambda: models.GetModel(asked), grpc.StatusCode.OK, refusals
                ),
                "short prompt": await milliseconds(lambda: stub.Generate(short), full, refusals),
                "long prompt": await milliseconds(lambda: stub.Generate(long), full, refusals),
            }
        finally:
            filler.kill()
            filler.wait()


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description="How soon a full server says so.")
    parser.add_argument("--model", type=Path, default=spiketrain.bundled_model())
    parser.add_argument("--refusals", type=int, default=500)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--fill", help=argparse.SUPPRESS)  # ADDRESS: be the one that fills
    options = parser.parse_args()
    if options.fill is not None:
        asyncio.run(fill(options.fill))
        return
    result = asyncio.run(measure(options.model, options.refusals))
    if options.json:
        print(json.dumps(result))
        return
    for name, row in result.items():
        print(
            f"{name}: median {row['median_ms']:.2f} ms, p99 {row['p99_ms']:.2f} ms, "
            f"max {row['max_ms']:.2f} ms"
        )


if __name__ == "__main__":
    main()

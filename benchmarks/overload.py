"""How soon a server says that it is full, over gRPC on this machine.

    python benchmarks/overload.py [--model DIRECTORY] [--refusals N]

A server of its own is filled until slots and queue are taken by completions that go on; then
requests with a short and with a long prompt are refused one after the other. Prints milliseconds
from the call to the status RESOURCE_EXHAUSTED.
"""

import argparse
import asyncio
import time

import grpc
import numpy as np

import runtime
import spiketrain
import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.generation_pb2_grpc as generation_grpc
from serving.config import ServingConfig
from serving.engine import Engine
from serving.logs import log_to_stderr
from serving.server import Server

LONG = "Once upon a time there was a king. " * 5000  # 175 kB of text


async def refused_ms(stub, text):
    """Milliseconds until a request is refused for want of room."""
    started_s = time.perf_counter()
    call = stub.Generate(pb.GenerateRequest(text=text))
    code = await call.code()
    if code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        raise SystemExit(f"expected RESOURCE_EXHAUSTED, got {code.name}")
    return 1e3 * (time.perf_counter() - started_s)


async def measure(model, refusals):
    """Fill a server of `model`, then print how long refusals take."""
    engine = Engine(model, ServingConfig(port=0))
    server = Server(engine, "overload")
    port = await server.start()
    config = engine.config
    wanted = pb.GenerateRequest(text="Once", max_new_tokens=config.max_new_tokens, ignore_eos=True)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = generation_grpc.GenerationStub(channel)
        places = engine.max_sequences + config.max_queue
        running = [asyncio.ensure_future(drain(stub, wanted)) for _ in range(places)]
        while engine.num_running + engine.num_waiting < places:
            await asyncio.sleep(0.01)
        for name, text in (("short", "Once"), ("long", LONG)):
            taken = [await refused_ms(stub, text) for _ in range(refusals)]
            half, most = np.percentile(taken, [50, 99])
            print(
                f"{name} prompt: median {half:.2f} ms, p99 {most:.2f} ms, max {max(taken):.2f} ms"
            )
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    await server.stop(0.0)


async def drain(stub, wanted):
    """Read a completion to its end."""
    async for _ in stub.GenerateStream(wanted):
        pass


def main():
    """Parse, load, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=spiketrain.bundled_model())
    parser.add_argument("--refusals", type=int, default=200)
    arguments = parser.parse_args()
    log_to_stderr("error")
    asyncio.run(measure(runtime.load_model(arguments.model), arguments.refusals))


if __name__ == "__main__":
    main()

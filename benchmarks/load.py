"""Load on a server over gRPC, and what serving costs against the model in one process.

    python benchmarks/load.py [MODEL | --spikegpt int8] [--streams 1 8 32 64] [--json]

The server is `spiketrain serve` in a process of its own; this process is all clients. For each
number of streams: first so many clients, each of which asks again once it is answered, which gives
tokens/s; then requests that arrive at random (a Poisson process, seeded) at 0.8 of that rate,
whether or not earlier ones have been answered, which gives the time to the first token, from the
moment a request was due, and the time between tokens: of a message with n tokens, n times an n-th
of the time since the message before.

In one process means `model.step` and sampling, one token after the other. It takes turns with one
stream of the server, and the ratio is the median over rounds of the ratio within a round. Processor
time is that of the whole server process, event loop included, for each token while the clients ask
without a pause; it says something even where other work takes turns on the machine. All completions
have --tokens tokens. --spikegpt makes a package of random weights at the published
216M dimensions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

import spiketrain
import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.generation_pb2_grpc as generation_grpc
from spiketrain import runtime
from spiketrain.runtime.sampling import SamplingParams, sample

PROMPT = (1, 2, 3, 4, 5, 6, 7, 8)
LOAD = 0.8  # of the rate that clients without a pause reach


class Answer:
    """When a request was due, when its messages came, and how many tokens each had."""

    def __init__(self, due_s: float) -> None:
        self.due_s = due_s
        self.messages: list[tuple[float, int]] = []

    @property
    def first_s(self) -> float:
        """Seconds from when it was due to its first token."""
        return self.messages[0][0] - self.due_s

    def gaps_s(self) -> list[float]:
        """Seconds from token to token."""
        gaps = []
        for (before_s, _), (now_s, count) in zip(self.messages, self.messages[1:], strict=False):
            gaps += [(now_s - before_s) / count] * count
        return gaps


class Clients:
    """Asks one server for completions of one length."""

    def __init__(self, stub: Any, server: psutil.Process, tokens: int) -> None:
        self._stub = stub
        self._server = server
        self._tokens = tokens
        self._seed = 0

    async def ask(self, due_s: float) -> Answer:
        """One completion."""
        self._seed += 1
        answer = Answer(due_s)
        request = pb.GenerateRequest(
            token_ids=pb.TokenIds(ids=PROMPT),
            max_new_tokens=self._tokens,
            ignore_eos=True,
            seed=self._seed,
            prefix_cache=False,
        )
        async for message in self._stub.GenerateStream(request):
            if message.delta.token_ids:
                answer.messages.append((time.monotonic(), len(message.delta.token_ids)))
        return answer

    async def saturate(self, streams: int, seconds: float) -> tuple[float, float]:
        """Tokens/s of so many clients without a pause, and processor seconds a token."""
        end_s = time.monotonic() + seconds

        async def client() -> list[Answer]:
            answers = []
            while time.monotonic() < end_s:
                answers.append(await self.ask(time.monotonic()))
            return answers

        started_s, used_s = time.monotonic(), self._processor_s()
        each = await asyncio.gather(*(client() for _ in range(streams)))
        answers = [answer for answers in each for answer in answers]
        last_s = max(answer.messages[-1][0] for answer in answers)
        tokens = len(answers) * self._tokens
        return tokens / (last_s - started_s), (self._processor_s() - used_s) / tokens

    def _processor_s(self) -> float:
        times = self._server.cpu_times()
        return times.user + times.system

    async def arrive(self, rate: float, seconds: float, seed: int) -> list[Answer]:
        """Requests at random, `rate` a second on average."""
        chance = random.Random(seed)
        due_s = time.monotonic()
        end_s = due_s + seconds
        asked = []
        while due_s < end_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            asked.append(asyncio.ensure_future(self.ask(due_s)))
            due_s += chance.expovariate(rate)
        return list(await asyncio.gather(*asked))


@asynccontextmanager
async def started(model: Path, **settings: Any) -> AsyncIterator[tuple[str, psutil.Process]]:
    """A server of the model in another process, under these settings: its address and process."""
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        flags = {"port": 0, "port_file": port_file, "log_level": "error", **settings}
        command = [str(Path(sys.executable).with_name("spiketrain")), "serve", str(model)]
        for name, value in flags.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while not port_file.exists():
                if process.poll() is not None:
                    raise SystemExit(f"the server ended with {process.returncode}")
                await asyncio.sleep(0.05)
            yield f"127.0.0.1:{int(port_file.read_text())}", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


@asynccontextmanager
async def served(model: Path, streams: int, threads: int, tokens: int) -> AsyncIterator[Clients]:
    """A server of the model in another process, and its clients."""
    settings = {"threads": threads, "max_batch_size": streams, "max_queue": 10_000}
    async with (
        started(model, **settings) as (address, process),
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield Clients(generation_grpc.GenerationStub(channel), process, tokens)


def in_process(model: Any, tokens: int, seed: int) -> tuple[float, float]:
    """Tokens/s of one sequence without a server, and processor seconds a token."""
    settings = model.generation_config
    known = {name: settings[name] for name in ("temperature", "top_k", "top_p") if name in settings}
    params = SamplingParams(**known, seed=seed)
    started_s, used_s = time.monotonic(), time.process_time()
    state = model.new_state()
    logits = model.forward(state, PROMPT, last_only=True)
    for _ in range(tokens - 1):
        token = sample(logits, params, state.position)
        logits = model.step([state], [token])[0]
    sample(logits, params, state.position)
    return tokens / (time.monotonic() - started_s), (time.process_time() - used_s) / tokens


def percentiles_ms(seconds: list[float]) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds."""
    return tuple(1e3 * np.percentile(seconds, (50, 99)))  # type: ignore[return-value]


async def measure(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Everything that is reported."""
    model = runtime.load_model(path, threads=options.threads)
    most = max(options.streams)
    result: dict[str, Any] = {"threads": options.threads, "tokens": options.tokens, "rows": []}
    async with served(path, most, options.threads, options.tokens) as clients:
        await clients.saturate(most, 1.0)  # fills tables on both sides
        in_process(model, options.tokens, 0)
        ratios, alone = [], []
        for number in range(options.rounds):
            alone.append(in_process(model, options.tokens, number))
            answer = await clients.ask(time.monotonic())
            ratios.append(options.tokens / (answer.messages[-1][0] - answer.due_s) / alone[-1][0])
        result["in_process_tokens_per_s"] = statistics.median(rate for rate, _ in alone)
        result["in_process_processor_us"] = 1e6 * statistics.median(used for _, used in alone)
        result["served_of_in_process"] = statistics.median(ratios)
        for streams in options.streams:
            rate, processor_s = await clients.saturate(streams, options.seconds)
            arrivals = LOAD * rate / options.tokens
            answers = await clients.arrive(arrivals, options.seconds, seed=streams)
            gaps = [gap for answer in answers for gap in answer.gaps_s()]
            messages = [len(answer.messages) for answer in answers]
            result["rows"].append(
                {
                    "streams": streams,
                    "tokens_per_s": rate,
                    "processor_us_per_token": 1e6 * processor_s,
                    "requests": len(answers),
                    "first_token_ms": percentiles_ms([answer.first_s for answer in answers]),
                    "between_tokens_ms": percentiles_ms(gaps),
                    "tokens_per_message": options.tokens / statistics.mean(messages),
                }
            )
    return result


def print_table(result: dict[str, Any]) -> None:
    """The result as Markdown."""
    print(
        f"{result['tokens']} tokens a completion, {result['threads']} threads of the model. In one "
        f"process {result['in_process_tokens_per_s']:,.0f} tokens/s, "
        f"{result['in_process_processor_us']:,.0f} us of processor time each; one stream of the "
        f"server has {100 * result['served_of_in_process']:.0f} % of these tokens/s.\n"
    )
    print(
        "| streams | tokens/s | of one stream | processor time a token | first token, p50 / p99 "
        "| between tokens, p50 / p99 | tokens a message |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in result["rows"]:
        first, between = row["first_token_ms"], row["between_tokens_ms"]
        times = row["tokens_per_s"] / result["rows"][0]["tokens_per_s"]
        print(
            f"| {row['streams']} | {row['tokens_per_s']:,.0f} | {times:.1f}x "
            f"| {row['processor_us_per_token']:,.0f} us "
            f"| {first[0]:.1f} / {first[1]:.1f} ms | {between[0]:.2f} / {between[1]:.2f} ms "
            f"| {row['tokens_per_message']:.1f} |"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Load on a server over gRPC.")
    parser.add_argument("model", nargs="?", type=Path, help="package; without it the bundled one")
    parser.add_argument("--spikegpt", choices=["int8", "int4"], help="random weights, 216M")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--tokens", type=int, default=128, help="tokens a completion")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=9, help="against one process")
    parser.add_argument("--threads", type=int, default=1, help="of the model's kernels")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or Path(spiketrain.bundled_model())
        if options.spikegpt is not None:
            from peers import write_spikegpt  # beside this file

            path = Path(folder) / "spikegpt"
            write_spikegpt(path, options.spikegpt)
        result = asyncio.run(measure(options, path))
    print(json.dumps(result)) if options.json else print_table(result)


if __name__ == "__main__":
    main()

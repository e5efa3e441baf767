"""Load on a server over gRPC, and what serving costs against the model in one process.

    python benchmarks/load.py [MODEL | --spikegpt int8] [--streams 1 8 32 64] [--json FILE]

The server is `spiketrain serve` in a process of its own; this process is all clients. For each
number of streams: first so many clients, each of which asks again once it is answered, which gives
tokens/s; then requests that arrive at random (a Poisson process, seeded) at 0.8 of that rate,
whether or not earlier ones have been answered, which gives the time to the first token, from the
moment a request was due, and the time between tokens: of a message with n tokens, n times an n-th
of the time since the message before.

In one process means `model.step` and sampling, one token after the other, in turns with one stream
of the server. Processor time of a server is that of its whole process, event loop included; it says
something even where other work takes turns on the machine. All completions have --tokens tokens.
--spikegpt makes a package of random weights at the published 216M dimensions.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from harness import Report, Sample, in_turns, parser, timed
from server import Server, started

import spiketrain
import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.generation_pb2_grpc as generation_grpc
from spiketrain import runtime
from spiketrain.runtime.sampling import SamplingParams, sample

PROMPT = (1, 2, 3, 4, 5, 6, 7, 8)
LOAD = 0.8  # of the rate that clients without a pause reach
IN_PROCESS, SERVED = "in one process", "one stream of the server"
HEADER = (
    "streams", "tokens/s", "of one stream", "processor time a token", "first token, p50 / p99",
    "between tokens, p50 / p99", "tokens a message",
)  # fmt: skip


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

    def __init__(self, stub: Any, server: Server, tokens: int) -> None:
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

        started_s, used_s = time.monotonic(), self._server.processor_s()
        each = await asyncio.gather(*(client() for _ in range(streams)))
        answers = [answer for answers in each for answer in answers]
        last_s = max(answer.messages[-1][0] for answer in answers)
        tokens = len(answers) * self._tokens
        return tokens / (last_s - started_s), (self._server.processor_s() - used_s) / tokens

    async def one(self) -> Sample:
        """Seconds a token of one completion; the processor's are the server's."""
        used_s = self._server.processor_s()
        answer = await self.ask(time.monotonic())
        wall_s = answer.messages[-1][0] - answer.due_s
        return Sample(wall_s / self._tokens, (self._server.processor_s() - used_s) / self._tokens)

    async def arrive(self, rate: float, seconds: float, seed: int) -> list[Answer]:
        """Requests at random, `rate` a second on average."""
        chance = random.Random(seed)
        due_s = time.monotonic()
        end_s = due_s + seconds
        answers = []
        while due_s < end_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            answers.append(asyncio.ensure_future(self.ask(due_s)))
            due_s += chance.expovariate(rate)
        return list(await asyncio.gather(*answers))


def decode(model: Any, tokens: int) -> None:
    """A completion of one sequence without a server."""
    settings = model.generation_config
    known = {name: settings[name] for name in ("temperature", "top_k", "top_p") if name in settings}
    params = SamplingParams(**known, seed=tokens)
    state = model.new_state()
    logits = model.forward(state, PROMPT, last_only=True)
    for _ in range(tokens - 1):
        token = sample(logits, params, state.position)
        logits = model.step([state], [token])[0]
    sample(logits, params, state.position)


def percentiles_ms(seconds: list[float]) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds; 0 where every answer was one message."""
    return tuple(1e3 * np.percentile(seconds or [0.0], (50, 99)))  # type: ignore[return-value]


async def under_load(clients: Clients, streams: int, options: argparse.Namespace) -> dict[str, Any]:
    """What so many streams get."""
    rate, processor_s = await clients.saturate(streams, options.seconds)
    answers = await clients.arrive(LOAD * rate / options.tokens, options.seconds, seed=streams)
    messages = [len(answer.messages) for answer in answers]
    return {
        "streams": streams,
        "tokens_per_s": rate,
        "processor_us_per_token": 1e6 * processor_s,
        "requests": len(answers),
        "first_token_ms": percentiles_ms([answer.first_s for answer in answers]),
        "between_tokens_ms": percentiles_ms([gap for one in answers for gap in one.gaps_s()]),
        "tokens_per_message": options.tokens / statistics.mean(messages),
    }


def cells(row: dict[str, Any], one_stream: float) -> list[str]:
    """A row of the table."""
    first, between = row["first_token_ms"], row["between_tokens_ms"]
    return [
        str(row["streams"]),
        f"{row['tokens_per_s']:,.0f}",
        f"{row['tokens_per_s'] / one_stream:.1f}x",
        f"{row['processor_us_per_token']:,.0f} us",
        f"{first[0]:.1f} / {first[1]:.1f} ms",
        f"{between[0]:.2f} / {between[1]:.2f} ms",
        f"{row['tokens_per_message']:.1f}",
    ]


def measure(report: Report, options: argparse.Namespace, path: Path) -> None:
    """One stream in turns with the model in one process, then streams one number after another."""
    model = runtime.load_model(path, threads=options.threads)
    most, loop = max(options.streams), asyncio.new_event_loop()
    settings = {"threads": options.threads, "max_batch_size": most, "max_queue": 10_000}
    with started(path, **settings) as server:

        async def connect() -> tuple[grpc.aio.Channel, Clients]:
            channel = grpc.aio.insecure_channel(server.address)
            stub = generation_grpc.GenerationStub(channel)
            return channel, Clients(stub, server, options.tokens)

        channel, clients = loop.run_until_complete(connect())
        loop.run_until_complete(clients.saturate(most, 1.0))  # fills tables on both sides
        variants = {
            IN_PROCESS: lambda: timed(lambda: decode(model, options.tokens), options.tokens),
            SERVED: lambda: loop.run_until_complete(clients.one()),
        }
        title = f"{options.tokens} tokens a completion, {options.threads} threads of the model"
        report.turns(title, "token", in_turns(variants, options.rounds))
        rows = [
            loop.run_until_complete(under_load(clients, streams, options))
            for streams in options.streams
        ]
        first = rows[0]["tokens_per_s"]
        report.table("Streams", HEADER, [cells(row, first) for row in rows], {"streams": rows})
        loop.run_until_complete(channel.close())
    loop.close()


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    shared = parser(__doc__, rounds=9)
    shared.add_argument("model", nargs="?", type=Path, help="package; without it the bundled one")
    shared.add_argument("--spikegpt", choices=["int8", "int4"], help="random weights, 216M")
    shared.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32, 64])
    shared.add_argument("--tokens", type=int, default=128, help="tokens a completion")
    shared.add_argument("--seconds", type=float, default=5.0, help="of each number of streams")
    shared.add_argument("--threads", type=int, default=1, help="of the model's kernels")
    options = shared.parse_args(arguments)
    report = Report(options)
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or Path(spiketrain.bundled_model())
        if options.spikegpt is not None:
            from models.spikegpt import write_package

            path = Path(folder) / "spikegpt"
            write_package(path, options.spikegpt)
        measure(report, options, path)
    report.finish()


if __name__ == "__main__":
    main()

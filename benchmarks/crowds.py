"""What a hundred calls with the largest requests at once do to a server's memory.

    python benchmarks/crowds.py [--model DIRECTORY] [--calls N] [--rounds N] [--json FILE]

A server in a process of its own gets all calls at once. Each round has each kind in turn. Clients
give up the `cancelled` calls after a second. Columns: resident memory in MiB before, at most, and
some seconds after the calls have ended, and the codes that they ended with.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import psutil
from harness import Report, parser
from server import started
from stalls import SIZE, field

import spiketrain

MIB = 1 << 20
SETTLE_S = 5.0  # after the calls of one kind
CANCEL_S = 1.0
WORDS = b"Once upon a time there was a king. " * (SIZE // 35)
TOKENIZE, GENERATE = "Tokenization/Tokenize", "Generation/Generate"
SCORE = "Scoring/Score"
SHORT = field(1, b"Once upon a time")


def kinds() -> dict[str, tuple[str, bytes]]:
    """Method and request of each kind."""
    return {
        "first calls": (TOKENIZE, SHORT),
        "Tokenize, 1 MiB": (TOKENIZE, field(1, WORDS[:MIB])),
        "Tokenize, 4 MiB": (TOKENIZE, field(1, WORDS[: SIZE - 32])),
        "Tokenize, 1 MiB, cancelled": (TOKENIZE, field(1, WORDS[:MIB])),
        "Generate, 1 MiB of text": (GENERATE, field(1, WORDS[:MIB])),
        "Generate, a million ids": (GENERATE, field(2, field(1, b"\x05" * MIB))),
        "Score, 4 MiB of text": (SCORE, field(1, b"a") + field(3, WORDS[: SIZE - 64])),
        "Tokenize, 1 MiB, again": (TOKENIZE, field(1, WORDS[:MIB])),
    }


@asynccontextmanager
async def watched(process: psutil.Process) -> AsyncIterator[list[int]]:
    """Resident bytes of a process while the context lasts, a hundred times a second."""
    seen = [process.memory_info().rss]

    async def look() -> None:
        while True:
            seen.append(process.memory_info().rss)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(look())
    try:
        yield seen
    finally:
        task.cancel()


async def call(address: str, method: str, data: bytes, cancel_s: float | None) -> str:
    """Name of the status of one call on a connection of its own."""
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        made = channel.unary_unary(f"/spiketrain.v1.{method}")(data, timeout=120.0)
        if cancel_s is not None:
            asyncio.get_running_loop().call_later(cancel_s, made.cancel)
        try:
            return str((await made.code()).name)
        except asyncio.CancelledError:
            return "CANCELLED"


async def crowd(
    address: str, process: psutil.Process, name: str, method: str, data: bytes, calls: int
) -> list[str]:
    """What so many calls at once do."""
    cancel_s = CANCEL_S if "cancelled" in name else None
    async with watched(process) as seen:
        ended = await asyncio.gather(*(call(address, method, data, cancel_s) for _ in range(calls)))
        await asyncio.sleep(SETTLE_S)
        after = process.memory_info().rss
    codes = ", ".join(f"{count} {code}" for code, count in Counter(ended).most_common())
    mib = [f"{n / MIB:.0f}" for n in (seen[0], max(seen), after)]
    return [name, *mib, codes]


async def measure(model: Path, calls: int, rounds: int) -> list[list[str]]:
    """A row for each kind in each round, of one server."""
    rows = []
    with started(model) as server:
        process = psutil.Process(server.process_id)
        for _ in range(rounds):
            for name, (method, data) in kinds().items():
                rows.append(await crowd(server.address, process, name, method, data, calls))
    return rows


def main() -> None:
    """Parse and measure."""
    shared = parser(__doc__, rounds=1)
    shared.add_argument("--model", type=Path, default=spiketrain.bundled_model())
    shared.add_argument("--calls", type=int, default=100)
    options = shared.parse_args()
    report = Report(options)
    rows = asyncio.run(measure(options.model, options.calls, options.rounds))
    report.table("Resident MiB", ("calls", "before", "most", "after", "codes"), rows)
    report.finish()


if __name__ == "__main__":
    main()

"""What one large message costs others.

    python benchmarks/stalls.py [--model DIRECTORY] [--rounds N] [--json FILE]

A server in a process of its own is sent messages of 4 MB of each kind, one after the other, without
a token and with one. Another process asks for Health without a pause. A row has the processor time
of the server's event loop and of the whole server for one message, and the longest answer of Health
meanwhile: medians over the rounds. The row `nothing` is the same time without any message.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from harness import Report, parser
from server import started

import spiketrain

SIZE = 4 << 20  # bytes, what a server takes by default
TOKEN = "a-token-for-the-benchmark"
QUIET_S = 0.3  # of Health alone before and after a message
GENERATE, TOKENIZE = "Generation/Generate", "Tokenization/Tokenize"
DETOKENIZE = "Tokenization/Detokenize"


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """A number as it stands on the wire."""
    head = []
    while value > 127:
        head.append(value & 127 | 128)
        value >>= 7
    return bytes([*head, value])


def messages(size: int) -> dict[str, tuple[str, bytes]]:
    """Method and bytes of each kind of message, some bytes below `size`."""
    left = size - 32
    words = (b"Once upon a time there was a king. " * (left // 35))[:left]
    return {
        "nothing": ("", b""),
        "unknown fields": (GENERATE, b"\x80\x7d\x01" * (left // 3)),
        "empty submessages": (GENERATE, field(4, b"\x0a\x00" * (left // 2))),
        "prompt, packed ids": (GENERATE, field(2, field(1, b"\x05" * left))),
        "prompt, unpacked ids": (GENERATE, field(2, b"\x08\x05" * (left // 2))),
        "allowed_token_ids": (GENERATE, field(1, b"a") + field(23, b"\x05" * left)),
        "a million ids": (GENERATE, field(2, field(1, b"\x05" * (1 << 20)))),
        "logit_bias": (GENERATE, field(1, b"a") + b"\xb2\x01\x00" * (left // 3)),
        "stop_sequences": (GENERATE, field(1, b"a") + field(15, b"\xe4\xb8\x80" * (left // 3))),
        "prompt, text": (GENERATE, field(1, words)),
        "Tokenize, text": (TOKENIZE, field(1, words)),
        "Tokenize, 1 MiB": (TOKENIZE, field(1, words[: 1 << 20])),
        "Detokenize, packed ids": (DETOKENIZE, field(1, b"\x05" * left)),
        "Detokenize, 2^18 ids": (DETOKENIZE, field(1, b"\x05" * (1 << 18))),
        "session id": ("Sessions/GetSession", field(1, b"\x01" * left)),
    }


async def send(channel: Any, path: str, data: bytes, metadata: Any = ()) -> grpc.StatusCode:
    """The status of a call that has these bytes for its request."""
    call = channel.unary_unary(path)(data, metadata=metadata)
    code: grpc.StatusCode = await call.code()
    return code


def processor_ms(process: psutil.Process) -> tuple[float, float]:
    """Milliseconds that the first thread of a process has run, and all threads."""
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    spent = {int(thread.name): _run_ms(thread / "schedstat") for thread in threads}
    return spent[process.pid], sum(spent.values())


def _run_ms(schedstat: Path) -> float:
    try:
        return int(schedstat.read_text().split()[0]) / 1e6
    except OSError:  # the thread has ended
        return 0.0


class Probe:
    """Asks for Health without a pause, from a process of its own."""

    def __init__(self, process: Any) -> None:
        self._process = process

    @classmethod
    async def start(cls, address: str) -> Probe:
        """Begin, and return after the first answers."""
        command = (sys.executable, __file__, "--probe", address)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        await process.stdout.readline()
        return cls(process)

    async def longest_ms(self) -> float:
        """End, and say how long the longest answer took."""
        told, _ = await self._process.communicate(b"\n")
        return float(told)


def probe(address: str) -> None:
    """What the process of a Probe does: until its standard input is closed."""
    import select

    longest_s, asked = 0.0, health_pb2.HealthCheckRequest()
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for _ in range(50):
            stub.Check(asked)
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            before_s = time.perf_counter()
            stub.Check(asked)
            longest_s = max(longest_s, time.perf_counter() - before_s)
    print(1e3 * longest_s)


async def stall(
    address: str, process: psutil.Process, method: str, data: bytes, token: str | None
) -> dict[str, Any]:
    """What one message costs."""
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    options = (("grpc.max_receive_message_length", -1),)
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        await send(channel, "/spiketrain.v1.Models/GetModel", b"", metadata)  # connected
        asking = await Probe.start(address)
        await asyncio.sleep(QUIET_S)
        loop_ms, all_ms = processor_ms(process)
        before_s = time.perf_counter()
        code = await send(channel, f"/spiketrain.v1.{method}", data, metadata) if method else None
        took_ms = 1e3 * (time.perf_counter() - before_s)
        after = processor_ms(process)
        await asyncio.sleep(QUIET_S)
        return {
            "code": code.name if code else "",
            "answer_ms": took_ms,
            "loop_ms": after[0] - loop_ms,
            "server_ms": after[1] - all_ms,
            "health_ms": await asking.longest_ms(),
        }


async def measure(model: Path, repeat: int, only: str | None) -> list[list[str]]:
    """Rows of medians."""
    rows = []
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as tokens:
        tokens.write(f'[callers.bench]\ntoken = "{TOKEN}"\n')
        tokens.flush()
        with started(model, tokens_file=tokens.name) as server:
            address, process = server.address, psutil.Process(server.process_id)
            for name, (method, data) in messages(SIZE).items():
                if only is not None and only not in name:
                    continue
                for token in (None, TOKEN):
                    runs = [await stall(address, process, method, data, token)]
                    while len(runs) < repeat:
                        runs.append(await stall(address, process, method, data, token))
                    rows.append(
                        cells({"message": name, "token": token is not None, **medians(runs)})
                    )
    return rows


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of several."""
    first = {"code": runs[0]["code"]}
    names = [name for name in runs[0] if name != "code"]
    return first | {name: statistics.median(run[name] for run in runs) for name in names}


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the table."""
    token = "with" if row["token"] else "without"
    times = [f"{row[name]:.1f}" for name in ("answer_ms", "loop_ms", "server_ms", "health_ms")]
    return [row["message"], token, row["code"], *times]


HEADER = ("message", "token", "code", "answer, ms", "loop, ms", "server, ms", "Health at most, ms")


def main() -> None:
    """Parse and measure."""
    shared = parser(__doc__, rounds=5)
    shared.add_argument("--model", type=Path, default=spiketrain.bundled_model())
    shared.add_argument("--only", help="messages whose name holds this")
    shared.add_argument("--probe", help=argparse.SUPPRESS)  # ADDRESS: be the one that asks
    options = shared.parse_args()
    if options.probe is not None:
        probe(options.probe)
        return
    report = Report(options)
    rows = asyncio.run(measure(options.model, options.rounds, options.only))
    report.table("One message of 4 MiB", HEADER, rows)
    report.finish()


if __name__ == "__main__":
    main()

"""Kill writers, and wear a server out; look for what is lost.

    python tools/chaos.py writes --count 10000
    python tools/chaos.py checkpoints --count 1000
    python tools/chaos.py sessions --count 200 [--unsynced]
    python tools/chaos.py cancels --count 1000
    python tools/chaos.py slow --count 100
    python tools/chaos.py sigterm --count 32
    python tools/chaos.py endurance --requests 100000 --tokens 1000000

Each round of the first three forks a writer, kills it (SIGKILL) after a random time, and reads what
is there. The others start a server of the bundled model, see `chaos_load.py`. A table is printed;
the exit code is 1 if anything was lost, left behind, answered otherwise or grown.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LINES = {
    "rounds": "writers started",
    "killed": "of them killed before they ended",
    "old": "left what was there before",
    "new": "left what they wrote",
    "lost": "lost: neither, or damaged",
    "leftovers": "drafts that killed writers left",
    "kept": "drafts there after a write that ended",
    "acknowledged": "changes acknowledged",
    "missing": "of them lost",
    "oldest_ms": "age of the oldest of those, ms",
    "streams": "streams opened",
    "cancelled": "of them cancelled by their clients",
    "vanished": "of them left by clients that closed the connection",
    "ended": "of them ended as they should",
    "broken": "of them lost",
    "requests": "requests",
    "tokens": "tokens",
    "rss_before": "resident memory of the server before, after a warm-up, KiB",
    "rss_after": "resident memory of the server after, KiB",
    "grown": "grown beyond the limit (1: yes)",
    "differ": "answers or exits that differ from what they should be",
}
BAD = ("lost", "kept", "missing", "broken", "grown", "differ")


@dataclass
class Count:
    """What was seen; keys as in LINES."""

    seen: dict[str, float] = field(default_factory=dict)

    def add(self, key: str, number: float = 1) -> None:
        """Count something."""
        self.seen[key] = self.seen.get(key, 0) + number

    def most(self, key: str, number: float) -> None:
        """Keep the largest number."""
        self.seen[key] = max(self.seen.get(key, 0), number)

    def failed(self) -> bool:
        """Whether anything was lost or left behind."""
        return any(self.seen.get(key, 0) for key in BAD)

    def table(self, title: str) -> str:
        """The counts as a table."""
        rows = [f"| {title} | |", "|---|---|"]
        rows += [f"| {text} | {self.seen[key]:,.0f} |" for key, text in LINES.items()
                 if key in self.seen]  # fmt: skip
        return "\n".join(rows)


def killed(work: Callable[[], object], after_s: float) -> bool:
    """Whether a fork that does `work` was killed after this time, before it ended."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"error: {error!r}\n".encode())
            os._exit(1)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("error: a writer failed")
    return os.WIFSIGNALED(status)


def duration_s(work: Callable[[], object], times: int = 5) -> float:
    """The longest of a few runs."""
    longest = 0.0
    for _ in range(times):
        start = time.monotonic()
        work()
        longest = max(longest, time.monotonic() - start)
    return longest


def writes(folder: Path, count: int, chance: random.Random) -> Count:
    """Packages that take one another's place (`write_package` with force)."""
    import numpy as np

    import spiketrain
    from spiketrain.runtime.errors import PackageError
    from spiketrain.runtime.package import read_package, write_package

    target, seen = folder / "package", Count()
    source = read_package(spiketrain.bundled_model())
    bias = next(name for name in source.tensors if name.endswith(".bias"))
    tensors = {name: np.array(array) for name, array in source.tensors.items()}

    def write(number: int) -> str:
        tensors[bias][0] = number
        return write_package(target, source.config, tensors, force=True)

    longest = duration_s(lambda: write(0))
    before = write(0)
    for number in range(1, count + 1):
        died = killed(lambda: write(number), chance.uniform(0, 1.2 * longest))  # noqa: B023
        seen.add("rounds")
        seen.add("killed", died)
        seen.add("leftovers" if died else "kept", len(set(os.listdir(folder)) - {target.name}))
        try:
            package = read_package(target)
        except PackageError as error:
            print(f"round {number}: {error}", file=sys.stderr)
            seen.add("lost")
            before = write(0)
            continue
        new = package.tensors[bias][0] == number
        seen.add("lost", not new and package.fingerprint != before)
        seen.add("new" if new else "old")
        before = package.fingerprint
    write(0)
    seen.add("kept", len(set(os.listdir(folder)) - {target.name}))
    return seen


def checkpoints(folder: Path, count: int, chance: random.Random) -> Count:
    """checkpoint.pt and log.jsonl of a training run."""
    import torch

    from spiketrain.runtime.errors import SpiketrainError
    from spiketrain.training.run_folder import RunFolder, load_tensors

    torch.set_num_threads(1)  # a fork has none of the threads of its parent
    seen, files = Count(), RunFolder(folder)
    files.cut_log(0)
    weights = torch.arange(200_000, dtype=torch.float32)

    def write(number: int) -> None:
        files.append({"chunk": number, "text": "x" * 100})
        at = {"chunk": number, "log_bytes": files.log_bytes()}
        files.save_checkpoint({"model": weights + number, "at": at})

    longest = duration_s(lambda: write(0))
    before = 0
    for number in range(1, count + 1):
        died = killed(lambda: write(number), chance.uniform(0, 1.2 * longest))  # noqa: B023
        seen.add("rounds")
        seen.add("killed", died)
        drafts = [name for name in os.listdir(folder) if name.startswith(".")]
        seen.add("leftovers" if died else "kept", len(drafts))
        try:
            content = load_tensors(folder / "checkpoint.pt", torch.device("cpu"))
            chunk = content["at"]["chunk"]
            whole = torch.equal(content["model"], weights + chunk) and chunk in (before, number)
            whole &= content["at"]["log_bytes"] <= files.log_bytes()
        except SpiketrainError as error:
            print(f"round {number}: {error}", file=sys.stderr)
            whole, chunk = False, 0
        seen.add("lost", not whole)
        seen.add("new" if chunk == number else "old")
        before = chunk
    return seen


def sessions(folder: Path, count: int, chance: random.Random, synced: bool) -> Count:
    """Sessions in LMDB: what was acknowledged before the kill must be there after it."""
    from spiketrain.serving.sessions.lmdb_store import LmdbStore

    seen, most = Count(), 64 << 20
    for number in range(count):
        reads, writes_to = os.pipe()

        def write(number: int = number, pipe: int = writes_to) -> None:
            store = LmdbStore(folder, most, synced)
            for turn in range(1 << 30):
                session, data = _session(number, turn)
                if not store.put(session, data, _etag(turn - _IDS) if turn >= _IDS else None):
                    raise SystemError("a change was refused")
                os.write(pipe, f"{turn} {time.monotonic()}\n".encode())

        died_s = time.monotonic() + (wait := chance.uniform(0.02, 0.3))
        seen.add("rounds")
        seen.add("killed", killed(write, wait))
        os.close(writes_to)
        with os.fdopen(reads) as pipe:
            lines = [line.split() for line in pipe.read().splitlines()]
        seen.add("acknowledged", len(lines))
        seen.add("missing", 0)
        for turn, when in _missing(LmdbStore(folder, most, synced), number, lines):
            seen.add("missing")
            seen.most("oldest_ms", 1e3 * (died_s - when))
            print(f"round {number}: change {turn} is lost", file=sys.stderr)
    return seen


_IDS = 8  # sessions that a writer changes in turn


def _etag(turn: int) -> str:
    return f"etag-{turn % _IDS}-{turn // _IDS}"


def _session(number: int, turn: int):
    """The session that is changed in this turn of a writer, and its snapshot."""
    from spiketrain.serving.sessions.session import Session, Snapshot

    data = f"{number}-{turn}-".encode() * 500
    head = Snapshot(f"snapshot-{number}-{turn}", turn, len(data))
    session = Session(
        id=f"session-{number}-{turn % _IDS}", etag=_etag(turn), seed=turn, head=head, ttl_s=1e6,
        created_s=0.0, changed_s=0.0, expires_s=1e12,
    )  # fmt: skip
    return session, {head.key: data}


def _missing(store, number: int, lines: list[list[str]]):
    """(turn, time) of each acknowledged change that is not there; the sessions are deleted."""
    try:
        found = {}
        for place in range(_IDS):
            session = store.get(f"session-{number}-{place}")
            if session is not None:
                _, data = _session(number, session.seed)
                if store.load(session.head.key) == data[session.head.key]:
                    found[place] = session.seed
        lost = [(int(turn), float(when)) for turn, when in lines
                if found.get(int(turn) % _IDS, -1) < int(turn)]  # fmt: skip
        for place in range(_IDS):
            store.delete(f"session-{number}-{place}")
        return lost
    finally:
        store.close()


def load(flags: argparse.Namespace, chance: random.Random) -> Count:
    """What is done to a server that runs beside."""
    import chaos_load

    seen = Count()
    if flags.what == "endurance":
        work = chaos_load.endurance(seen, flags.requests, flags.tokens, flags.most_percent)
    else:
        work = getattr(chaos_load, flags.what)(seen, flags.count, chance)
    asyncio.run(work)
    return seen


def killed_writers(flags: argparse.Namespace, chance: random.Random) -> Count:
    """What is done to writers."""
    with tempfile.TemporaryDirectory(dir=flags.folder) as name:
        if flags.what == "sessions":
            return sessions(Path(name), flags.count, chance, not flags.unsynced)
        work = {"writes": writes, "checkpoints": checkpoints}[flags.what]
        return work(Path(name), flags.count, chance)


WRITERS = ("writes", "checkpoints", "sessions")
LOADS = ("cancels", "slow", "sigterm", "endurance")


def main() -> None:
    """Run what was asked for and exit by its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=WRITERS + LOADS)
    parser.add_argument("--count", type=int, default=None, help="writers to kill; streams; 1000")
    parser.add_argument("--seed", type=int, default=None, help="of the random times")
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary one")
    parser.add_argument("--unsynced", action="store_true", help="sessions: no --session-sync")
    parser.add_argument("--requests", type=int, default=100_000, help="endurance: calls")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="endurance: tokens of all")
    parser.add_argument("--most-percent", type=float, default=1.0, help="endurance: growth")
    flags = parser.parse_args()
    flags.count = flags.count or {"slow": 100, "sigterm": 32}.get(flags.what, 1000)
    run, title = (killed_writers, "kill -9") if flags.what in WRITERS else (load, "server")
    seen = run(flags, random.Random(flags.seed))
    print(seen.table(f"{title}, {flags.what}"))
    sys.exit(1 if seen.failed() else 0)


if __name__ == "__main__":
    main()

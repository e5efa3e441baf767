"""What sessions cost: memory of idle ones, and time to fork, save, restore and go on.

    python benchmarks/sessions.py [MODEL] [--sessions 10000] [--json]

In one process, without gRPC. Memory is the growth of the resident set over sessions that have each
read a prompt of their own; the target is 1.1 times state, last logits and sampler state, and 4 KB.
"Save, restore and go on" is export, import and one more token; its logits are compared, bit for
bit, with those of the session that went on without it. Times are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import spiketrain
from spiketrain import runtime
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.starting_point import Start, latest
from spiketrain.serving.sessions.sessions import Sessions
from spiketrain.serving.sessions.store import MemoryStore, SessionStore

PROMPT_TOKENS = 16
BUDGET = 1 << 40


def read(model: Any, start: Start, tokens: list[int]) -> Start:
    """Go on from where a sequence is."""
    logits = model.forward(start.state, tokens, last_only=True)
    return Start(start.state, logits, latest(start.recent_ids, tuple(tokens)))


def fill(model: Any, sessions: Sessions, count: int) -> list[str]:
    """Sessions with a prompt of random tokens each."""
    rng = np.random.default_rng(1)
    names = []
    for _ in range(count):
        session, start = sessions.open(sessions.create().id)
        tokens = rng.integers(0, model.vocab_size, PROMPT_TOKENS).tolist()
        names.append(sessions.commit(session, read(model, start, tokens)).id)
    return names


def milliseconds(work: Callable[[], Any], times: int) -> float:
    """Median time of a piece of work."""
    taken = []
    for _ in range(times):
        started_s = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - started_s))
    return statistics.median(taken)


def measure_store(model: Any, store: SessionStore, count: int, times: int) -> dict[str, Any]:
    """Everything that is reported of one store."""
    sessions = Sessions(model, store, ServingConfig(session_bytes=BUDGET))
    fill(model, sessions, 50)  # fills the model's tables
    process = psutil.Process()
    before = process.memory_info().rss
    names = fill(model, sessions, count)
    grown = process.memory_info().rss - before

    def move() -> Start:
        restored = sessions.import_(sessions.export(names[0]))
        return read(model, sessions.open(restored.id)[1], [1])

    expected = read(model, sessions.open(names[0])[1], [1])
    moved = move()
    same = moved.logits.tobytes() == expected.logits.tobytes()
    sampler = 8 + 4 * PROMPT_TOKENS
    result = {
        "sessions": count,
        "bytes_per_session": grown / count,
        "target_bytes": 1.1 * (model.state_nbytes + 4 * model.vocab_size + sampler) + 4096,
        "fork_ms": milliseconds(lambda: sessions.fork(names[1]), times),
        "checkpoint_ms": milliseconds(lambda: sessions.checkpoint(names[2], "here"), times),
        "save_restore_go_on_ms": milliseconds(move, times),
        "bitwise_equal": same and moved.state.to_bytes() == expected.state.to_bytes(),
    }
    sessions.close()
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What sessions cost.")
    parser.add_argument("model", nargs="?", type=Path, help="package; without it the bundled one")
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=200, help="repetitions of what is timed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    model = runtime.load_model(options.model or spiketrain.bundled_model())
    result = {"memory": measure_store(model, MemoryStore(BUDGET), options.sessions, options.times)}
    try:
        import lmdb  # noqa: F401

        from spiketrain.serving.sessions.lmdb_store import LmdbStore
    except ImportError:
        pass
    else:
        for name, synced in (("disk", False), ("disk, synced", True)):
            with tempfile.TemporaryDirectory() as folder:
                store = LmdbStore(Path(folder), 1 << 30, synced)
                few, times = options.sessions // 100, options.times
                if synced:  # most of the time is the disk's
                    few, times = max(few // 10, 3), max(times // 10, 3)
                result[name] = measure_store(model, store, few, times)
    if options.json:
        print(json.dumps(result))
        return
    print("| store | sessions | bytes each (target) | fork | checkpoint | save, restore, go on |")
    print("|---|---|---|---|---|---|")
    for name, row in result.items():
        each = f"{row['bytes_per_session']:,.0f} ({row['target_bytes']:,.0f})"
        same = "bitwise equal" if row["bitwise_equal"] else "DIFFERENT"
        print(
            f"| {name} | {row['sessions']:,} | {each if name == 'memory' else 'on disk'} "
            f"| {row['fork_ms']:.2f} ms | {row['checkpoint_ms']:.2f} ms "
            f"| {row['save_restore_go_on_ms']:.2f} ms, {same} |"
        )


if __name__ == "__main__":
    main()

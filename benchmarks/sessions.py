"""What sessions cost: memory of idle ones, and time to fork, save, restore and go on.

    python benchmarks/sessions.py [MODEL] [--sessions 10000] [--json FILE]

In one process, without gRPC. Memory is the growth of the resident set over sessions that have each
read a prompt of their own; the target is 1.1 times state, last logits and sampler state, and 4 KB.
"Save, restore and go on" is export, import and one more token; its logits are compared, bit for
bit, with those of the session that went on without it. The three take turns, --rounds times.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from harness import Report, in_turns, parser, timed

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


def measure_store(
    report: Report, model: Any, name: str, store: SessionStore, count: int, rounds: int
) -> None:
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
    same = same and moved.state.to_bytes() == expected.state.to_bytes()
    turns = in_turns(
        {
            "fork": lambda: timed(lambda: sessions.fork(names[1])),
            "checkpoint": lambda: timed(lambda: sessions.checkpoint(names[2], "here")),
            "save, restore, go on": lambda: timed(move),
        },
        rounds,
    )
    sampler = 8 + 4 * PROMPT_TOKENS
    facts = {
        "sessions": count,
        "bytes_per_session": grown / count,
        "target_bytes": 1.1 * (model.state_nbytes + 4 * model.vocab_size + sampler) + 4096,
        "bitwise_equal": same,
    }
    columns = {"result": {"save, restore, go on": "bitwise equal" if same else "DIFFERENT"}}
    report.turns(title(name, facts), "call", turns, columns, facts, compare=False)
    sessions.close()


def title(store: str, facts: dict[str, Any]) -> str:
    """The store, how many sessions it has and, of memory, what each takes."""
    sessions = f"{store}, {facts['sessions']:,} sessions"
    if store != "memory":
        return sessions
    return f"{sessions} of {facts['bytes_per_session']:,.0f} bytes ({facts['target_bytes']:,.0f})"


def measure_disk(report: Report, model: Any, sessions: int, rounds: int) -> None:
    """The same of the store on disk, if LMDB is installed, and of one that waits for the disk."""
    try:
        import lmdb  # noqa: F401
    except ImportError:
        return
    from spiketrain.serving.sessions.lmdb_store import LmdbStore

    for name, synced, share in (("disk", False, 1), ("disk, synced", True, 10)):
        with tempfile.TemporaryDirectory() as folder:
            store = LmdbStore(Path(folder), 1 << 30, synced)
            few = max(sessions // 100 // share, 3)
            measure_store(report, model, name, store, few, max(rounds // share, 3))


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    shared = parser(__doc__, rounds=200)
    shared.add_argument("model", nargs="?", type=Path, help="package; without it the bundled one")
    shared.add_argument("--sessions", type=int, default=10_000)
    options = shared.parse_args(arguments)
    report = Report(options)
    model = runtime.load_model(options.model or spiketrain.bundled_model())
    store = MemoryStore(BUDGET)
    measure_store(report, model, "memory", store, options.sessions, options.rounds)
    measure_disk(report, model, options.sessions, options.rounds)
    report.finish()


if __name__ == "__main__":
    main()

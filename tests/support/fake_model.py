"""A model with the runtime's surface that writes a given text, for tests of the engine.

After any prompt it writes `text` byte by byte, then the end of text; the tokenizer is bytes. Steps
can be held back one by one, watched, and made to fail.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

END_OF_TEXT = 256
VOCAB_SIZE = 257
PATIENCE_S = 120.0  # no test takes long, but a busy machine may


class ByteTokenizer:
    """Token = byte; the end of text has no bytes."""

    strips_blank = False
    vocab_size = VOCAB_SIZE

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def piece_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < END_OF_TEXT else b""

    def decode(self, ids: Sequence[int], continues: bool = False) -> str:
        return b"".join(map(self.piece_bytes, ids)).decode(errors="replace")


@dataclass
class FakeState:
    """Position in the sequence and in the text to write."""

    position: int = 0
    written: int = 0
    neurons: int = 0
    events: int = 0
    weight_bytes: int = 0

    nbytes = 8
    dial = 1.0

    def copy(self) -> FakeState:
        return replace(self)

    def check(self) -> None:
        """All is well."""

    def to_bytes(self) -> bytes:
        return struct.pack("<II", self.position, self.written)

    def read(self, tokens: int) -> None:
        self.position += tokens
        self.neurons += 10 * tokens
        self.events += 2 * tokens
        self.weight_bytes += 100 * tokens


@dataclass
class FakeModel:
    """Writes `text`; `gate` (if any) is taken once before each step and each forward."""

    text: bytes = b"hello world"
    gate: threading.Semaphore | None = None
    tokenizer: Any = field(default_factory=ByteTokenizer)
    generation_config: dict[str, Any] = field(default_factory=lambda: {"temperature": 0.0})
    failures: list[Exception] = field(default_factory=list)
    calls: list[tuple[str, int]] = field(default_factory=list)
    called: threading.Condition = field(default_factory=threading.Condition)
    strict: bool = True  # whether a token other than the one it wants is an error

    vocab_size = VOCAB_SIZE
    eos_token_ids = (END_OF_TEXT,)
    state_nbytes = 8
    dial = max_dial = 1.0
    fingerprint = "sha256:fake"
    config: Any = field(default_factory=lambda: {"model_type": "egru"})

    def new_state(self, dial: float | None = None) -> FakeState:
        assert dial in (None, 1.0)
        return FakeState()

    def state_from_bytes(self, blob: bytes) -> FakeState:
        return FakeState(*struct.unpack("<II", blob))

    def forward(
        self, state: FakeState, tokens: Sequence[int], last_only: bool, cancelled: np.ndarray
    ) -> np.ndarray:
        assert last_only
        self._called("forward", len(tokens))
        state.read(len(tokens))
        return self._logits(state)

    def step(self, states: Sequence[FakeState], tokens: Sequence[int]) -> np.ndarray:
        assert len(states) == len(tokens)
        self._called("step", len(states))
        for state, token in zip(states, tokens, strict=True):
            wanted = token == self._next(state)
            assert wanted or not self.strict, "a token was lost or repeated"
            state.read(1)
            state.written += 1
        return np.stack([self._logits(state) for state in states])

    def activity(self) -> SimpleNamespace:
        steps = sum(size for kind, size in self.calls if kind == "step")
        return SimpleNamespace(
            tokens=steps,
            neurons=10 * steps,
            events=2 * steps,
            weight_bytes_touched=100 * steps,
            weight_bytes_dense=500 * steps,
            macs_effective=3 * steps,
            acs_effective=5 * steps,
        )

    def wait_for(self, count: int, kind: str = "step") -> None:
        """Wait until that many calls of a kind have begun."""
        with self.called:
            begun = lambda: sum(k == kind for k, _ in self.calls) >= count  # noqa: E731
            assert self.called.wait_for(begun, PATIENCE_S), self.calls

    def _next(self, state: FakeState) -> int:
        return self.text[state.written] if state.written < len(self.text) else END_OF_TEXT

    def _logits(self, state: FakeState) -> np.ndarray:
        logits = np.zeros(VOCAB_SIZE, np.float32)
        logits[self._next(state)] = 9.0
        return logits

    def _called(self, kind: str, size: int) -> None:
        with self.called:
            self.calls.append((kind, size))
            self.called.notify_all()
        if self.gate is not None:
            assert self.gate.acquire(timeout=PATIENCE_S)
        if self.failures:
            raise self.failures.pop()

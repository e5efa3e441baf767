"""A model with the runtime's surface that writes a given text, for tests of the engine.

After any prompt it writes `text` byte by byte, then the end of text; the tokenizer is bytes. Steps
can be held back one by one, watched, and made to fail.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.activity import Activity, LayerActivity
from spiketrain.runtime.state import Layout, State

if TYPE_CHECKING:
    from spiketrain.runtime.model import Model as RuntimeModel
    from spiketrain.serving.model import Model, Tokenizer

END_OF_TEXT = 256
VOCAB_SIZE = 257
FINGERPRINT = "sha256:fake"
LAYOUT = Layout("fake", FINGERPRINT, nbytes=8, arrays=())
PATIENCE_S = 120.0  # no test takes long, but a busy machine may


class ByteTokenizer:
    """Token = byte; the end of text has no bytes."""

    strips_blank = False
    vocab_size = VOCAB_SIZE

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def piece_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < END_OF_TEXT else b""

    def decode(self, ids: Iterable[int], continues: bool = False) -> str:
        return b"".join(map(self.piece_bytes, ids)).decode(errors="replace")


class FakeState(State):
    """Position in the sequence and in the text to write."""

    def __init__(self, position: int = 0, written: int = 0) -> None:
        super().__init__(LAYOUT)
        self.position = position
        self.written = written

    def copy(self) -> FakeState:
        twin = FakeState(self.position, self.written)
        twin.neurons, twin.events = self.neurons, self.events
        twin.weight_bytes = self.weight_bytes
        return twin

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
    tokenizer: Tokenizer | None = field(default_factory=ByteTokenizer)
    generation_config: dict[str, Any] = field(default_factory=lambda: {"temperature": 0.0})
    failures: list[Exception] = field(default_factory=list)
    calls: list[tuple[str, int]] = field(default_factory=list)
    called: threading.Condition = field(default_factory=threading.Condition)
    strict: bool = True  # whether a token other than the one it wants is an error

    vocab_size = VOCAB_SIZE
    eos_token_ids = (END_OF_TEXT,)
    state_nbytes = LAYOUT.nbytes
    dial = max_dial = 1.0
    fingerprint = FINGERPRINT
    config: Any = field(default_factory=lambda: {"model_type": "egru"})

    def new_state(self, dial: float | None = None) -> FakeState:
        assert dial in (None, 1.0)
        return FakeState()

    def set_dial(self, state: State, dial: float) -> None:
        assert dial == 1.0

    def state_from_bytes(self, blob: bytes) -> FakeState:
        return FakeState(*struct.unpack("<II", blob))

    def forward(
        self,
        state: State,
        token_ids: Sequence[int],
        last_only: bool = False,
        cancelled: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.float32]:
        assert last_only
        assert isinstance(state, FakeState)
        self._called("forward", len(token_ids))
        state.read(len(token_ids))
        return self._logits(state)

    def step(self, states: Sequence[State], token_ids: Sequence[int]) -> NDArray[np.float32]:
        assert len(states) == len(token_ids)
        self._called("step", len(states))
        return np.stack([self._stepped(*pair) for pair in zip(states, token_ids, strict=True)])

    def _stepped(self, state: State, token: int) -> NDArray[np.float32]:
        """Logits (V,) once a state has read a token."""
        assert isinstance(state, FakeState)
        expected = token == self._next(state)
        assert expected or not self.strict, "a token was lost or repeated"
        state.read(1)
        state.written += 1
        return self._logits(state)

    def activity(self) -> Activity:
        steps = sum(size for kind, size in self.calls if kind == "step")
        layer = LayerActivity(
            "fake",
            neurons=10 * steps,
            events=2 * steps,
            weight_bytes_touched=100 * steps,
            weight_bytes_dense=500 * steps,
            macs_effective=3 * steps,
            acs_effective=5 * steps,
        )
        return Activity(steps, (layer,), ())

    def wait_for(self, count: int, kind: str = "step") -> None:
        """Wait until that many calls of a kind have begun."""
        with self.called:
            begun = lambda: sum(k == kind for k, _ in self.calls) >= count  # noqa: E731
            assert self.called.wait_for(begun, PATIENCE_S), self.calls

    def _next(self, state: FakeState) -> int:
        return self.text[state.written] if state.written < len(self.text) else END_OF_TEXT

    def _logits(self, state: FakeState) -> NDArray[np.float32]:
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


if TYPE_CHECKING:  # a type checker refuses either where it is no Model

    def _as_served(fake: FakeModel, real: RuntimeModel) -> tuple[Model, Model]:
        return fake, real

"""Job: one sequence under way in the engine, whatever is wanted of it.

The engine's thread alone reads tokens; what the reader shares (`close`, `due`) is called under the
engine's lock.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from math import inf

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.state import State
from spiketrain.serving.engine.scheduler import Chunk
from spiketrain.serving.engine.starting_point import Start, Turn, latest
from spiketrain.serving.errors import ServingError
from spiketrain.serving.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a sequence has before its prompt is read.

    start: None for nothing. skipped: tokens of the prompt that `start` has read. marks: lengths of
    the prompt after which the state is worth keeping, and its keys. turn: of a session. dial: of a
    state that is yet to be made; None for the model's.
    """

    start: Start | None = None
    skipped: int = 0
    marks: Mapping[int, bytes] = field(default_factory=dict)
    turn: Turn | None = None
    dial: float | None = None


class Wake(IntEnum):
    """How soon a reader has to hear."""

    NOT = 0
    SOON = 1
    NOW = 2


class Job:
    """Tokens to read, the recurrent state that reads them, and how it ended.

    `ready`, an event of the reader's `loop`, is set when there is something to take. `end` is a
    ServingError or what the reader waits for.
    """

    def __init__(
        self,
        prompt_ids: tuple[int, ...],
        origin: Origin,
        arrived_s: float,
        loop: asyncio.AbstractEventLoop,
        timeout_s: float | None,
    ) -> None:
        self.prompt_ids = prompt_ids
        self.origin = origin
        self.turn = origin.turn
        self.timeout_s = timeout_s
        self.loop = loop
        self.ready = asyncio.Event()
        start = origin.start
        self._state: State | None = None if start is None else start.state
        self.logits: NDArray[np.float32] | None = None if start is None else start.logits
        self.read_before = 0 if start is None else start.state.position
        self.done = False  # everything was read, and `turn` has its end
        self.end: object | None = None
        self.giving_up: ServingError | None = None  # ends a turn once its last token is read
        self.cancelled = np.zeros(1, np.uint8)  # the model looks at it while it reads
        self.paused = False  # as the scheduler has it
        self.arrived_s = self.admitted_s = arrived_s
        self.taken_s = -inf  # when the reader last took, by time.monotonic
        self._woken = Wake.NOT

    @property
    def state(self) -> State:
        """What reads the tokens; there from the start or from `begin` on."""
        assert self._state is not None
        return self._state

    @property
    def has_state(self) -> bool:
        """Whether a state is there."""
        return self._state is not None

    def begin(self, model: Model) -> None:
        """Have a state: that of the origin, else a new one of the model."""
        if self._state is None:
            self._state = model.new_state(self.origin.dial)

    @property
    def first_position(self) -> int:
        """Index of the prompt's first token in its sequence."""
        return self.read_before - self.origin.skipped

    @property
    def recent_ids(self) -> tuple[int, ...]:
        """The latest tokens, those of the prompt included."""
        start = self.origin.start
        return latest(start.recent_ids if start else (), self.prompt_ids)

    @property
    def urgent(self) -> bool:
        """Whether the reader must hear at once."""
        return self.end is not None

    @property
    def expires_s(self) -> float:
        """When its time is over; infinity for never."""
        return inf if self.timeout_s is None else self.arrived_s + self.timeout_s

    @property
    def leaving(self) -> bool:
        """Whether it only waits for a turn to read its last token."""
        return False

    @property
    def can_leave(self) -> bool:
        """Whether a turn can be left where it is, once its last token is read."""
        return False

    @property
    def can_be_kept(self) -> bool:
        """Whether a turn that is given up now leaves something."""
        return False

    def out_of_time(self) -> bool:
        """Whether it ends well though its time is over, because that was asked for."""
        return False

    def read(self, model: Model, chunk: Chunk["Job"]) -> None:
        """Have the model read a chunk of the prompt, which sets `logits`."""
        tokens = self.prompt_ids[chunk.start : chunk.stop]
        self.logits = model.forward(self.state, tokens, last_only=True, cancelled=self.cancelled)

    def leave(self) -> None:
        """Nothing more will be read: hand the state over to the turn."""
        self.done = True
        if self.turn is not None:
            self.turn.end = Start(self.state, self.logits, self.recent_ids)

    def close(self, end: object) -> None:
        """Say how it ended: the first word is the last."""
        if self.end is None:
            self.end = end
            self.cancelled[0] = 1

    def due(self) -> bool:
        """Whether to wake the reader: once for what is new, once more when it turns urgent."""
        urgency = Wake.NOW if self.urgent else Wake.SOON
        if self._woken >= urgency:
            return False
        self._woken = urgency
        return True

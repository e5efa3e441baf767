"""Choose the next batch. No clock, thread, array or socket: keys in, a Batch out.

A sequence waits in a bounded queue, gets a slot, has its prompt read in chunks, then decodes one
token a batch until it is removed. Chunks are small while others decode, so that a long prompt
never holds up running streams for longer than one chunk.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, TypeVar

from spiketrain.serving.errors import QueueFull

Key = TypeVar("Key", bound=Hashable)
_MOST = 2**31


@dataclass(frozen=True, slots=True)
class Chunk(Generic[Key]):
    """Prompt tokens [start, stop) of one sequence; `last` when they complete the prompt."""

    key: Key
    start: int
    stop: int
    last: bool = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Batch(Generic[Key]):
    """What to run next: sequences that just got a slot, prompt chunks, sequences to decode."""

    admitted: tuple[Key, ...]
    chunks: tuple[Chunk[Key], ...]
    decode: tuple[Key, ...]

    def __bool__(self) -> bool:
        return bool(self.chunks or self.decode)


class Phase(Enum):
    """Where a sequence is in its life."""

    WAITING = auto()
    PREFILL = auto()
    DECODE = auto()


@dataclass(slots=True, kw_only=True)
class Sequence(Generic[Key]):
    """A sequence as the policy sees it: a length, a position in it, and a phase."""

    key: Key
    prompt_tokens: int
    marks: tuple[int, ...] = ()  # positions at which a chunk ends, ascending
    phase: Phase = Phase.WAITING
    position: int = 0
    paused: bool = False


class Scheduler(Generic[Key]):
    """First come, first served, with prompts interleaved chunk by chunk.

    max_batch_size: slots. max_queue: sequences that may wait beyond them. prefill_chunk: most
    prompt tokens in a batch that also decodes; prefill_chunk_idle: in one that does not.
    """

    def __init__(
        self, max_batch_size: int, max_queue: int, prefill_chunk: int, prefill_chunk_idle: int
    ) -> None:
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._prefill_chunk = prefill_chunk
        self._prefill_chunk_idle = prefill_chunk_idle
        self._sequences: dict[Key, Sequence[Key]] = {}
        self._waiting: deque[Key] = deque()
        self._prefill: deque[Key] = deque()
        self._decode: dict[Key, None] = {}

    @property
    def num_waiting(self) -> int:
        """Sequences without a slot."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Slots in use."""
        return len(self._prefill) + len(self._decode)

    def __contains__(self, key: Key) -> bool:
        return key in self._sequences

    def sequences(self) -> tuple[Key, ...]:
        """Every sequence, waiting or running, in order of arrival."""
        return tuple(self._sequences)

    def check_room(self) -> None:
        """Raise QueueFull when neither a slot nor a place is left."""
        free_slots = self._max_batch_size - self.num_running
        if len(self._waiting) >= self._max_queue + free_slots:
            raise QueueFull(self._max_queue)

    def submit(
        self, key: Key, prompt_tokens: int, position: int = 0, marks: tuple[int, ...] = ()
    ) -> None:
        """Queue a sequence. Raises QueueFull as `check_room` does.

        position: prompt tokens that need not be read. marks: positions, ascending, at which a
        chunk ends.
        """
        self.check_room()
        self._sequences[key] = Sequence(
            key=key, prompt_tokens=prompt_tokens, marks=marks, position=position
        )
        self._waiting.append(key)

    def next_batch(self, most_while_decoding: int = _MOST, most_idle: int = _MOST) -> Batch[Key]:
        """Give free slots away, then choose the chunks to read and the sequences to decode.

        most_while_decoding, most_idle: prompt tokens that may be read now, below the limits that
        hold always.
        """
        admitted = self._admit()
        decode = tuple(key for key in self._decode if not self._sequences[key].paused)
        budget = min(self._prefill_chunk_idle, most_idle)
        if decode:
            budget = min(self._prefill_chunk, most_while_decoding)
        return Batch(admitted, self._chunks(budget), decode)

    def commit(self, batch: Batch[Key]) -> None:
        """Record that a batch ran. Sequences removed meanwhile are passed over."""
        for chunk in batch.chunks:
            sequence = self._sequences.get(chunk.key)
            if sequence is None:
                continue
            sequence.position = chunk.stop
            self._prefill.remove(chunk.key)
            if chunk.last:
                sequence.phase = Phase.DECODE
                self._decode[chunk.key] = None
            else:
                self._prefill.append(chunk.key)  # behind the others: prompts take turns

    def pause(self, key: Key) -> None:
        """Leave a decoding sequence out of batches, slot kept, until `resume`."""
        self._sequences[key].paused = True

    def resume(self, key: Key) -> None:
        """Undo `pause`; nothing happens to a sequence that is gone or not paused."""
        sequence = self._sequences.get(key)
        if sequence is not None:
            sequence.paused = False

    def remove(self, key: Key) -> bool:
        """Forget a sequence in any phase and free its slot; False if it was not there."""
        sequence = self._sequences.pop(key, None)
        if sequence is None:
            return False
        if sequence.phase is Phase.WAITING:
            self._waiting.remove(key)
        elif sequence.phase is Phase.PREFILL:
            self._prefill.remove(key)
        else:
            del self._decode[key]
        return True

    def _admit(self) -> tuple[Key, ...]:
        admitted: list[Key] = []
        while self._waiting and self.num_running < self._max_batch_size:
            key = self._waiting.popleft()
            self._sequences[key].phase = Phase.PREFILL
            self._prefill.append(key)
            admitted.append(key)
        return tuple(admitted)

    def _chunks(self, budget: int) -> tuple[Chunk[Key], ...]:
        chunks: list[Chunk[Key]] = []
        for key in self._prefill:
            if budget == 0:
                break
            sequence = self._sequences[key]
            stop = min(sequence.position + budget, sequence.prompt_tokens)
            stop = next((mark for mark in sequence.marks if sequence.position < mark < stop), stop)
            chunks.append(Chunk(key, sequence.position, stop, last=stop == sequence.prompt_tokens))
            budget -= stop - sequence.position
        return tuple(chunks)

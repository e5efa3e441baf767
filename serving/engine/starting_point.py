"""Start: where a sequence begins or was left. Turn: a session, while the engine has it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.state import State

MAX_RECENT_IDS = 1024  # the longest window of a penalty


@dataclass(frozen=True, slots=True)
class Start:
    """A state that nobody else uses, and what sampling needs beside it.

    logits: (V,) float32 after the last token that the state has read; None where it has read none.
    recent_ids: the latest of these tokens, at most MAX_RECENT_IDS, oldest first.
    """

    state: State
    logits: NDArray[np.float32] | None = None
    recent_ids: tuple[int, ...] = ()


@dataclass(slots=True, kw_only=True)
class Turn:
    """A sequence that outlives its completion.

    keep_cancelled: whether a completion that is cancelled once it has a token leaves an `end`.
    end: set by the engine before the completion ends, at a token boundary: all tokens of prompt
    and completion are read. None where the completion failed or was discarded.
    refused: whether nothing may be kept, since it failed or there was no room for all of it.
    over: whether the session is free for another turn.
    """

    start: Start = field(kw_only=False)
    keep_cancelled: bool = False
    end: Start | None = None
    refused: bool = False
    over: bool = False


def latest(*runs: tuple[int, ...]) -> tuple[int, ...]:
    """The last MAX_RECENT_IDS of tokens that follow one another."""
    kept: tuple[int, ...] = ()
    for run in runs:
        kept = (kept + run[-MAX_RECENT_IDS:])[-MAX_RECENT_IDS:]
    return kept

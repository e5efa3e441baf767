"""PrefixCache: states after the beginnings of prompts, so that the next prompt need not read them.

A state is kept under a hash of the tokens it has read, its dial and the salt of the request. It is
the state that reading these tokens would give, to the last bit, so results do not depend on the
cache. The least recently used states make room for new ones. Calls come from any thread.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spiketrain.runtime.dial import NO_DIAL
from spiketrain.runtime.state import State

BLOCK_TOKENS = 64  # states are kept after multiples of this
SPARSE_TOKENS = 512  # beyond so many tokens, after multiples of this and at the end
ENTRY_BYTES = 512  # of an entry beside its state


def worth_keeping(keys: Mapping[int, bytes]) -> dict[int, bytes]:
    """Of all beginnings of a prompt those to keep: the longest, and fewer the longer they are."""
    longest = max(keys, default=0)
    return {
        length: key
        for length, key in keys.items()
        if length <= SPARSE_TOKENS or length % SPARSE_TOKENS == 0 or length == longest
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Counts since the start: lookups that found a state or none, tokens not read, states gone."""

    hits: int
    misses: int
    reused_tokens: int
    evictions: int
    entries: int
    nbytes: int


class PrefixCache:
    """At most `max_bytes` of states, 0 for none at all. fingerprint: of their model."""

    def __init__(self, max_bytes: int, fingerprint: str) -> None:
        self._max_bytes = max_bytes
        self._fingerprint = fingerprint.encode()
        self._states: OrderedDict[bytes, State] = OrderedDict()  # the latest last
        self._nbytes = self._hits = self._misses = self._reused = self._evictions = 0
        self._lock = threading.Lock()

    def keys(self, prompt_ids: Sequence[int], salt: str, dial: float = NO_DIAL) -> dict[int, bytes]:
        """Lengths of a prompt's beginnings at which a state may be kept, shortest first: its keys.

        The last token is in none of them: it is read for its logits.
        """
        if not self._max_bytes:
            return {}
        encoded = salt.encode()
        digest = hashlib.sha256(len(encoded).to_bytes(8, "little") + encoded + self._fingerprint)
        digest.update(np.asarray(dial, "<f4").tobytes())
        whole = (len(prompt_ids) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        data = memoryview(np.asarray(prompt_ids[:whole], "<u4").tobytes())
        keys = {}
        for length in range(BLOCK_TOKENS, whole + 1, BLOCK_TOKENS):
            digest.update(data[4 * (length - BLOCK_TOKENS) : 4 * length])
            keys[length] = digest.digest()
        return keys

    def find(self, keys: dict[int, bytes]) -> tuple[int, State | None]:
        """The longest beginning that is kept and a copy of its state; 0 and None without one."""
        with self._lock:
            for length in reversed(keys):
                state = self._states.get(keys[length])
                if state is not None:
                    self._states.move_to_end(keys[length])
                    self._hits += 1
                    self._reused += length
                    return length, state.copy()
            self._misses += bool(keys)
        return 0, None

    def keep(self, key: bytes, state: State) -> None:
        """Keep a copy of a state, if there is room for one at all."""
        size = state.nbytes + ENTRY_BYTES
        with self._lock:
            if size > self._max_bytes or key in self._states:
                return
            self._states[key] = state.copy()
            self._nbytes += size
            while self._nbytes > self._max_bytes:
                _, oldest = self._states.popitem(last=False)
                self._nbytes -= oldest.nbytes + ENTRY_BYTES
                self._evictions += 1

    def statistics(self) -> Statistics:
        """Counts so far."""
        with self._lock:
            return Statistics(
                hits=self._hits,
                misses=self._misses,
                reused_tokens=self._reused,
                evictions=self._evictions,
                entries=len(self._states),
                nbytes=self._nbytes,
            )

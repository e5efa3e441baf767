"""A loaded model: tokens in, logits out, one state for each sequence.

Whatever the family, results for a sequence depend on the package, its state and its tokens alone:
not on threads, on the batch it shares, or on how its tokens are cut into calls.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.activity import Activity, layer_activities
from spiketrain.runtime.compiled import CompiledModel
from spiketrain.runtime.dial import NO_DIAL, checked_dial
from spiketrain.runtime.errors import CallCancelled, PackageError, SpiketrainError
from spiketrain.runtime.family import Spec, load_family
from spiketrain.runtime.package import (
    TENSOR_FILE,
    Package,
    check_content,
    check_fingerprint,
    open_package,
)
from spiketrain.runtime.state import MAX_POSITION, Layout, State, state_from_bytes

MAX_THREADS = 256
DEFAULT_TABLE_BYTES = 1 << 30


def load_model(
    path: str | os.PathLike[str],
    threads: int = 1,
    table_bytes: int = DEFAULT_TABLE_BYTES,
    dial: float = NO_DIAL,
) -> Model:
    """The model of the package at `path`; PackageError when it is not a good package.

    threads: how many the model computes with. table_bytes: most memory for the first layer's
    products by token, which are otherwise computed anew for each token. dial: that of new states
    where none is given; RequestError outside the package's range.
    """
    _check_whole("threads", threads, 1, MAX_THREADS)
    _check_whole("table_bytes", table_bytes, 0, 1 << 62)
    package = open_package(path)
    with ThreadPoolExecutor(1, thread_name_prefix="spiketrain-fingerprint") as beside:
        checked = beside.submit(check_fingerprint, package)
        try:
            check_content(package)
            return Model(package, threads, table_bytes, dial)
        finally:
            checked.result()  # its error comes before those of a content that is not the package's


class Model:
    """A package ready to run. Calls from several threads wait for one another."""

    def __init__(
        self, package: Package, threads: int, table_bytes: int, dial: float = NO_DIAL
    ) -> None:
        spec = package.spec
        self.path: Path = package.path
        self.config: dict[str, Any] = package.config
        self.generation_config: dict[str, Any] = package.generation_config
        self.eos_token_ids: tuple[int, ...] = package.eos_token_ids
        self.fingerprint: str = package.fingerprint
        self.vocab_size: int = spec.vocab_size
        self.state_nbytes: int = spec.state_nbytes
        self.max_dial: float = spec.max_dial
        self.dial = checked_dial(dial, self.max_dial)
        self.records: dict[str, int] = spec.recorded  # places and their units
        self.event_rows: tuple[int, ...] = spec.event_rows
        self.threads = threads
        self.tokenizer = _load_tokenizer(package)
        self.spec: Spec = spec
        self._layout = Layout(
            package.family,
            package.fingerprint,
            spec.state_nbytes,
            spec.state_arrays(package.tensors),
            spec.check_state,
        )
        self._network = _network(package, threads, table_bytes)
        self._lock = threading.Lock()
        self._tokens = 0
        _models.add(self)

    def new_state(self, dial: float | None = None) -> State:
        """The state before the first token; RequestError for a dial outside [1, max_dial]."""
        state = State(self._layout)
        self.set_dial(state, self.dial if dial is None else dial)
        return state

    def set_dial(self, state: State, dial: float) -> None:
        """Have a state read further tokens at another dial; RequestError outside [1, max_dial]."""
        valid_dial = checked_dial(dial, self.max_dial)
        if self.max_dial > NO_DIAL:
            state.arrays()["dial"][0] = valid_dial

    def state_from_bytes(self, blob: bytes | bytearray | memoryview) -> State:
        """The state that `to_bytes` stored; StateError when it is damaged or not of this model."""
        return state_from_bytes(blob, self._layout)

    def forward(
        self,
        state: State,
        token_ids: Sequence[int] | NDArray[np.integer[Any]],
        last_only: bool = False,
        cancelled: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.float32]:
        """Logits (T, V) after each of T tokens, or (V,) after the last; advances `state`.

        cancelled (1,): once another thread makes it non-zero the call ends with CallCancelled.
        """
        tokens = self._check_tokens(token_ids)
        self._check_state(state)
        if last_only and not tokens.size:
            raise SpiketrainError("token_ids must have at least one token with last_only, got none")
        rows = 1 if last_only else tokens.size
        logits = np.empty((rows, self.vocab_size), np.float32)
        activity = np.zeros((1, 3), np.int64)
        with self._lock:
            read = self._network.forward(state.buffer, tokens, logits, activity, cancelled)
            self._tokens += read
        _add(state, read, activity[0])
        if read < tokens.size:
            raise CallCancelled(read, tokens.size)
        return logits[0] if last_only else logits

    def step(
        self, states: Sequence[State], token_ids: Sequence[int] | NDArray[np.integer[Any]]
    ) -> NDArray[np.float32]:
        """Logits (B, V) after one more token for each of B sequences; advances `states`."""
        tokens = self._check_tokens(token_ids)
        if len(states) != tokens.size:
            raise SpiketrainError(
                f"token_ids must have one token a state, got {tokens.size} for {len(states)}"
            )
        for state in states:
            self._check_state(state)
        if len({id(state) for state in states}) != len(states):
            raise SpiketrainError("states must differ from one another, got one of them twice")
        logits = np.empty((tokens.size, self.vocab_size), np.float32)
        activity = np.zeros((tokens.size, 3), np.int64)
        with self._lock:
            self._network.step([state.buffer for state in states], tokens, logits, activity)
            self._tokens += tokens.size
        for state, counts in zip(states, activity.tolist(), strict=True):
            _add(state, 1, counts)
        return logits

    def record(
        self, state: State, token_ids: Sequence[int] | NDArray[np.integer[Any]]
    ) -> dict[str, NDArray[np.int32]]:
        """Spike counts (T, H) of each place while T tokens are read one by one; advances `state`.

        SpiketrainError unless the model makes spike counts before products.
        """
        sizes = self.records
        if not sizes:
            raise SpiketrainError(
                f"model_type must make spike counts before products to record them, "
                f"{self.config['model_type']} of this kind does not"
            )
        tokens = self._check_tokens(token_ids)
        self._check_state(state)
        counts = np.zeros((tokens.size, sum(sizes.values())), np.int32)
        logits = np.empty((1, self.vocab_size), np.float32)
        for at in range(tokens.size):
            activity = np.zeros((1, 3), np.int64)
            with self._lock:
                one = tokens[at : at + 1]
                self._network.record(state.buffer, one, logits, activity, counts[at])
                self._tokens += 1
            _add(state, 1, activity[0])
        ends = np.cumsum(list(sizes.values()))[:-1]
        return dict(zip(sizes, np.split(counts, ends, axis=1), strict=True))

    def activity(self) -> Activity:
        """Counters since the model was loaded or they were last reset."""
        with self._lock:
            counters = self._network.activity()
            tokens = self._tokens
        names, readout = self.spec.layer_names, self.spec.readout_names
        columns = self._network.counter_names
        return Activity(
            tokens,
            layer_activities(names, columns, counters[: len(names)]),
            layer_activities(readout, columns, counters[len(names) :]),
        )

    def reset_activity(self) -> None:
        """Set all counters to zero."""
        with self._lock:
            self._network.counters[...] = 0
            self._tokens = 0

    def _check_tokens(self, token_ids: Any) -> NDArray[np.int64]:
        """Token ids (T,) in [0, V)."""
        ids = np.asarray(token_ids)
        if ids.size == 0 and ids.ndim <= 1:
            return np.empty(0, np.int64)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise SpiketrainError(
                f"token_ids must be a flat sequence of whole numbers, got {ids.dtype} "
                f"of shape {ids.shape}"
            )
        bad = (ids < 0) | (ids >= self.vocab_size)
        if bad.any():
            at = int(np.argmax(bad))
            raise SpiketrainError(
                f"token_ids[{at}] must be in [0, {self.vocab_size}), got {ids[at]}"
            )
        return np.ascontiguousarray(ids, np.int64)

    def _check_state(self, state: State) -> None:
        if state.layout is not self._layout and state.layout.fingerprint != self.fingerprint:
            raise SpiketrainError(
                f"state must belong to the model {self.fingerprint}, "
                f"got one of {state.layout.fingerprint}"
            )


def _renew_locks() -> None:
    """In a child process no thread of the parent is left to release a lock."""
    for model in _models:
        model._lock = threading.Lock()


_models: weakref.WeakSet[Model] = weakref.WeakSet()
os.register_at_fork(after_in_child=_renew_locks)


def _add(state: State, tokens: int, counts: Any) -> None:
    state.position = min(state.position + tokens, MAX_POSITION)
    state.events += int(counts[0])
    state.neurons += int(counts[1])
    state.weight_bytes += int(counts[2])


def _network(package: Package, threads: int, table_bytes: int) -> CompiledModel:
    """The compiled network; PackageError names the file of tensors that cannot make one."""
    try:
        network = load_family(package.family).network
        return network(package.spec, package.tensors, threads, table_bytes)
    except (ValueError, OverflowError) as error:
        where = package.path / TENSOR_FILE
        raise PackageError(f"{where}: tensors must make a network, {error}") from error


def _load_tokenizer(package: Package) -> Any:
    if package.tokenizer_file is None:
        return None
    from spiketrain.runtime.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(package.path)
    if tokenizer.vocab_size > package.spec.vocab_size:
        raise PackageError(
            f"{package.tokenizer_file}: must have at most the model's {package.spec.vocab_size} "
            f"tokens, has {tokenizer.vocab_size}"
        )
    return tokenizer


def _check_whole(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise SpiketrainError(f"{name} must be a whole number in [{least}, {most}], got {value!r}")

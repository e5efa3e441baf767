"""A text through one model, or two side by side, span by span; resumable with identical totals.

Documents become records, as `accounts` makes them. Everything that the records depend on is in the
progress that is kept between spans, floats to the last bit, so a run that goes on from there ends
as if it had never been interrupted.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.evaluation.encoded_text import EncodedText, check_sizes
from spiketrain.evaluation.progress_file import ProgressFile
from spiketrain.evaluation.protocols import Settings, Span, check_batch, cut, spans
from spiketrain.evaluation.reading import (
    SUMS,
    check_cells,
    next_state,
    values_of,
    values_together,
)
from spiketrain.evaluation.sources import Source
from spiketrain.runtime.errors import DataError

KEEP_EVERY_S = 10.0  # between two writes of the progress file


class Run:
    """One evaluation. `with Run(...) as run: run.through()` fills `records`; DataError.

    models: a model, or a model and its baseline. limit: score only so many tokens. batch: windows
    or documents side by side, for protocols that start them from the zero state. lines: a file for
    one JSON object a document; with `resume` an interrupted one goes on.
    largest: |difference| of two models' nats of one token, and the token's place in the text.
    """

    def __init__(
        self,
        models: Sequence[Any],
        tokenizer: Any,
        source: Source,
        settings: Settings,
        limit: int | None = None,
        batch: int = 1,
        lines: Path | None = None,
        resume: bool = False,
    ) -> None:
        check_batch(batch, settings)
        for model in models:
            check_sizes(model, tokenizer)
            if settings.protocol == "egru-published":
                check_cells(model)
        end = models[0].eos_token_ids[0] if models[0].eos_token_ids else None
        self.text = EncodedText(tokenizer, source, settings, end, SUMS[len(models)])
        self.records: list[dict[str, Any]] = []
        self.tokens = 0
        self.seconds = 0.0
        self.largest: tuple[float, int] | None = None
        self._models = tuple(models)
        self._spans = spans(self.text, settings)
        self._settings = settings
        self._source = source
        self._limit = limit
        self._batch = batch
        self._states: list[Any] = [None] * len(models)
        self._done = 0  # spans
        self._fired_before: list[NDArray[np.int64]] = []
        self._kept_at = -math.inf
        self._file: ProgressFile | None = None
        if lines is not None:
            self._file = ProgressFile(lines, self._identity(tokenizer.hash, end), resume)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def through(self) -> None:
        """Score everything; what an exception leaves is the progress kept last."""
        for model in self._models:
            model.reset_activity()
        if self._file is not None and self._file.progress is not None:
            self._go_on(self._file)
        while self._left() and (group := list(islice(self._spans, self._batch))):
            room = None if self._limit is None else self._limit - self.tokens
            self._score(cut(group, room))
            self._keep(now=False)
        for _ in self.text.documents:  # the hash is that of the whole text
            pass
        self._finish(None)
        self._keep(now=True)
        if not any(record["tokens"] for record in self.records):
            raise DataError(
                f"{self._source.name}: must have tokens to score in protocol "
                f"{self._settings.protocol}, has {self.text.accounts.place} tokens in all"
            )

    def fired(self) -> list[NDArray[np.int64]]:
        """Events and units evaluated (layers, 2) of each model, of interrupted runs too."""
        fired = []
        for model in self._models:
            layers = model.activity().layers
            counts = np.array([[layer.events, layer.neurons] for layer in layers], np.int64)
            fired.append(counts.reshape(-1, 2))
        if not self._fired_before:
            return fired
        return [now + before for now, before in zip(fired, self._fired_before, strict=True)]

    def _identity(self, tokenizer_hash: str, end: int | None) -> dict[str, Any]:
        """All that the records depend on. A fingerprint says which backend it is of."""
        dials = [one.dial for one in self._models]
        model, *baseline = self._models
        return {
            "model": model.fingerprint,
            "baseline": baseline[0].fingerprint if baseline else None,
            "tokenizer_hash": tokenizer_hash,
            "protocol": self._settings.describe(*dials),
            "dials": dials,
            "end_of_text": end,
            "data": self._source.name,
            "word_level": self._source.line_ends,
            "limit": self._limit,
        }

    def _left(self) -> bool:
        return self._limit is None or self.tokens < self._limit

    def _score(self, group: list[Span]) -> None:
        start = time.perf_counter()
        if len(group) == 1:
            both = zip(self._models, self._states, strict=True)
            self._states = [next_state(model, state, group[0].start) for model, state in both]
            group_values = [values_of(self._models, self._states, group[0])]
        else:
            group_values = values_together(self._models, group)
        self.seconds += time.perf_counter() - start
        for span, values in zip(group, group_values, strict=True):
            count = values.shape[1]
            self.text.accounts.score(span.place, values)
            self.tokens += count
            self._done += 1
            if count:
                self._note_largest(span.place, values)
                self._finish(span.place + count)

    def _note_largest(self, place: int, values: NDArray[np.float64]) -> None:
        """Compare the nats of two models, values (sums, T), with the largest difference so far."""
        if len(self._models) == 1:
            return
        apart = np.abs(values[0] - values[1])
        at = int(apart.argmax())
        if self.largest is None or apart[at] > self.largest[0]:
            self.largest = float(apart[at]), place + at

    def _finish(self, place: int | None) -> None:
        for record in self.text.accounts.closed(place):
            self.records.append(record)
            if self._file is not None:
                self._file.write(record)

    def _keep(self, now: bool) -> None:
        if self._file is None or not (now or time.monotonic() > self._kept_at + KEEP_EVERY_S):
            return
        self._kept_at = time.monotonic()
        carried = self._states if self._settings.carries else ()
        self._file.keep(
            {
                "spans": self._done,
                "tokens": self.tokens,
                "seconds": self.seconds,
                "drawn": self.text.accounts.count,
                "text": self.text.digest,
                "fired": [counts.tolist() for counts in self.fired()],
                "largest": self.largest,
                "open": self.text.accounts.under_way(),
                "states": [_stored(state) for state in carried if state is not None],
            }
        )

    def _go_on(self, file: ProgressFile) -> None:
        """Take up what an interrupted run left, if the text is still the same."""
        assert file.progress is not None
        progress = file.progress
        self.records = file.records()
        self.text.expect(progress["drawn"], progress["text"])
        for _ in islice(self._spans, progress["spans"]):
            pass
        self.text.accounts.restore(progress["open"], progress["drawn"])
        self.tokens, self.seconds, self._done = (
            progress["tokens"],
            progress["seconds"],
            progress["spans"],
        )
        self.largest = tuple(progress["largest"]) if progress["largest"] else None
        self._fired_before = [np.array(c, np.int64).reshape(-1, 2) for c in progress["fired"]]
        for at, stored in enumerate(progress["states"]):
            self._states[at] = self._models[at].state_from_bytes(base64.b64decode(stored))


def _stored(state: Any) -> str:
    return base64.b64encode(state.to_bytes()).decode()

"""Score a source with a model: documents in, records out, resumable with identical totals."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import DataError
from spiketrain.evaluation.accounts import Accounts
from spiketrain.evaluation.corpus import SEPARATOR
from spiketrain.evaluation.perplexity import Perplexity, figures, peak_memory_bytes
from spiketrain.evaluation.progress_file import ProgressFile
from spiketrain.evaluation.protocols import Settings, Span, check_batch, cut, spans
from spiketrain.evaluation.reading import check_cells, nats_of, nats_together, next_state
from spiketrain.evaluation.sources import Source

KEEP_EVERY_S = 10.0  # between two writes of the progress file


def measure_perplexity(
    model: Any,
    tokenizer: Any,
    source: Source,
    settings: Settings,
    limit: int | None = None,
    batch: int = 1,
    lines: Path | None = None,
    resume: bool = False,
) -> Perplexity:
    """The figures of `measure`."""
    return measure(model, tokenizer, source, settings, limit, batch, lines, resume)[0]


def measure(
    model: Any,
    tokenizer: Any,
    source: Source,
    settings: Settings,
    limit: int | None = None,
    batch: int = 1,
    lines: Path | None = None,
    resume: bool = False,
) -> tuple[Perplexity, list[dict[str, Any]]]:
    """Score `source`, or its first `limit` tokens; figures, and a record a document. DataError.

    batch: windows or documents side by side, for protocols that start them from the zero state.
    lines: a file for one JSON object a document; with `resume` an interrupted one goes on.
    """
    check_batch(batch, settings)
    if settings.protocol == "egru-published":
        check_cells(model)
    text = EncodedText(model, tokenizer, source, settings)
    identity = {
        "fingerprint": model.fingerprint,
        "tokenizer_hash": tokenizer.hash,
        "protocol": settings.describe(model.dial),
        "data": source.name,
        "limit": limit,
    }
    file = ProgressFile(lines, identity, resume) if lines is not None else None
    try:
        run = _Run(model, text, settings, limit, file)
        run.through(batch)
    finally:
        if file is not None:
            file.close()
    if not any(record["tokens"] for record in run.records):
        raise DataError(
            f"{source.name}: must have tokens to score in protocol {settings.protocol}, has "
            f"{text.accounts.place} tokens in all"
        )
    fired = run.fired()
    found = Perplexity(
        **figures(run.records),
        protocol=settings.protocol,
        protocol_text=settings.describe(model.dial),
        ctx=settings.ctx,
        stride=settings.stride,
        warmup=settings.warmup,
        prefix_token=settings.prefix,
        lossless_documents=text.lossless,
        firing_rate=_share(fired.sum(axis=0)) if fired.size else 0.0,
        firing_rates=[_share(row) for row in fired],
        tokens_per_s=run.tokens / run.seconds if run.seconds else 0.0,
        peak_memory_bytes=peak_memory_bytes(),
        fingerprint=model.fingerprint,
        tokenizer_hash=tokenizer.hash,
        data_hash=source.hash,
    )
    return found, run.records


class EncodedText:
    """The documents of a source as token ids, noted in accounts as they are drawn.

    books: so many accounts of the same documents; `accounts` is the first.
    """

    def __init__(
        self, model: Any, tokenizer: Any, source: Source, settings: Settings, books: int = 1
    ) -> None:
        if tokenizer.vocab_size > model.vocab_size:
            raise DataError(
                f"tokenizer must have at most the model's {model.vocab_size} tokens, "
                f"has {tokenizer.vocab_size}"
            )
        self.books = [
            Accounts(tokenizer, settings.by_document, source.line_ends) for _ in range(books)
        ]
        self.accounts = self.books[0]
        self.lossless = 0
        self._tokenizer = tokenizer
        self._end = model.eos_token_ids[0] if model.eos_token_ids else None
        self._by_document = settings.by_document
        self.documents = iter(source)
        self.digest = hashlib.sha256()  # of the documents drawn
        self._expected: tuple[int, str] | None = None
        self._name = source.name

    def __iter__(self) -> Iterator[list[int]]:
        for document in self.documents:
            self.digest.update(document.text.encode() + b"\0")
            ids = self._encode(document.text)
            self.lossless += self._tokenizer.decode(ids) == document.text
            if document.ended and ids and not self._by_document:
                if self._end is None:
                    raise DataError(f"package must name an eos_token_id to score {SEPARATOR} lines")
                ids.append(self._end)
            for accounts in self.books:
                accounts.add(document, ids)
            self._compare(self.accounts.count)
            yield ids
        self._compare(None)

    def expect(self, count: int, digest: str) -> None:
        """Raise DataError if the first `count` documents turn out not to have this digest."""
        self._expected = (count, digest)

    def _compare(self, count: int | None) -> None:
        """Hold the first `count` documents, or all that there are, against what is expected."""
        if self._expected is None or (count is not None and count != self._expected[0]):
            return
        if count is None and self.accounts.count >= self._expected[0]:
            return
        if count is None or self._expected[1] != self.digest.hexdigest():
            raise DataError(f"{self._name}: must be the text of the interrupted evaluation, is not")

    def _encode(self, text: str) -> list[int]:
        try:
            ids: list[int] = self._tokenizer.encode(text)
        except Exception as error:  # the libraries raise many kinds
            raise DataError(
                f"{self._name}: tokenizer must encode document {self.accounts.count}, "
                f"got {error!s:.200}"
            ) from None
        if text.strip() and not ids:
            raise DataError(
                f"{self._name}: tokenizer must encode document {self.accounts.count}, "
                f"got no token for {text.strip()[:40]!r}"
            )
        return ids


class _Run:
    """Spans through the model, in order; progress is kept between them."""

    def __init__(
        self,
        model: Any,
        text: EncodedText,
        settings: Settings,
        limit: int | None,
        file: ProgressFile | None,
    ) -> None:
        self.records: list[dict[str, Any]] = []
        self.tokens = 0
        self.seconds = 0.0
        self._model = model
        self._accounts = text.accounts
        self._text = text
        self._spans = spans(text, settings)
        self._carries = settings.carries
        self._limit = limit
        self._file = file
        self._state: Any = None
        self._done = 0  # spans
        self._fired_before = np.zeros((0, 2), np.int64)
        self._kept_at = time.monotonic()
        model.reset_activity()
        if file is not None and file.found is not None:
            self._go_on(file.found)

    def through(self, batch: int) -> None:
        """Score everything; what an exception leaves is the progress kept last."""
        while self._left() and (group := list(islice(self._spans, batch))):
            room = None if self._limit is None else self._limit - self.tokens
            self._score(cut(group, room))
            self._keep(now=False)
        self._keep(now=True)
        for _ in self._text.documents:  # the hash is that of the whole text
            pass
        self._finish(None)
        self._keep(now=True)

    def fired(self) -> NDArray[np.int64]:
        """Events and units evaluated (layers, 2), of interrupted runs too."""
        layers = self._model.activity().layers
        found = np.array([[layer.events, layer.neurons] for layer in layers], np.int64)
        found = found.reshape(-1, 2)
        return found + self._fired_before if self._fired_before.size else found

    def _left(self) -> bool:
        return self._limit is None or self.tokens < self._limit

    def _score(self, group: list[Span]) -> None:
        start = time.perf_counter()
        if len(group) == 1:
            self._state = next_state(self._model, self._state, group[0].start)
            results = [nats_of(self._model, self._state, group[0])]
        else:
            results = nats_together(self._model, group)
        self.seconds += time.perf_counter() - start
        for span, nats in zip(group, results, strict=True):
            self._accounts.score(span.place, nats)
            self.tokens += nats.size
            self._done += 1
            if nats.size:
                self._finish(span.place + nats.size)

    def _finish(self, place: int | None) -> None:
        for record in self._accounts.closed(place):
            self.records.append(record)
            if self._file is not None:
                self._file.write(record)

    def _keep(self, now: bool) -> None:
        if self._file is None or not (now or time.monotonic() > self._kept_at + KEEP_EVERY_S):
            return
        self._kept_at = time.monotonic()
        state = self._state.to_bytes() if self._carries and self._state is not None else None
        self._file.keep(
            {
                "spans": self._done,
                "tokens": self.tokens,
                "seconds": self.seconds,
                "drawn": self._accounts.count,
                "text": self._text.digest.hexdigest(),
                "fired": self.fired().tolist(),
                "open": self._accounts.under_way(),
                "state": base64.b64encode(state).decode() if state is not None else None,
            }
        )

    def _go_on(self, found: dict[str, Any]) -> None:
        """Take up what an interrupted run left, if the text is still the same."""
        assert self._file is not None
        self.records = self._file.records()
        self._text.expect(found["drawn"], found["text"])
        for _ in islice(self._spans, found["spans"]):
            pass
        self._accounts.restore(found["open"], found["drawn"])
        self.tokens, self.seconds, self._done = found["tokens"], found["seconds"], found["spans"]
        self._fired_before = np.array(found["fired"], np.int64).reshape(-1, 2)
        if found["state"] is not None:
            self._state = self._model.state_from_bytes(base64.b64decode(found["state"]))


def _share(counts: NDArray[np.int64]) -> float:
    events, units = map(int, counts)
    return events / units if units else 0.0

"""How well a model predicts a text: perplexity and bits per byte in the carry protocol.

Carry: one state, from zero, is carried over the whole text and across documents; nothing is reset
and no token sees a shortened past. Every token is scored, the end-of-text id after each document
included; the end-of-text id, which is not scored there, stands before the first token. A package
that names no end-of-text id leaves the first token of the text unscored.

Perplexity is exp(nats / tokens) and exp(nats / words); bits per byte is nats / ln 2 / bytes.
`corpus` says what counts as a word and a byte. With a limit the text is cut after that many
tokens, and what is left of the last document is counted as it decodes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.errors import DataError
from runtime.scoring import score_tokens
from runtime.tokenizer import Tokenizer
from spiketrain.evaluation.corpus import SEPARATOR, Corpus, Document

PROTOCOLS = {
    "carry": "state carried over the whole text and across documents, every token scored",
}


@dataclass(frozen=True, slots=True)
class Perplexity:
    """One evaluation; `firing_rate` is the share of non-zero outputs over all layers."""

    nll_nats: float
    tokens: int
    words: int
    bytes: int
    token_perplexity: float
    word_perplexity: float
    bits_per_byte: float
    protocol: str
    documents: int
    firing_rate: float
    firing_rates: list[float]
    tokens_per_s: float
    fingerprint: str
    tokenizer_hash: str
    data_hash: str

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: what is not finite is null."""
        values = asdict(self)
        for key, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                values[key] = None
        return values


def measure_perplexity(
    model: Any,
    tokenizer: Tokenizer,
    path: Path,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Perplexity:
    """Score the text file at `path`, or its first `limit` tokens, in the carry protocol."""
    if tokenizer.vocab_size > model.vocab_size:
        raise DataError(
            f"tokenizer must have at most the model's {model.vocab_size} tokens, "
            f"has {tokenizer.vocab_size}"
        )
    corpus = Corpus(path, on_progress)
    tally = _Tally(model, tokenizer, limit)
    model.reset_activity()
    for document in corpus:
        if not tally.is_full:
            tally.add(document)
    if not tally.tokens:
        raise DataError(f"{path}: must have tokens to score, has {tally.words} words")
    activity = model.activity()
    return Perplexity(
        nll_nats=tally.nats,
        tokens=tally.tokens,
        words=tally.words,
        bytes=tally.bytes,
        token_perplexity=_exp(tally.nats / tally.tokens),
        word_perplexity=_exp(tally.nats / tally.words) if tally.words else math.inf,
        bits_per_byte=tally.nats / math.log(2) / tally.bytes,
        protocol="carry",
        documents=tally.documents,
        firing_rate=activity.firing_rate,
        firing_rates=[layer.firing_rate for layer in activity.layers],
        tokens_per_s=tally.tokens / tally.seconds if tally.seconds else math.inf,
        fingerprint=model.fingerprint,
        tokenizer_hash=tokenizer.hash,
        data_hash=corpus.hash,
    )


class _Tally:
    """Running sums over documents; holds the carried state and the token it has not read."""

    def __init__(self, model: Any, tokenizer: Tokenizer, limit: int | None) -> None:
        self.nats = 0.0
        self.tokens = 0
        self.words = 0
        self.bytes = 0
        self.documents = 0
        self.seconds = 0.0
        self._model = model
        self._tokenizer = tokenizer
        self._limit = limit
        self._state = model.new_state()
        self._end = model.eos_token_ids[0] if model.eos_token_ids else None
        self._context = self._end

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self._limit is not None and self.tokens >= self._limit

    def add(self, document: Document) -> None:
        """Score one document and the end-of-text id after it; an empty one has neither."""
        ids = self._tokenizer.encode(document.text)
        if document.ended and ids:
            if self._end is None:
                raise DataError(f"package must name an eos_token_id to score {SEPARATOR} lines")
            ids.append(self._end)
        room = len(ids) if self._limit is None else self._limit - self.tokens
        if self._context is None:
            room += 1
        self._score(ids[:room])
        self.documents += 1
        if len(ids) <= room:
            self.bytes += document.num_bytes
            self.words += document.num_words
        else:
            text = self._tokenizer.decode(ids[:room])
            self.bytes += len(text.encode())
            self.words += len(text.split())

    def _score(self, ids: list[int]) -> None:
        if self._context is None and ids:
            self._context, ids = ids[0], ids[1:]
        if not ids or self._context is None:
            return
        start = time.perf_counter()
        nats = score_tokens(self._model, self._state, ids, self._context)
        self.seconds += time.perf_counter() - start
        self.nats += math.fsum(nats)
        self.tokens += len(ids)
        self._context = ids[-1]


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf

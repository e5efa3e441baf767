"""Two models on the same text: how far apart they are, with errors of the difference itself.

With one tokenizer both read the same tokens, so every figure is paired token by token: nats,
Kullback-Leibler divergence of the model from the baseline, sum p_b (ln p_b - ln p_m) in nats, and
the share of places where both find the same token likeliest. With two tokenizers documents are
paired, and only their bits.

The 95 % interval of a difference is it +- 1.96 standard errors over the units of `statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import DataError
from runtime.scoring import token_nats
from spiketrain.evaluation.measure import EncodedText, measure
from spiketrain.evaluation.perplexity import figures
from spiketrain.evaluation.protocols import Settings, Span, check_batch, cut, spans
from spiketrain.evaluation.reading import check_cells, logits_of, logits_together, next_state
from spiketrain.evaluation.sources import Source
from spiketrain.evaluation.statistics import Z95, choose_units, ratio_error


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model against a baseline; differences are model minus baseline, below 0 if it is better.

    What needs the same tokens is None where tokenizers differ. largest_nll_difference: the largest
    |difference| of nats of one token, which stands at `largest_at` of the text's tokens.
    """

    protocol_text: str
    tokens: int
    bytes: int
    bits_per_byte: float
    baseline_bits_per_byte: float
    difference_bits_per_byte: float
    difference_low: float | None
    difference_high: float | None
    interval_over: str
    interval_count: int
    kl_divergence: float | None
    kl_standard_error: float | None
    same_top_1: float | None
    same_top_1_standard_error: float | None
    largest_nll_difference: float | None
    largest_at: int | None
    mean_nll_difference: float | None
    fingerprint: str
    baseline_fingerprint: str
    tokenizer_hash: str
    baseline_tokenizer_hash: str
    data_hash: str

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def compare_tokens(
    model: Any,
    baseline: Any,
    tokenizer: Any,
    source: Source,
    settings: Settings,
    limit: int | None = None,
    batch: int = 1,
) -> Comparison:
    """Both models on the same tokens of `source`, the first `limit` of them. DataError.

    batch: spans side by side, for protocols that start them from the zero state.
    """
    check_batch(batch, settings)
    if baseline.vocab_size != model.vocab_size:
        raise DataError(
            f"baseline must have the model's {model.vocab_size} tokens, has {baseline.vocab_size}"
        )
    if settings.protocol == "egru-published":
        for one in (model, baseline):
            check_cells(one)
    text = EncodedText(model, tokenizer, source, settings, books=4)
    records: list[list[dict[str, Any]]] = [[] for _ in text.books]
    states: list[Any] = [None, None]
    largest, largest_at, tokens = 0.0, None, 0
    drawn = spans(text, settings)
    while (limit is None or tokens < limit) and (group := list(islice(drawn, batch))):
        group = cut(group, None if limit is None else limit - tokens)
        if len(group) == 1:
            states = [
                next_state(one, state, group[0].start)
                for one, state in zip((model, baseline), states, strict=True)
            ]
            found = [_paired(model, baseline, states, group[0])]
        else:
            found = _paired_together(model, baseline, group)
        for span, values in zip(group, found, strict=True):
            tokens += values.shape[1]
            for accounts, row in zip(text.books, values, strict=True):
                accounts.score(span.place, row)
            _close(text, records, span.place + values.shape[1] if values.size else 0)
            apart = np.abs(values[0] - values[1])
            if apart.size and (largest_at is None or apart.max() > largest):
                largest, largest_at = float(apart.max()), span.place + int(apart.argmax())
    for _ in text.documents:  # the hash is that of the whole text
        pass
    _close(text, records, None)
    if not tokens:
        raise DataError(f"{source.name}: must have tokens to score, has none")
    ours, theirs = figures(records[0]), figures(records[1])
    pairs = zip(records[0], records[1], strict=True)
    documents = [(a["nll_nats"] - b["nll_nats"], a["tokens"]) for a, b in pairs]
    blocks = [(a - b, t) for (a, t), (b, _) in zip(*map(_blocks, records[:2]), strict=True)]
    units, over = choose_units(documents, blocks)
    per_byte = tokens / math.log(2) / ours["bytes"] if ours["bytes"] else math.nan
    divergence, same = (_mean(chosen) for chosen in records[2:])
    return Comparison(
        settings.describe(model.dial, baseline.dial),
        tokens,
        ours["bytes"],
        ours["bits_per_byte"],
        theirs["bits_per_byte"],
        *_interval(ours["bits_per_byte"] - theirs["bits_per_byte"], ratio_error(units), per_byte),
        over,
        len(units),
        *divergence,
        *same,
        largest,
        largest_at,
        (ours["nll_nats"] - theirs["nll_nats"]) / tokens,
        model.fingerprint,
        baseline.fingerprint,
        tokenizer.hash,
        tokenizer.hash,
        source.hash,
    )


def compare_documents(
    model: Any,
    baseline: Any,
    tokenizers: tuple[Any, Any],
    sources: tuple[Source, Source],
    settings: tuple[Settings, Settings],
    batch: int = 1,
) -> Comparison:
    """Both models on the same documents, each with its own tokenizer, source and settings."""
    (ours, first), (theirs, second) = (
        measure(one, tokenizer, source, its, batch=batch)
        for one, tokenizer, source, its in zip(
            (model, baseline), tokenizers, sources, settings, strict=True
        )
    )
    others = {record["document"]: record for record in second}
    pairs = [(r, others[r["document"]]) for r in first if r["document"] in others]
    units = [(a["nll_nats"] - b["nll_nats"], a["bytes"]) for a, b in pairs if a["bytes"]]
    difference = ours.bits_per_byte - theirs.bits_per_byte
    return Comparison(
        settings[0].describe(model.dial, baseline.dial),
        ours.tokens,
        ours.bytes,
        ours.bits_per_byte,
        theirs.bits_per_byte,
        *_interval(difference, ratio_error(units), 1 / math.log(2)),
        "documents",
        len(units),
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        ours.fingerprint,
        theirs.fingerprint,
        ours.tokenizer_hash,
        theirs.tokenizer_hash,
        ours.data_hash,
    )


def _paired(model: Any, baseline: Any, states: Sequence[Any], span: Span) -> NDArray[np.float64]:
    """Rows (4, T): nats of the model and of the baseline, divergence, same likeliest token."""
    both = zip(logits_of(model, states[0], span), logits_of(baseline, states[1], span), strict=True)
    parts = [_rows(targets, ours, theirs) for (targets, ours), (_, theirs) in both]
    return np.concatenate([np.empty((4, 0)), *parts], axis=1)


def _paired_together(model: Any, baseline: Any, group: Sequence[Span]) -> list[NDArray[np.float64]]:
    """As `_paired` of each span; all start from the zero state."""
    parts: list[list[NDArray[np.float64]]] = [[np.empty((4, 0))] for _ in group]
    both = zip(logits_together(model, group), logits_together(baseline, group), strict=True)
    for (which, targets, ours), (_, _, theirs) in both:
        rows = _rows(targets, ours, theirs)
        for at, span in enumerate(which):
            parts[span].append(rows[:, at : at + 1])
    return [np.concatenate(rows, axis=1) for rows in parts]


def _rows(
    targets: NDArray[np.int64], ours: NDArray[np.float32], theirs: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The four rows of `_paired` for targets (T,) from logits (T, V)."""
    return np.stack(
        [
            token_nats(ours, targets),
            token_nats(theirs, targets),
            _divergence(theirs, ours),
            (ours.argmax(axis=1) == theirs.argmax(axis=1)).astype(np.float64),
        ]
    )


def _divergence(p: NDArray[np.float32], q: NDArray[np.float32]) -> NDArray[np.float64]:
    """Kullback-Leibler divergence (T,) in nats of softmax(q) from softmax(p), both (T, V)."""
    log_p, log_q = _log_softmax(p), _log_softmax(q)
    found: NDArray[np.float64] = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    return np.maximum(found, 0.0)  # what rounding leaves of equal distributions


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def _close(text: EncodedText, records: list[list[dict[str, Any]]], place: int | None) -> None:
    for accounts, found in zip(text.books, records, strict=True):
        found += accounts.closed(place)


def _blocks(records: Sequence[dict[str, Any]]) -> list[tuple[float, int]]:
    return [(value, tokens) for record in records for value, tokens in record["blocks"]]


def _mean(records: Sequence[dict[str, Any]]) -> tuple[float, float | None]:
    """Mean a token, and its standard error."""
    blocks = _blocks(records)
    units, _ = choose_units([(r["nll_nats"], r["tokens"]) for r in records], blocks)
    return math.fsum(v for v, _ in blocks) / sum(t for _, t in blocks), ratio_error(units)


def _interval(
    value: float, error: float | None, scale: float
) -> tuple[float, float | None, float | None]:
    """A value with its 95 % interval; the error is in units of 1 / scale."""
    if error is None:
        return value, None, None
    half = Z95 * error * scale
    return value, value - half, value + half

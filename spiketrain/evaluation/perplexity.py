"""Measures how well a model predicts a text: perplexity and bits per byte in a stated protocol.

`protocols` says what is read from which state and scored. An end-of-text id after a document is
scored where documents follow one another, and is the prefix token unless another one is named. A
first token without anything before it is not scored, and its text is not counted.

Perplexity is exp(nats / tokens) and exp(nats / words); bits per byte is nats / ln 2 / bytes.
`corpus` says what counts as a word and a byte. Of a document that was scored in parts, words and
bytes are those that the scored tokens decode to.
"""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spiketrain.evaluation.statistics import standard_error


@dataclass(frozen=True, slots=True)
class Perplexity:
    """One evaluation.

    firing_rate: share of non-zero outputs over all layers. lossless_documents: those that the
    tokenizer gives back unchanged; with fewer than `documents`, bits per byte pass over what is
    lost. standard_error_nats: of the nats per token, over `standard_error_count` units.
    """

    nll_nats: float
    tokens: int
    words: int
    bytes: int
    token_perplexity: float
    word_perplexity: float
    byte_perplexity: float
    bits_per_byte: float
    standard_error_nats: float | None
    standard_error_bits_per_byte: float | None
    standard_error_token_perplexity: float | None
    standard_error_over: str
    standard_error_count: int
    protocol: str
    protocol_text: str
    ctx: int | None
    stride: int | None
    warmup: int
    prefix_token: int | None
    documents: int
    lossless_documents: int
    firing_rate: float
    firing_rates: list[float]
    tokens_per_s: float
    peak_memory_bytes: int
    fingerprint: str
    tokenizer_hash: str
    data_hash: str

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return without_infinities(asdict(self))


def figures(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of finished documents, as `accounts` records them: sums, ratios, errors."""
    nats = math.fsum(record["nll_nats"] for record in records)
    tokens, words, num_bytes = (
        sum(record[key] for record in records) for key in ("tokens", "words", "bytes")
    )
    blocks = [(block[0], block[-1]) for record in records for block in record["blocks"]]
    error = standard_error([(r["nll_nats"], r["tokens"]) for r in records], blocks)
    spread = error.nats_per_token
    perplexity = exp(nats / tokens)
    return {
        "nll_nats": nats,
        "tokens": tokens,
        "words": words,
        "bytes": num_bytes,
        "token_perplexity": perplexity,
        "word_perplexity": exp(nats / words) if words else math.inf,
        "byte_perplexity": exp(nats / num_bytes) if num_bytes else math.inf,
        "bits_per_byte": nats / math.log(2) / num_bytes if num_bytes else math.inf,
        "standard_error_nats": spread,
        "standard_error_bits_per_byte": spread * tokens / math.log(2) / num_bytes
        if spread is not None and num_bytes
        else None,
        "standard_error_token_perplexity": spread * perplexity if spread is not None else None,
        "standard_error_over": error.over,
        "standard_error_count": error.count,
        "documents": len(records),
    }


def without_infinities(values: dict[str, Any]) -> dict[str, Any]:
    """The values with None for numbers that are not finite, which JSON does not have."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


def exp(value: float) -> float:
    """The exponential, infinite where that is too large."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def peak_memory_bytes() -> int:
    """The most memory that this process has had resident."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes() -> int:
    """Memory that this process has resident now; the most so far where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return peak_memory_bytes()
    return pages * resource.getpagesize()

"""Compares two models on the same text, with errors of the difference itself.

With one tokenizer both read the same tokens in one run, so every figure is paired token by token,
as `reading` defines it: nats, divergence, same likeliest token. With two tokenizers documents are
paired, and only their bits.

The 95 % interval of a difference is it +- 1.96 standard errors over the units of `statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spiketrain.evaluation.perplexity import figures, without_infinities
from spiketrain.evaluation.protocols import Settings
from spiketrain.evaluation.reading import SUMS
from spiketrain.evaluation.run import Run
from spiketrain.evaluation.sources import Source
from spiketrain.evaluation.statistics import Z95, choose_units, ratio_error
from spiketrain.runtime.errors import DataError


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
        return without_infinities(asdict(self))


def compare_tokens(
    model: Any,
    baseline: Any,
    tokenizer: Any,
    source: Source,
    settings: Settings,
    limit: int | None = None,
    batch: int = 1,
    lines: Path | None = None,
    resume: bool = False,
) -> Comparison:
    """Both models on the same tokens of `source`; see Run. DataError."""
    if baseline.vocab_size != model.vocab_size:
        raise DataError(
            f"baseline must have the model's {model.vocab_size} tokens, has {baseline.vocab_size}"
        )
    pair = (model, baseline)
    with Run(pair, tokenizer, source, settings, limit, batch, lines, resume) as run:
        run.through()
    assert run.largest is not None
    ours, theirs = (figures(_column(run.records, at)) for at in (0, 1))
    documents = [(r["nll_nats"] - r["baseline_nll_nats"], r["tokens"]) for r in run.records]
    blocks = [(block[0] - block[1], block[-1]) for r in run.records for block in r["blocks"]]
    units, over = choose_units(documents, blocks)
    difference = ours["bits_per_byte"] - theirs["bits_per_byte"]
    per_byte = run.tokens / math.log(2) / ours["bytes"] if ours["bytes"] else math.nan
    return Comparison(
        settings.describe(model.dial, baseline.dial),
        run.tokens,
        ours["bytes"],
        ours["bits_per_byte"],
        theirs["bits_per_byte"],
        *_interval(difference, ratio_error(units), per_byte),
        over,
        len(units),
        *_mean(_column(run.records, 2)),
        *_mean(_column(run.records, 3)),
        *run.largest,
        (ours["nll_nats"] - theirs["nll_nats"]) / run.tokens,
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
    lines: Path | None = None,
    resume: bool = False,
) -> Comparison:
    """Both models on the same documents, each with its own tokenizer, source and settings.

    One after the other: the baseline's documents go to a file of their own, `baseline_lines`.
    """
    files = (lines, None if lines is None else baseline_lines(lines))
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(Run([one], tokenizer, source, its, None, batch, file, resume))
            for one, tokenizer, source, its, file in zip(
                (model, baseline), tokenizers, sources, settings, files, strict=True
            )
        )
        first.through()
        second.through()
    ours, theirs = figures(first.records), figures(second.records)
    others = {record["document"]: record for record in second.records}
    pairs = [(r, others[r["document"]]) for r in first.records if r["document"] in others]
    units = [(a["nll_nats"] - b["nll_nats"], a["bytes"]) for a, b in pairs if a["bytes"]]
    difference = ours["bits_per_byte"] - theirs["bits_per_byte"]
    return Comparison(
        settings[0].describe(model.dial, baseline.dial),
        ours["tokens"],
        ours["bytes"],
        ours["bits_per_byte"],
        theirs["bits_per_byte"],
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
        model.fingerprint,
        baseline.fingerprint,
        tokenizers[0].hash,
        tokenizers[1].hash,
        sources[0].hash,
    )


def baseline_lines(lines: Path) -> Path:
    """Where the baseline's documents go if it has a tokenizer of its own."""
    return lines.with_name(lines.name + ".baseline")


def _column(records: Sequence[dict[str, Any]], at: int) -> list[dict[str, Any]]:
    """The records of a pair as if they were of one model with the sums at `at` of SUMS[2]."""
    return [
        {
            **record,
            "nll_nats": record[SUMS[2][at]],
            "blocks": [(block[at], block[-1]) for block in record["blocks"]],
        }
        for record in records
    ]


def _mean(records: Sequence[dict[str, Any]]) -> tuple[float, float | None]:
    """Mean a token, and its standard error."""
    blocks = [unit for record in records for unit in record["blocks"]]
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

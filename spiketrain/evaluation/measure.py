"""Score a source with a model: documents in, figures out, resumable with identical totals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.evaluation.perplexity import Perplexity, figures, peak_memory_bytes
from spiketrain.evaluation.protocols import Settings
from spiketrain.evaluation.run import Run
from spiketrain.evaluation.sources import Source


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
    """Score `source`, or its first `limit` tokens; see Run. DataError."""
    with Run([model], tokenizer, source, settings, limit, batch, lines, resume) as run:
        run.through()
    (fired,) = run.fired()
    return Perplexity(
        **figures(run.records),
        protocol=settings.protocol,
        protocol_text=settings.describe(model.dial),
        ctx=settings.ctx,
        stride=settings.stride,
        warmup=settings.warmup,
        prefix_token=settings.prefix,
        lossless_documents=run.text.lossless,
        firing_rate=_share(fired.sum(axis=0)) if fired.size else 0.0,
        firing_rates=[_share(row) for row in fired],
        tokens_per_s=run.tokens / run.seconds if run.seconds else 0.0,
        peak_memory_bytes=peak_memory_bytes(),
        fingerprint=model.fingerprint,
        tokenizer_hash=tokenizer.hash,
        data_hash=source.hash,
    )


def _share(counts: NDArray[np.int64]) -> float:
    events, units = map(int, counts)
    return events / units if units else 0.0

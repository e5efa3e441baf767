"""The activity of a model while it reads: rates, skipped rows, operations, bytes, energy.

Each number means one thing. Counters come from the runtime over all tokens; what single units do
comes from a recording of the first ones. Operations are NeuroBench's: dense counts every product
of a weight and an input, effective MACs those whose input is non-zero and no single spike,
effective ACs those whose input is one (1 or -1), which need an addition alone, and additions of
spikes to a residual. The counters take every weight for non-zero, since no kernel skips single
weights; `synops_by_neurobench` leaves out zero weights too, as NeuroBench does (EGRU alone, where
a recording shows which unit fired).
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.evaluation.encoded_text import check_sizes, encode
from spiketrain.evaluation.energy import SOURCE, energy, operation
from spiketrain.evaluation.expansions import expand
from spiketrain.evaluation.rapl import Rapl
from spiketrain.evaluation.recording import Recording, record
from spiketrain.evaluation.sources import Source
from spiketrain.evaluation.stop import NEVER, Stop
from spiketrain.evaluation.synops import synops_by_neurobench
from spiketrain.runtime.errors import DataError
from spiketrain.runtime.formats import EVENT_BITS
from spiketrain.runtime.operation import EVENT_STEPS

SATURATED = 0.95  # of tokens with an event


def tokens_of(model: Any, tokenizer: Any, source: Source, limit: int) -> NDArray[np.int64]:
    """The first `limit` tokens of the source's documents, an end of text after each; DataError."""
    check_sizes(model, tokenizer)
    ids: list[int] = list(model.eos_token_ids[:1])
    for index, document in enumerate(source):
        if len(ids) < limit:
            document_ids = encode(tokenizer, document.text, f"{source.name}: document {index}")
            ids += document_ids
            ids += model.eos_token_ids[:1] if document.ended and document_ids else ()
    if len(ids) < 2:
        raise DataError(f"{source.name}: must have tokens to read, has {len(ids)}")
    return np.asarray(ids[:limit], np.int64)


def measure_activity(
    model: Any, tokens: NDArray[np.int64], record_tokens: int, stop: Stop = NEVER
) -> tuple[dict[str, Any], Recording]:
    """The report over `tokens` (T,), and counts of the first `record_tokens`.

    Once `stop` is wanted, of the tokens read so far; KeyboardInterrupt if there are none.
    """
    counters, seconds, joules, reason = _run(model, tokens, stop)
    if not counters.tokens:
        raise KeyboardInterrupt
    recording = record(model, tokens[:record_tokens], stop)
    per_token = 1 / counters.tokens
    report: dict[str, Any] = {
        "tokens": counters.tokens,
        "layers": _layers(model, counters),
        "total": _row(counters.total, sum(_event_rows(model, counters)) * counters.tokens),
        "units": {name: _units(counts) for name, counts in recording.items()},
        "synops_by_neurobench": synops_by_neurobench(model, recording),
        "recorded_tokens": len(next(iter(recording.values()))) if recording else 0,
        "tokens_per_s": counters.tokens / seconds,
        "joules_measured": joules,
        "joules_note": reason or "RAPL, whole packages, idle power included",
        "fingerprint": model.fingerprint,
    }
    if counters.total.macs_dense:
        state_bytes = 2.0 * model.state_nbytes  # read and written
        spec = model.spec
        of = operation(spec.body_format, EVENT_BITS[spec.events])
        total = counters.total
        spiking = energy(
            of,
            total.macs_effective * per_token,
            total.acs_effective * per_token,
            total.weight_bytes_touched * per_token,
            state_bytes,
        )
        dense = energy(
            of, total.macs_dense * per_token, 0, total.weight_bytes_dense * per_token, state_bytes
        )
        report["energy_per_token"] = {
            "source": SOURCE,
            "mac_pj": of.mac_pj,
            "mac_formula": of.formula,
            "add_pj": of.add_pj,
            "state_bytes": state_bytes,
            "event_driven": asdict(spiking),
            "dense_same_bits": asdict(dense),
        }
    return report, recording


def _run(model: Any, tokens: NDArray[np.int64], stop: Stop) -> tuple[Any, float, float | None, str]:
    """Counters, seconds and joules of one pass, token by token, as a model decodes."""
    rapl = Rapl()
    state = model.new_state()
    model.reset_activity()
    rapl.start()
    start = time.perf_counter()
    for token in tokens.tolist():
        if stop.requested:
            break
        model.step([state], [token])
    seconds = time.perf_counter() - start
    return model.activity(), seconds, rapl.stop(), rapl.reason


def _event_rows(model: Any, counters: Any) -> tuple[int, ...]:
    """Rows that events may read in a token, by layer; zeros where the model does not say."""
    rows: tuple[int, ...] = model.event_rows
    return rows or (0,) * (len(counters.layers) + len(counters.readout))


def _layers(model: Any, counters: Any) -> list[dict[str, Any]]:
    both = (*counters.layers, *counters.readout)
    rows = _event_rows(model, counters)
    return [_row(layer, n * counters.tokens) for layer, n in zip(both, rows, strict=True)]


def _row(layer: Any, rows: int) -> dict[str, Any]:
    """The counters of one layer as ratios and sums; None where it has no such thing."""
    return {
        "name": layer.name,
        "firing_rate": layer.firing_rate if layer.neurons else None,
        "activation_sparsity": 1 - layer.firing_rate if layer.neurons else None,
        "silent_row_fraction": layer.silent_rows / rows if rows else None,
        "neuron_updates": layer.neuron_updates,
        "synops_dense": layer.macs_dense,
        "synops_effective_macs": layer.macs_effective,
        "synops_effective_acs": layer.acs_effective,
        "weight_bytes_touched": layer.weight_bytes_touched,
        "weight_bytes_dense": layer.weight_bytes_dense,
    }


def _units(counts: NDArray[np.int32]) -> dict[str, Any]:
    """What single units of one place do, from counts (T, H)."""
    rates = (counts != 0).mean(axis=0)
    size = np.abs(counts[counts != 0])
    return {
        "units": int(counts.shape[1]),
        "firing_rate": float(rates.mean()),
        "dead": int((rates == 0).sum()),
        "saturated": int((rates >= SATURATED).sum()),
        "negative_share": float((counts < 0).sum() / max(1, size.size)),
        "mean_count": float(size.mean()) if size.size else 0.0,
        "count_quantiles": [float(q) for q in np.quantile(size, (0.05, 0.5, 0.95, 1.0))]
        if size.size
        else [0.0] * 4,
        "graded_steps": EVENT_STEPS if size.size and size.max() > 255 else None,
        "expansions": [asdict(one) for one in expand(counts)],
    }

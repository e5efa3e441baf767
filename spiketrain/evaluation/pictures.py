"""Pictures of an evaluation with matplotlib, as PNG bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from spiketrain.evaluation.recording import Recording
from spiketrain.runtime.operation import EVENT_STEPS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RASTER_TOKENS = 200
RASTER_UNITS = 64  # of each place, evenly spaced
SINGLE_PLACES = 6  # up to so many, each has a histogram of its own
DPI = 110


def raster(recording: Recording) -> bytes:
    """Which of some units fire at which of the first tokens, first place on top.

    A colour for each kind of place; the more spikes, the darker, up to the 95th percentile.
    """
    figure, axes = plt.subplots(
        figsize=(10, max(3.0, min(14.0, 1.2 + 1.1 * len(recording)))), constrained_layout=True
    )
    colours = {kind: f"C{n % 10}" for n, kind in enumerate(dict.fromkeys(map(kind_of, recording)))}
    base = 0
    ticks, names = [], []
    for name, counts in recording.items():
        units = np.linspace(0, counts.shape[1] - 1, min(RASTER_UNITS, counts.shape[1])).astype(int)
        shown = np.abs(counts[:RASTER_TOKENS, units])
        at, unit = np.nonzero(shown)
        dark = shown[at, unit] / max(1.0, _quantile(counts, 0.95))
        axes.scatter(
            at, base + unit, s=1.5, marker="|", color=colours[kind_of(name)], linewidths=1.6,
            alpha=np.clip(dark, 0.3, 1.0),
        )  # fmt: skip
        ticks.append(base + len(units) / 2)
        names.append(f"{name}\n{len(units)} of {counts.shape[1]}")
        base += len(units) + 6
    length = min(RASTER_TOKENS, len(next(iter(recording.values()))))
    axes.set(
        xlabel="token", title="events: the larger, the darker", xlim=(-1, length), ylim=(base, -6)
    )
    axes.set_yticks(ticks, names)
    return _png(figure)


def rates(recording: Recording) -> bytes:
    """Share of units that fire, and of units that never do, a bar for each place."""
    names = list(recording)
    firing = [100 * float((counts != 0).mean()) for counts in recording.values()]
    dead = [100 * float((counts == 0).all(axis=0).mean()) for counts in recording.values()]
    figure, axes = plt.subplots(figsize=(7.5, 1.6 + 0.32 * len(names)), constrained_layout=True)
    places = np.arange(len(names))
    axes.barh(places - 0.2, firing, 0.4, label="fire at a token (mean)")
    axes.barh(places + 0.2, dead, 0.4, color="0.6", label="never fire in the recording")
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set(xlabel="% of units", title="firing rates")
    figure.legend(loc="outside lower center", ncols=2)
    return _png(figure)


def count_histogram(recording: Recording) -> bytes:
    """How large non-zero counts are; graded events in steps of their largest one.

    Of many places, those of one kind are taken together. Counts beyond the 99.9th percentile of
    all are left out of the picture, whose label names the largest.
    """
    figure, axes = plt.subplots(figsize=(7.5, 4), constrained_layout=True)
    largest = max(int(np.abs(counts).max(initial=0)) for counts in recording.values())
    graded = largest > 255
    together: dict[str, list[NDArray[np.int32]]] = {}
    for name, counts in recording.items():
        label = kind_of(name) if len(recording) > SINGLE_PLACES else name
        together.setdefault(label, []).append(counts[counts != 0])
    pooled = {label: np.concatenate(parts) for label, parts in together.items()}
    everything = np.concatenate(list(pooled.values()))
    high = max(1, int(np.ceil(_quantile(everything, 0.999))))
    low = -high if (everything < 0).any() else 0
    edges = np.linspace(0, 1, 41) if graded else np.arange(low - 0.5, high + 1.5)
    for label, chosen in pooled.items():
        if chosen.size:
            weights = np.full(chosen.size, 100 / chosen.size)
            values = chosen / (EVENT_STEPS if graded else 1)
            axes.hist(values, edges, weights=weights, histtype="step", label=label)
    label = "value of an event" if graded else f"spikes of a unit at a token (largest {largest:,})"
    axes.set(xlabel=label, ylabel="% of events", title="how large events are")
    if not graded:
        axes.xaxis.get_major_locator().set_params(integer=True)
    if axes.patches:
        axes.legend(loc="upper right")
    return _png(figure)


def kind_of(place: str) -> str:
    """The name of a place without the number of its layer."""
    return re.sub(r"^\w+\.\d+\.?", "", place) or "layers"


def _quantile(counts: NDArray[np.int32], share: float) -> float:
    """Of the sizes of non-zero counts, the one that `share` of them do not pass; 0 of none."""
    size = np.abs(counts[counts != 0])
    return float(np.quantile(size, share)) if size.size else 0.0


def by_position(positions: NDArray[np.float64], perplexity: NDArray[np.float64]) -> bytes:
    """Perplexity of tokens by their place in the context; positions (N,), upper ends of bins."""
    figure, axes = plt.subplots(figsize=(7.5, 4), constrained_layout=True)
    axes.plot(positions, perplexity, "o-")
    axes.set_xscale("log", base=2)
    axes.set_xticks(positions, [f"{end:,.0f}" for end in positions])
    axes.set(
        xlabel="tokens since the zero state (upper end of bin)",
        ylabel="token perplexity",
        title="perplexity by position in context",
    )
    return _png(figure)


def by_context(rows: Sequence[dict[str, Any]]) -> bytes:
    """Decoding speed and memory of one sequence against tokens already read."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    at = range(len(rows))
    left.plot(at, [row["tokens_per_s"] for row in rows], "o-")
    left.set(ylabel="tokens/s", title="decoding")
    right.plot(at, [row["state_bytes"] / 1e3 for row in rows], "o-")
    right.set(ylabel="kB", title="state of a sequence")
    for axes in (left, right):
        axes.set_xticks(at, [f"{row['context']:,}" for row in rows])
        axes.set(xlabel="tokens of context", ylim=(0, 1.15 * axes.get_ylim()[1]))
    return _png(figure)


def _png(figure: Any) -> bytes:
    stored = io.BytesIO()
    figure.savefig(stored, dpi=DPI, format="png")
    plt.close(figure)
    return stored.getvalue()

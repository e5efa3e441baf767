"""Pictures of an evaluation with matplotlib, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from spiketrain.evaluation.recording import Recording

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RASTER_TOKENS = 200
RASTER_UNITS = 64  # of each place, evenly spaced
DPI = 110


def raster(recording: Recording) -> bytes:
    """Which of some units fire at which of the first tokens, places above one another."""
    figure, axes = plt.subplots(
        figsize=(10, min(12.0, 1.2 + 1.1 * len(recording))), constrained_layout=True
    )
    base = 0
    ticks, names = [], []
    for number, (name, counts) in enumerate(recording.items()):
        units = np.linspace(0, counts.shape[1] - 1, min(RASTER_UNITS, counts.shape[1])).astype(int)
        at, unit = np.nonzero(counts[:RASTER_TOKENS, units])
        axes.scatter(at, base + unit, s=1.5, marker="|", color=f"C{number % 10}", linewidths=0.8)
        ticks.append(base + len(units) / 2)
        names.append(f"{name}\n{len(units)} of {counts.shape[1]}")
        base += len(units) + 6
    length = min(RASTER_TOKENS, len(next(iter(recording.values()))))
    axes.set(xlabel="token", title="events", xlim=(-1, length), ylim=(-3, base))
    axes.set_yticks(ticks, names)
    return _png(figure)


def rates(recording: Recording) -> bytes:
    """Share of units that fire, and of units that never do, a bar for each place."""
    names = list(recording)
    firing = [100 * float((counts != 0).mean()) for counts in recording.values()]
    dead = [100 * float((counts == 0).all(axis=0).mean()) for counts in recording.values()]
    figure, axes = plt.subplots(figsize=(7.5, 1.4 + 0.32 * len(names)), constrained_layout=True)
    places = np.arange(len(names))
    axes.barh(places - 0.2, firing, 0.4, label="fire at a token (mean)")
    axes.barh(places + 0.2, dead, 0.4, color="0.6", label="never fire in the recording")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set(xlabel="% of units", title="firing rates")
    axes.legend()
    return _png(figure)


def count_histogram(recording: Recording) -> bytes:
    """How large non-zero counts are; graded events in steps of their largest one."""
    figure, axes = plt.subplots(figsize=(7.5, 4), constrained_layout=True)
    largest = max(int(np.abs(counts).max(initial=0)) for counts in recording.values())
    graded = largest > 255
    low = min(int(counts.min(initial=0)) for counts in recording.values())
    edges = np.linspace(0, 1, 41) if graded else np.arange(min(low, 0) - 0.5, max(largest, 1) + 1.5)
    for name, counts in recording.items():
        chosen = counts[counts != 0] / (32767 if graded else 1)
        if chosen.size:
            weights = np.full(chosen.size, 100 / chosen.size)
            axes.hist(chosen, edges, weights=weights, histtype="step", label=name)
    label = "value of an event" if graded else "spikes of a unit at a token"
    axes.set(xlabel=label, ylabel="% of events", title="how large events are")
    if len(recording) <= 12 and axes.patches:
        axes.legend()
    return _png(figure)


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

"""Pictures of a run and of a family of runs, with matplotlib."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from spiketrain.runtime.durable_files import new_file


def plot_curves(log: Path, target: Path, title: str) -> None:
    """Loss and firing rates over tokens, from a run's log.jsonl, as a PNG."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [r for r in records if "loss" in r]
    valid = [r for r in records if "valid_nll" in r]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    for chosen, key, style, label in (
        (steps, "loss", "-", "training"),
        (valid, "valid_nll", "o-", "valid"),
    ):
        left.plot([r["tokens"] / 1e6 for r in chosen], [r[key] for r in chosen], style, label=label)
    left.set(xlabel="million tokens", ylabel="nats per token", title=title)
    left.legend(loc="upper right")
    for layer in range(len(steps[0]["firing_rates"]) if steps else 0):
        rates = [100 * r["firing_rates"][layer] for r in steps]
        right.plot([r["tokens"] / 1e6 for r in steps], rates, lw=0.8, label=f"layer {layer + 1}")
    right.set(xlabel="million tokens", ylabel="% of units with an event", ylim=(0, 100))
    if right.lines:  # a dense model has no events
        right.legend(loc="upper right")
    _save(figure, target)


def plot_activity(report: dict[str, Any], target: Path) -> None:
    """Bits per byte over the share of zero outputs, a point for each price of an event."""
    curve = report["activity_curve"]
    zeros = [100 * (1 - _mean_rate(report, point["valid_firing_rates"])) for point in curve]
    bits = [point["valid_bits_per_byte"] for point in curve]
    figure, axes = plt.subplots(figsize=(7, 4.5), constrained_layout=True)
    axes.plot(zeros, bits, "o-", label="EGRU, price of an event in nats")
    for x, y, point in zip(zeros, bits, curve, strict=True):
        axes.annotate(f"{point['penalty']:g}", (x, y), xytext=(4, 6), textcoords="offset points")
    lstm = report["lstm"]["valid_bits_per_byte"]
    axes.axhline(lstm, color="0.4", ls="--", lw=1, label="dense LSTM of equal parameters")
    axes.set(xlabel="% zero outputs, all layers", ylabel="bits per byte on stories/valid")
    axes.legend(loc="upper left")
    _save(figure, target)


def _mean_rate(report: dict[str, Any], rates: list[float]) -> float:
    """Firing rate over all units, from the rates of the layers."""
    sizes = report["egru_config"]["model"]["hidden_sizes"]
    return sum(r * size for r, size in zip(rates, sizes, strict=True)) / sum(sizes)


def _save(figure: Any, target: Path) -> None:
    """Write a picture and forget it. Raises WriteError."""
    try:
        with new_file(target) as stream:
            figure.savefig(stream, dpi=110, format="png")
    finally:
        plt.close(figure)

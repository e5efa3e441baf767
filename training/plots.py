"""Pictures of a run and of a family of runs, with matplotlib."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


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
    left.legend()
    for layer in range(len(steps[0]["firing_rates"]) if steps else 0):
        rates = [100 * r["firing_rates"][layer] for r in steps]
        right.plot([r["tokens"] / 1e6 for r in steps], rates, lw=0.8, label=f"layer {layer + 1}")
    right.set(xlabel="million tokens", ylabel="% of units with an event", ylim=(0, 100))
    right.legend()
    figure.savefig(target, dpi=110)
    plt.close(figure)

"""The picture of kernels.py: share of the read bandwidth and gain over dense by density."""

from __future__ import annotations

from typing import Any


def plot(shapes: list[dict[str, Any]], file: str) -> None:
    """Write it to `file`: a column for each product (needs matplotlib)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(shapes[0]["crosses_at"])
    figure, axes = plt.subplots(
        2, len(names), figsize=(4 * len(names), 7), squeeze=False, sharex=True, layout="constrained"
    )
    for column, name in enumerate(names):
        share, gain = axes[0][column], axes[1][column]
        for result in shapes:
            rows = sorted((r for r in result["rows"] if r["product"] == name), key=_percent)
            percents = [r["percent"] for r in rows]
            label = " x ".join(str(size) for size in result["shape"])
            share.plot(percents, [100 * r["share_of_read"] for r in rows], "o-", label=label)
            gain.plot(percents, [r["than_dense"] for r in rows], "o-", label=label)
        gain.plot(percents, [100 / p for p in percents], "k:", label="bytes of dense / touched")
        gain.axhline(1.0, color="0.6", lw=1)
        share.set(title=name, ylabel="% of sequential read", xscale="log", ylim=(0, None))
        gain.set(xlabel="% of inputs active", ylabel="faster than dense by", yscale="log")
    axes[0][0].legend()
    axes[1][0].legend()
    figure.savefig(file, dpi=110)


def _percent(row: dict[str, Any]) -> float:
    return row["percent"]

"""What a run shows on the terminal while it trains."""

import math

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bar(quiet: bool) -> Progress:
    """A bar over a run's chunks; nothing at all if quiet."""
    return Progress(
        TextColumn("{task.percentage:>5.1f}%"),
        BarColumn(bar_width=24),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        disable=quiet,
    )


def describe(record: dict) -> str:
    """A line of the log for people: loss, perplexity, firing rates, tokens a second."""
    rates = " ".join(f"{rate:.2f}" for rate in record["firing_rates"])
    speed = record["tokens"] / max(record["seconds"], 1e-9)
    return (
        f"loss {record['loss']:.3f}  ppl {math.exp(min(record['loss'], 20)):.1f}  "
        f"firing {rates}  {speed:,.0f} tokens/s"
    )

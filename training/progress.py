"""Shows the progress of a run on the terminal."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from spiketrain.lm.progress import OnProgress


def progress_bar(quiet: bool) -> Progress:
    """A bar over a run's chunks; nothing at all if quiet."""
    return Progress(
        TextColumn("{task.percentage:>5.1f}%"),
        BarColumn(bar_width=24),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        disable=quiet,
    )


@contextmanager
def step_bar(name: str, quiet: bool) -> Iterator[OnProgress]:
    """A bar on standard error for one step of a conversion, gone when the step is over."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def tell(line: str) -> None:
    """A line on standard error that stays."""
    Console(stderr=True).print(line, markup=False, highlight=False)


def describe(record: dict) -> str:
    """A line of the log for people: loss, perplexity, firing rates, tokens a second."""
    rates = " ".join(f"{rate:.2f}" for rate in record["firing_rates"])
    speed = record["tokens"] / max(record["seconds"], 1e-9)
    return (
        f"loss {record['loss']:.3f}  ppl {math.exp(min(record['loss'], 20)):.1f}  "
        f"firing {rates}  {speed:,.0f} tokens/s"
    )

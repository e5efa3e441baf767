"""`spiketrain bench`: how fast a package runs on this machine, in one table."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from spiketrain.commands.exit_codes import INTERRUPTED
from spiketrain.commands.model_argument import (
    BUNDLED,
    DEFAULT_TABLE_BYTES,
    NO_DIAL,
    TABLE_BYTES_HELP,
    DialOption,
    ModelArgument,
    model_directory,
)
from spiketrain.commands.output_path import check_output

app = typer.Typer(add_completion=False)


@app.command()
def bench(
    model: ModelArgument = BUNDLED,
    contexts: Annotated[
        str, typer.Option(help="Tokens read before decoding is timed.")
    ] = "0,4096,16384,65536,262144",
    prefills: Annotated[str, typer.Option(help="Lengths of prompts.")] = "128,512,2048,8192",
    batches: Annotated[str, typer.Option(help="Sequences in one call.")] = "1,4,16,64",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens decoded in a round.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; times are their medians.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Most threads; default: the machine's processors.")
    ] = None,
    table_bytes: Annotated[int, typer.Option(help=TABLE_BYTES_HELP, min=0)] = DEFAULT_TABLE_BYTES,
    dial: DialOption = NO_DIAL,
    png: Annotated[Path | None, typer.Option(help="Write a picture of speed by context.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time decoding by context, threads and batch, and prefill, with the bandwidth limit."""
    asked = {
        "contexts": numbers("--contexts", contexts, 0),
        "prefills": numbers("--prefills", prefills, 1),
        "batches": numbers("--batches", batches, 1),
    }
    check_output(png, "--png")
    if png is not None:
        from spiketrain.commands.extras import need_plot_extra

        need_plot_extra()
    from spiketrain.evaluation.bench import Bench, read_bandwidth
    from spiketrain.evaluation.perplexity import resident_bytes

    most = threads or len(os.sched_getaffinity(0))
    bandwidth = read_bandwidth()
    before = resident_bytes()
    made = Bench(str(model_directory(model)), tokens, rounds, table_bytes, dial)
    made.model(1)
    found: dict[str, Any] = {
        "model": model,
        "fingerprint": made.model(1).fingerprint,
        "state_bytes": made.model(1).state_nbytes,
        "memory_of_loading_bytes": resident_bytes() - before,
        "read_bytes_per_s": bandwidth,
        "dial": made.model(1).dial,
        "tokens_a_round": tokens,
        "rounds": rounds,
    }
    found["interrupted"] = not _complete(
        found,
        {
            "by_context": made.by_context(1, asked["contexts"], bandwidth),
            "by_batch": made.by_batch(1, asked["batches"]),
            "prefill": made.prefill(1, asked["prefills"]),
            "by_threads": made.by_threads(most),
        },
    )
    if png is not None and found["by_context"]:
        from spiketrain.evaluation.pictures import by_context
        from spiketrain.runtime.durable_files import replace_file

        replace_file(png, by_context(found["by_context"]))
    if as_json:
        print(json.dumps(found, allow_nan=False))
    else:
        print_table(found)
    if found["interrupted"]:
        typer.echo("interrupted: the rows above are those that were measured", err=True)
        raise typer.Exit(INTERRUPTED)


def _complete(found: dict[str, Any], parts: dict[str, Iterator[dict[str, Any]]]) -> bool:
    """Measure the rows of all parts, in order; False if Ctrl-C came first, with rows so far."""
    found |= {name: [] for name in parts}
    try:
        for name, rows in parts.items():
            for row in rows:
                found[name].append(row)
    except KeyboardInterrupt:
        return False
    return True


def numbers(flag: str, text: str, least: int) -> list[int]:
    """Whole numbers with commas between them; a usage error where one is not, or below `least`."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= least for part in parts):
        rule = f"must be whole numbers of at least {least} with commas between, got {text}"
        raise typer.BadParameter(rule, param_hint=flag)
    return [int(part) for part in parts]


def print_table(found: dict[str, Any]) -> None:
    """One table, a row for each figure, on stdout."""
    from rich.console import Console
    from rich.table import Table

    dial = f", dial {found['dial']:g}" if found["dial"] != NO_DIAL else ""
    table = Table("what", "at", title=f"{found['model']}: {found['fingerprint']}{dial}")
    for name in ("tokens/s", "weights a token", "of read bandwidth", "remark"):
        table.add_column(name, justify="right")
    for row in found["by_context"]:
        table.add_row(
            "decode, 1 thread", f"context {row['context']:,}", f"{row['tokens_per_s']:,.0f}",
            f"{row['weight_bytes_per_token'] / 1e6:,.2f} MB",
            f"{100 * row['share_of_read_bandwidth']:.0f} %", f"state {row['state_bytes']:,} B",
        )  # fmt: skip
    for row in found["by_threads"]:
        table.add_row("decode", f"{row['threads']} threads", f"{row['tokens_per_s']:,.0f}")
    for row in found["by_batch"]:
        remark = f"{row['a_sequence']:,.0f} a sequence"
        at = f"batch {row['batch']}"
        table.add_row("decode, 1 thread", at, f"{row['tokens_per_s']:,.0f}", "", "", remark)
    for row in found["prefill"]:
        remark = f"first token after {1e3 * row['first_token_s']:,.1f} ms"
        at = f"{row['tokens']:,} tokens"
        table.add_row("prefill, 1 thread", at, f"{row['tokens_per_s']:,.0f}", "", "", remark)
    memory = found["memory_of_loading_bytes"] / 1e6
    table.caption = (
        f"medians of {found['rounds']} rounds of {found['tokens_a_round']} tokens; read bandwidth "
        f"{found['read_bytes_per_s'] / 1e9:.1f} GB/s on one thread; loading took {memory:,.0f} MB"
    )
    Console(width=None if sys.stdout.isatty() else 130, markup=False, highlight=False).print(table)

"""`spiketrain eval activity`: what a model does while it reads a text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spiketrain.commands.eval.ppl import Backend, Split
from spiketrain.commands.exit_codes import INTERRUPTED
from spiketrain.commands.extras import need_plot_extra
from spiketrain.commands.model_argument import (
    BUNDLED,
    DEFAULT_TABLE_BYTES,
    NO_DIAL,
    TABLE_BYTES_HELP,
    DialOption,
    ModelArgument,
)
from spiketrain.commands.output_path import check_output

if TYPE_CHECKING:
    from spiketrain.evaluation.stop import Stop

ESTIMATES = {
    "compute_pj": "arithmetic alone",
    "with_memory_low_pj": "with memory, DRAM at 1.3 nJ / 64 bits",
    "with_memory_high_pj": "with memory, DRAM at 2.6 nJ / 64 bits",
}


def activity(
    data: Annotated[
        str, typer.Option(help="Text, .xz, .jsonl, a folder of those, or `wikitext2`.")
    ],
    model: ModelArgument = BUNDLED,
    split: Annotated[Split, typer.Option(help="Which part of wikitext2.")] = Split.test,
    limit: Annotated[int, typer.Option(min=2, help="Tokens to read.")] = 2000,
    record: Annotated[
        int, typer.Option(min=0, help="Of them, tokens in which every unit is recorded.")
    ] = 1000,
    backend: Annotated[
        Backend, typer.Option(help="A package runs in the runtime, a checkpoint in torch.")
    ] = Backend.runtime,
    dial: DialOption = NO_DIAL,
    html: Annotated[
        Path | None, typer.Option(help="Write a self-contained page with pictures.")
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Write the pictures to this folder.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the model.")] = 1,
    table_bytes: Annotated[int, typer.Option(help=TABLE_BYTES_HELP, min=0)] = DEFAULT_TABLE_BYTES,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Tokenizer file for a model without one; .txt: one word a line."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Firing rates, skipped rows, operations, bytes and energy estimates, one number each."""
    from spiketrain.commands.eval.models import choose_tokenizer, open_model
    from spiketrain.evaluation.activity import measure_activity, tokens_of
    from spiketrain.evaluation.sources import open_source
    from spiketrain.evaluation.stop import stop_on_interrupt

    check_output(html, "--html")
    if png is not None:
        png.mkdir(parents=True, exist_ok=True)
    source = open_source(data, split.value)
    loaded, own = open_model(model, backend is Backend.torch, threads, table_bytes, dial)
    words = choose_tokenizer(own, tokenizer, data, loaded.vocab_size, model)
    tokens = tokens_of(loaded, words, source, limit)
    if html is not None or png is not None:
        need_plot_extra()
    with stop_on_interrupt() as stop:
        report, recording = measure_activity(loaded, tokens, record, stop)
        report |= {
            "model": model,
            "data": source.name,
            "backend": backend.value,
            "dial": loaded.dial,
            "tokenizer_hash": words.hash,
            "data_hash": source.hash,
        }
        if html is not None or png is not None:
            _draw(loaded, tokens, report, recording, html, png, stop)
    report["interrupted"] = stop.requested
    if as_json:
        print(json.dumps(report, allow_nan=False))
    else:
        print_report(report)
    if stop.requested:
        _say_interrupted(report, int(tokens.size), min(record, int(tokens.size)))
        raise typer.Exit(INTERRUPTED)


def _draw(
    model: Any,
    tokens: Any,
    report: dict[str, Any],
    recording: Any,
    html: Path | None,
    png: Path | None,
    stop: Stop,
) -> None:
    """Write the page and the pictures; pieces of 1/32 of the text, at most 1024 tokens."""
    from spiketrain.evaluation.activity_report import draw, write_html, write_pngs
    from spiketrain.evaluation.positions import perplexity_by_position

    length = min(1024, int(tokens.size - 1) // 32)
    positions = perplexity_by_position(model, tokens, length, stop) if length else None
    pngs = draw(report, recording, positions)
    if png is not None:
        write_pngs(pngs, png)
    if html is not None:
        write_html(report, pngs, html)


def _say_interrupted(report: dict[str, Any], asked: int, to_record: int) -> None:
    typer.echo(
        f"interrupted: counted {report['tokens']:,} of {asked:,} tokens, recorded "
        f"{report['recorded_tokens']:,} of {to_record:,}",
        err=True,
    )


def print_report(report: dict[str, Any]) -> None:
    """The report for people, on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 130, markup=False, highlight=False)
    tokens = report["tokens"]
    dial = f", dial {report['dial']:g}" if report["dial"] != NO_DIAL else ""
    table = Table(title=f"{report['model']} on {report['data']}, a token, {tokens:,} tokens{dial}")
    for name in ("layer", "firing rate", "zero outputs", "silent rows", "updates", "dense SynOps",
                 "effective MACs", "effective ACs", "weight kB", "dense kB"):  # fmt: skip
        left = name == "layer"
        table.add_column(name, justify="left" if left else "right", no_wrap=left)
    for row in (*report["layers"], report["total"]):
        sums = [row["neuron_updates"], row["synops_dense"], row["synops_effective_macs"],
                row["synops_effective_acs"]]  # fmt: skip
        table.add_row(
            row["name"],
            *(
                _percent(row[key])
                for key in ("firing_rate", "activation_sparsity", "silent_row_fraction")
            ),
            *(f"{value / tokens:,.0f}" for value in sums),
            f"{row['weight_bytes_touched'] / tokens / 1e3:,.1f}",
            f"{row['weight_bytes_dense'] / tokens / 1e3:,.1f}",
        )
    table.caption = "\n".join(
        f"{name} {report[key]}"
        for name, key in (("model", "fingerprint"), ("tokenizer", "tokenizer_hash"),
                          ("text", "data_hash"))
    )  # fmt: skip
    console.print(table)
    if report["units"]:
        console.print(_units_table(report))
    console.print(_energy_table(report))


def _units_table(report: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title=f"units, in {report['recorded_tokens']:,} recorded tokens")
    for name in ("place", "units", "dead", "saturated", "firing rate", "mean count", "5, 50, 95 %, "
                 "largest", "binary", "ternary", "bitwise"):  # fmt: skip
        left = name == "place"
        table.add_column(name, justify="left" if left else "right", no_wrap=left)
    for name, row in report["units"].items():
        trains = [f"{one['steps']:,}: {one['spikes_per_unit']:.3g}" for one in row["expansions"]]
        table.add_row(
            name,
            *(f"{row[key]:,}" for key in ("units", "dead", "saturated")),
            _percent(row["firing_rate"]),
            f"{row['mean_count']:,.4g}",
            ", ".join(f"{value:,.0f}" for value in row["count_quantiles"]),
            *trains,
        )
    table.caption = "expansions: time steps: spikes a unit and token; bits: see --json"
    return table


def _energy_table(report: dict[str, Any]) -> Any:
    from rich.table import Table

    found = report.get("energy_per_token")
    table = Table("estimate, nJ a token", title="energy", show_lines=False)
    for name in ("event-driven", "dense, same bits"):
        table.add_column(name, justify="right")
    if found is not None:
        both = (found["event_driven"], found["dense_same_bits"])
        for key, label in ESTIMATES.items():
            table.add_row(label, *(f"{one[key] / 1e3:,.1f}" for one in both))
        table.caption = (
            f"MAC: {found['mac_formula']} pJ, add: {found['add_pj']} pJ; {found['source']}"
        )
    joules = report["joules_measured"]
    rate = f"{report['tokens_per_s']:,.0f} tokens/s here"
    measured = report["joules_note"]
    if joules is not None:
        measured = f"{1e9 * joules / report['tokens']:,.0f} nJ a token ({measured})"
    table.add_row(f"measured: {measured}; {rate}", "", "")
    return table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"

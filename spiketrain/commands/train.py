"""`spiketrain train`: fit a model from a TOML recipe."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The recipe (TOML).")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default runs/<name>.")
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a field: section.field=value. May be repeated."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, bit for bit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit a model with surrogate gradients; the folder gets log, curves, checkpoint and model."""
    import json
    import sys

    from spiketrain.commands.extras import need_train_extra

    need_train_extra()
    from spiketrain.training.config import load_config
    from spiketrain.training.loop import train as run

    recipe = load_config(config, override)
    folder = out or Path("runs", recipe.name)
    result = run(recipe, config, folder, resume, quiet or not sys.stderr.isatty())
    if as_json:
        typer.echo(json.dumps(result))
    else:
        rates = ", ".join(f"{100 * rate:.1f} %" for rate in result["valid_firing_rates"])
        typer.echo(
            f"{result['name']}: {result['valid_bits_per_byte']:.4f} bits per byte on valid, "
            f"firing rates {rates}, {result['tokens']:,} tokens in {result['seconds']:,.0f} s\n"
            f"{folder}"
        )

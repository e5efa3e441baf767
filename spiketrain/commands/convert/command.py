"""The command `spiketrain convert`, whose flags are the fields of all options objects."""

from typing import Any

import typer

from spiketrain.commands.convert.kinds import options_from, signature

app = typer.Typer(add_completion=False)


def convert(**values: Any) -> None:
    """Convert a checkpoint. The source keeps its precision unless --weights says otherwise."""
    options = options_from(values)
    options.check_inputs()
    options.convert()


convert.__signature__ = signature()  # type: ignore[attr-defined]
convert.__annotations__ = {}  # the signature has the types; a name here would hide them
app.command()(convert)

"""`spiketrain export`: a model in a format of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from spiketrain.commands.model_argument import ModelArgument, model_directory

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def export() -> None:
    """Write a model in another format."""


@app.command()
def nir(
    model: ModelArgument,
    target: Annotated[Path, typer.Argument(help="File to write, as a rule *.nir.")],
    parts: Annotated[
        bool,
        typer.Option("--parts", help="Write the stretches with LIF units of what cannot be whole."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a NIR graph; what has no node in NIR is refused by name."""
    from spiketrain.commands.extras import need_nir_extra
    from spiketrain.runtime.package import read_package

    need_nir_extra()
    from spiketrain.export.nir_file import to_graph, write_graph

    package = read_package(model_directory(model))
    graph, stretches, lacking = to_graph(package, parts)
    write_graph(graph, target, force)
    found: dict[str, Any] = {
        "target": str(target),
        "parts": [[f"{one.place} ({one.node})" for one in stretch] for stretch in stretches],
        "elsewhere": [{"place": one.place, "what": one.what} for one in lacking],
    }
    if as_json:
        print(json.dumps(found))
        return
    for part in found["parts"]:
        print(" -> ".join(["input", *part, "output"]))
    print(f"{target}: {len(graph.nodes)} nodes; {len(found['elsewhere'])} operations have none:")
    for one in found["elsewhere"]:
        print(f"  {one['place']}: {one['what']}")

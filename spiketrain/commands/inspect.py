"""`spiketrain inspect`: what is in a package, with sizes. Loads no kernel and runs nothing.

What a package says of itself is printed without control characters and without markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spiketrain.commands.model_argument import BUNDLED, ModelArgument, model_directory

if TYPE_CHECKING:
    from spiketrain.runtime.package import Package

app = typer.Typer(add_completion=False)


@app.command()
def inspect(
    model: ModelArgument = BUNDLED,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what is in a package, with sizes."""
    from spiketrain.runtime.package import read_package

    found = describe(read_package(model_directory(model)))
    if as_json:
        print(json.dumps(found, allow_nan=False))
    else:
        print_tables(found)


def describe(package: Package) -> dict[str, Any]:
    """Everything that inspect shows, ready for JSON."""
    ours = package.config["spiketrain"]
    described = {"model_type", "architectures", "spiketrain"}
    tensors = {
        name: {"dtype": str(array.dtype), "shape": list(array.shape), "bytes": array.nbytes}
        for name, array in sorted(package.tensors.items())
    }
    return {
        "path": str(package.path),
        "family": package.family,
        "format_version": ours["format_version"],
        "fingerprint": package.fingerprint,
        "fidelity": ours["fidelity"],
        "weights": ours["weights"],
        "events": ours["events"],
        "max_dial": package.spec.max_dial,
        "config": {k: v for k, v in package.config.items() if k not in described},
        "parameters": package.spec.num_parameters,
        "tensor_bytes": sum(array.nbytes for array in package.tensors.values()),
        "state_bytes": package.spec.state_nbytes,
        "state_formula": package.spec.state_formula,
        "tensors": tensors,
        "tokenizer": describe_tokenizer(package),
        "generation": package.generation_config,
        "provenance": ours["provenance"],
        "files": {
            file.name: file.stat().st_size
            for file in sorted(package.path.iterdir())
            if file.is_file()
        },
    }


def describe_tokenizer(package: Package) -> dict[str, Any] | None:
    """Kind, size and hash of the package's tokenizer."""
    from spiketrain.runtime.tokenizer import load_tokenizer

    if package.tokenizer_file is None:
        return None
    tokenizer = load_tokenizer(package.tokenizer_file)
    return {"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size, "hash": tokenizer.hash}


def print_tables(found: Mapping[str, Any]) -> None:
    """What the package is, then its files and its tensors, on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 110, markup=False, highlight=False)
    single = ("family", "format_version", "fidelity", "weights", "events", "max_dial", "config")
    table = Table(title=plain(found["path"]), show_header=False)
    for key in single:
        table.add_row(key, plain(found[key]))
    table.add_row("parameters", f"{found['parameters']:,}")
    table.add_row("tensor bytes", f"{found['tensor_bytes']:,}")
    table.add_row("state per sequence", found["state_formula"])
    for key in ("tokenizer", "generation", "provenance", "fingerprint"):
        table.add_row(key, plain(found[key]))
    console.print(table)

    table = Table("file", title="files")
    table.add_column("bytes", justify="right")
    for name, size in found["files"].items():
        table.add_row(plain(name), f"{size:,}")
    console.print(table)

    table = Table("tensor", "dtype", "shape", title="tensors")
    table.add_column("bytes", justify="right")
    for name, tensor in found["tensors"].items():
        shape = " x ".join(map(str, tensor["shape"]))
        table.add_row(plain(name), tensor["dtype"], shape, f"{tensor['bytes']:,}")
    console.print(table)


def plain(value: Any) -> Any:
    """Printable text, safe on any terminal; an object as `key: value` pairs."""
    from rich.text import Text

    if isinstance(value, dict):
        text = "\n".join(f"{key}: {item}" for key, item in value.items())
    else:
        text = "none" if value is None else str(value)
    return Text("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))

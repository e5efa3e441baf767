"""The `spiketrain` command: names and one-line helps of the subcommands, nothing of their work.

A subcommand is the module `spiketrain.commands.<name>` with a Typer application `app`. It is
imported when it is called, so that `spiketrain serve` never pays for, or needs, torch.

Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted.
"""

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS = {
    "serve": "Serve a model over gRPC.",
    "generate": "Continue a prompt, in process or over gRPC.",
    "chat": "Talk to a model, in process or over gRPC.",
    "eval": "Measure a model on text.",
    "bench": "Time a package on this machine.",
    "train": "Fit a model from a TOML configuration.",
    "convert": "Turn a checkpoint into a package.",
    "export": "Write a model in another format.",
    "inspect": "Show what is in a package, with sizes.",
}


def load_command(name: str) -> Any:
    """Import the module of subcommand `name` and return its click command."""
    module = importlib.import_module(f"spiketrain.commands.{name}")
    command = typer.main.get_command(module.app)
    command.name = name
    return command


class LateGroup(TyperGroup):
    """A group that shows its commands without importing them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, in the order in which help shows them."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a stand-in that bears name and help, or None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the real command for the first of `args`; unknown names are usage errors."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(str(command.name)) if command else None, rest


app = typer.Typer(
    cls=LateGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"spiketrain {version('spiketrain')}")
        raise typer.Exit


@app.callback()
def spiketrain(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Train, package, run and serve spiking language models."""


def _is_domain_error(error: Exception) -> bool:
    from spiketrain.runtime.errors import SpiketrainError

    return isinstance(error, SpiketrainError | OSError)


def main() -> None:
    """Run the command line of this process; an error of the input is one line, no traceback."""
    try:
        app()
    except Exception as error:
        if not _is_domain_error(error):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)

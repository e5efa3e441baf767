"""Files that a command reads or writes when long work is over, checked before it starts."""

from pathlib import Path

import typer


def check_output(path: Path | None, flag: str) -> None:
    """A usage error unless a file can be at `path`, if there is one."""
    if path is None:
        return
    if path.is_dir() or not path.absolute().parent.is_dir():
        rule = f"must be a file in a folder that exists, got {path}"
        raise typer.BadParameter(rule, param_hint=flag)


def check_input(path: Path, flag: str) -> None:
    """A usage error unless a file is at `path`."""
    if not path.is_file():
        raise typer.BadParameter(f"must be a file, got {path}", param_hint=flag)

"""What every conversion has: source, target, formats, files, and its own command line."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from spiketrain.commands.convert.flag import Flag, Option, flags_of
from spiketrain.commands.convert.rules import one_of
from spiketrain.commands.output_path import check_input

FORMATS = ("float32", "bfloat16", "int8", "int4")


@dataclass(frozen=True, kw_only=True)
class Options(ABC):
    """The options of one kind of source; each field is a flag, see `Option`.

    kind: how the help names sources of this kind.  A value that breaks its flag's rule, or does
    not go with another, raises typer.BadParameter when the object is made.
    """

    kind: ClassVar[str]

    source: Annotated[
        Path,
        Option(
            help="A training run, a Hugging Face directory, an official .cpt, .pth, or a .gguf.",
            argument=True,
        ),
    ]
    target: Annotated[Path, Option(help="The package to write.", argument=True)]
    weights: Annotated[
        str | None,
        Option(
            help="float32, bfloat16, int8 or int4; default: the source's precision.",
            rule=one_of(*FORMATS),
        ),
    ] = None
    head_weights: Annotated[
        str | None,
        Option(help="Format of the head alone; default: that of --weights.", rule=one_of(*FORMATS)),
    ] = None
    tokenizer: Annotated[
        Path | None,
        Option(help="tokenizer.json or .model, or characters (vocab.json), to take along."),
    ] = None
    extra: Annotated[
        tuple[Path, ...], Option(spelling="--file", help="A further file to take along.")
    ] = ()
    licence: Annotated[str, Option(help="Licence of the weights.")] = "unknown"
    force: Annotated[
        bool,
        Option(spelling="--force", help="Replace an existing package.", of_attempt=True),
    ] = False

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise typer.BadParameter for a value that cannot be, or does not go with another."""
        for flag in flags_of(type(self)).values():
            flag.check(getattr(self, flag.name))

    def check_inputs(self) -> None:
        """Raise typer.BadParameter where a file to take along is not there."""
        for path in self.extra:
            check_input(path, "--file")

    @abstractmethod
    def convert(self) -> None:
        """Write the package; what was decided goes to stderr."""

    @classmethod
    def refusal(cls, flag: Flag, value: Any, source: Path) -> Exception:
        """The error for a flag that this kind of source does not have."""
        return flag.refusal(flag.option.not_for or f"is not for {cls.kind}", value)

    def command(self) -> str:
        """The command line that these options are parsed from."""
        values = {flag: getattr(self, flag.name) for flag in flags_of(type(self)).values()}
        paths = [str(value) for flag, value in values.items() if flag.option.argument]
        words = [
            word
            for flag, value in values.items()
            if not flag.option.argument
            for word in flag.words(value)
        ]
        dashed = any(path.startswith("-") for path in paths)
        words = [*words, "--", *paths] if dashed else [*paths, *words]
        return shlex.join(["spiketrain", "convert", *words])

    def provenance(self) -> Mapping[str, Any]:
        """What the package records: a run of its command makes the package again."""
        flags = flags_of(type(self)).values()
        attempt = {flag.name: flag.default for flag in flags if flag.option.of_attempt}
        return {
            "source": self.source.name,
            "command": replace(self, **attempt).command(),
            "licence": self.licence,
        }

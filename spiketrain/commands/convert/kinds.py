"""The kinds of source that convert knows, and which one a command line is about."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spiketrain.commands.convert.checkpoint_options import (
    CheckpointOptions,
    Directory,
    OfficialEgru,
    OfficialSpikeGpt,
    PublishedSpikingBrain,
    Run,
    Rwkv4Directory,
)
from spiketrain.commands.convert.flag import Flag, flags_of
from spiketrain.commands.convert.gguf_options import GgufToSpiking
from spiketrain.commands.convert.options import Options
from spiketrain.commands.convert.recipe_options import (
    GruToEgru,
    RecipeOptions,
    RwkvToSpikeGpt,
    TransformerToSpiking,
)
from spiketrain.commands.extras import need_train_extra
from spiketrain.runtime.errors import SpiketrainError

CHECKPOINTS: tuple[type[CheckpointOptions], ...] = (
    Run,
    Directory,
    OfficialEgru,
    OfficialSpikeGpt,
    Rwkv4Directory,
    PublishedSpikingBrain,
)
RECIPES: tuple[type[RecipeOptions], ...] = (GruToEgru, RwkvToSpikeGpt, TransformerToSpiking)
_GGUF_MAGIC = b"GGUF"
KINDS: tuple[type[Options], ...] = (*CHECKPOINTS, *RECIPES, GgufToSpiking)


def options_from(values: Mapping[str, Any]) -> Options:
    """The options of a command line: values by the names of all flags, None where not given.

    Raises typer.BadParameter for a flag that this kind of source does not have, or a value that
    cannot be; SpiketrainError for an unknown recipe or a source that has to be opened to be known,
    and is broken.
    """
    kind = _kind(values["source"], values["recipe"])
    flags = flags_of(kind)
    for name, flag in all_flags().items():
        if name not in flags and values[name]:
            raise kind.refusal(flag, values[name], values["source"])
    free = {name: flag for name, flag in flags.items() if not flag.fixed}
    return kind(**{name: _plain(flag, values[name]) for name, flag in free.items()})


def all_flags() -> dict[str, Flag]:
    """The flags of all kinds by the names of their fields, in the order of the help."""
    return {name: flag for kind in KINDS for name, flag in flags_of(kind).items()}


def signature() -> inspect.Signature:
    """The parameters of the command: each flag once, with the kinds that have it."""
    flags = all_flags()
    return inspect.Signature([flag.parameter(_who_has(name)) for name, flag in flags.items()])


def _who_has(name: str) -> str:
    """The kinds that have a flag, in words; "" for all."""
    kinds = [kind for kind in KINDS if name in flags_of(kind)]
    if len(kinds) == len(KINDS) or name == "recipe":
        return ""
    names = [kind.kind for kind in kinds if kind not in RECIPES]
    if set(CHECKPOINTS) <= set(kinds):
        others = [kind.kind for kind in kinds if kind not in (*CHECKPOINTS, *RECIPES)]
        names = ["checkpoints", *others]
    recipes = [kind.kind for kind in kinds if kind in RECIPES]
    names += ["--recipe"] if len(recipes) == len(RECIPES) else recipes
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _plain(flag: Flag, value: Any) -> Any:
    return tuple(value or ()) if flag.repeats else value


def _kind(source: Path, recipe: str | None) -> type[Options]:
    """The kind of source; SpiketrainError where it needs an extra that is not installed."""
    if _is_gguf(source):
        if recipe != GgufToSpiking.recipe:
            rule = f"--recipe must be {GgufToSpiking.recipe} for a GGUF file"
            raise SpiketrainError(f"{source}: {rule}, got {recipe or 'none'}")
        return GgufToSpiking
    need_train_extra()
    return _checkpoint_kind(source) if recipe is None else _recipe_kind(recipe)


def _is_gguf(source: Path) -> bool:
    """Whether this is a GGUF file by its name, or by its first bytes."""
    if not source.is_file():
        return False
    with source.open("rb") as file:
        return source.suffix == ".gguf" or file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC


def _recipe_kind(recipe: str) -> type[Options]:
    by_name = {flags_of(kind)["recipe"].default: kind for kind in RECIPES}
    if recipe not in by_name:
        raise SpiketrainError(f"recipe must be one of {tuple(by_name)}, got {recipe!r}")
    return by_name[recipe]


def _checkpoint_kind(source: Path) -> type[Options]:
    """The kind of the reader that knows `source`; one of another name reads models of ours."""
    from spiketrain.lm.checkpoint import recognise

    name = recognise(source).name
    return next((kind for kind in CHECKPOINTS if kind.reader == name), Directory)

"""The options of recipes: an artificial network becomes a spiking one."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from spiketrain.commands.convert.flag import Flag, Option, flags_of
from spiketrain.commands.convert.options import Options
from spiketrain.commands.convert.shared_flags import (
    Calib,
    FoldProjection,
    InputSparsity,
    MaxDial,
    OutputSparsity,
    WindowCache,
)

_RECIPE = "needs --recipe"
RecipeName = Annotated[
    str,
    Option(
        help="gru-to-egru, rwkv-to-spikegpt or transformer-to-spiking: SOURCE is the run of a"
        " GRU, an RWKV-4 or a Llama, or the Hugging Face directory or GGUF file of a Llama, Qwen2"
        " or Qwen3."
    ),
]


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(Options, ABC):
    """What all recipes have."""

    recipe: RecipeName = field(init=False)
    calib: Calib = None
    measure: Annotated[
        Path | None,
        Option(help="The text that each step is measured on, else --calib.", not_for=_RECIPE),
    ] = None
    variant: Annotated[
        str | None,
        Option(
            help="gru-to-egru: paired (default; units for h and -h) or single;"
            " rwkv-to-spikegpt: residual (default; as published) or projections (spike-driven);"
            " transformer-to-spiking: hybrid (default), hybrid-chosen (windows where linear layers"
            " cost most) or linear, with first decays that suit the calibration text best;"
            " -spread: from 8 tokens to the context; -published: upstream's.",
            not_for=_RECIPE,
        ),
    ] = None
    fine_tune: Annotated[
        Path | None, Option(help="Training recipe (TOML) to go on with.", not_for=_RECIPE)
    ] = None
    override: Annotated[
        tuple[str, ...],
        Option(spelling="--set", help="Replace a field of --fine-tune's recipe.", not_for=_RECIPE),
    ] = ()

    @classmethod
    def refusal(cls, flag: Flag, value: Any, source: Path) -> Exception:
        """A usage error for every flag."""
        return flag.refusal(flag.option.not_for or "excludes --recipe", value)

    def check(self) -> None:
        """Recipes calibrate on a text; overrides need a recipe to override."""
        super().check()
        if self.calib is None:
            rule = "a recipe needs a text to calibrate on"
            raise typer.BadParameter(rule, param_hint="--calib")
        if self.override and self.fine_tune is None:
            raise typer.BadParameter("needs --fine-tune", param_hint="--set")

    @property
    def calibration(self) -> Path:
        """The text that the recipe calibrates on."""
        assert self.calib is not None  # as `check` says
        return self.calib


@dataclass(frozen=True, kw_only=True)
class GruToEgru(RecipeOptions):
    """The run of a GRU becomes an EGRU."""

    kind: ClassVar[str] = "--recipe gru-to-egru"

    recipe: RecipeName = field(init=False, default="gru-to-egru")
    target_sparsity: OutputSparsity = None
    fold_projection: FoldProjection = False

    def convert(self) -> None:
        """Copy, calibrate, fine-tune, write."""
        from spiketrain.commands.convert.recipe import convert_gru

        convert_gru(self)


@dataclass(frozen=True, kw_only=True)
class RwkvToSpikeGpt(RecipeOptions):
    """The run of an RWKV-4 becomes a SpikeGPT."""

    kind: ClassVar[str] = "--recipe rwkv-to-spikegpt"

    recipe: RecipeName = field(init=False, default="rwkv-to-spikegpt")
    target_sparsity: OutputSparsity = None
    max_dial: MaxDial = None

    def check(self) -> None:
        """Only the spike-driven variant has counts before its matrices."""
        super().check()
        if self.max_dial is not None and self.variant != "projections":
            flag = flags_of(type(self))["max_dial"]
            raise flag.refusal(str(flag.option.not_for), self.max_dial)

    def convert(self) -> None:
        """Copy, calibrate, fine-tune, write."""
        from spiketrain.commands.convert.recipe import convert_rwkv

        convert_rwkv(self)


@dataclass(frozen=True, kw_only=True)
class TransformerToSpiking(RecipeOptions):
    """A Llama, Qwen2 or Qwen3 becomes a SpikingBrain."""

    kind: ClassVar[str] = "--recipe transformer-to-spiking"

    recipe: RecipeName = field(init=False, default="transformer-to-spiking")
    target_sparsity: InputSparsity = None
    max_dial: MaxDial = None
    window_cache: WindowCache = None

    def convert(self) -> None:
        """Map, distil, spike, silence, round, write."""
        from spiketrain.commands.convert.recipe import convert_transformer_run

        convert_transformer_run(self)

"""The options of a GGUF file, which becomes a SpikingBrain without training and without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from spiketrain.commands.convert.flag import Flag, Option, flags_of
from spiketrain.commands.convert.options import Options
from spiketrain.commands.convert.recipe_options import RecipeName
from spiketrain.commands.convert.rules import bytes_of, one_of, within
from spiketrain.commands.convert.shared_flags import (
    DryRun,
    MaxDial,
    MaxMemory,
    Resume,
    WindowCache,
    WindowKeys,
)

MIN_K, MAX_K = 1e-3, 16.0  # as in spiketrain.runtime.families.spikingbrain
_WEIGHTS = one_of("float32", "bfloat16", "int8")
_GGUF = "needs a GGUF file"


@dataclass(frozen=True, kw_only=True)
class GgufToSpiking(Options):
    """A GGUF file of a Llama, Qwen2 or Qwen3: copied as it is, or with spike counts."""

    kind: ClassVar[str] = "GGUF files"

    recipe: RecipeName = field(init=False, default="transformer-to-spiking")
    no_spikes: Annotated[
        bool,
        Option(
            spelling="--no-spikes",
            help="Copy the network: no spike counts, keys and values in float32.",
            not_for=_GGUF,
        ),
    ] = False
    k: Annotated[
        float | None,
        Option(
            help="Spike counts of an input of mean size; default: 16.",
            rule=within(MIN_K, MAX_K),
            not_for=_GGUF,
        ),
    ] = None
    dead_zone: Annotated[
        float | None,
        Option(
            help="Counts below this many thresholds become 0; default: 0.",
            rule=within(0.0, MAX_K),
            not_for=_GGUF,
        ),
    ] = None
    window_keys: WindowKeys = None
    window_cache: WindowCache = None
    max_dial: MaxDial = None
    max_memory: MaxMemory = None
    resume: Resume = False
    dry_run: DryRun = False

    @classmethod
    def refusal(cls, flag: Flag, value: Any, source: Path) -> Exception:
        """A usage error for every flag."""
        return flag.refusal(f"is not for {cls.kind}", value)

    def check(self) -> None:
        """Formats that are rounded to here; what is about spikes needs spikes."""
        super().check()
        flags = flags_of(type(self))
        for name in ("weights", "head_weights"):
            value = getattr(self, name)
            rule = None if value is None else _WEIGHTS(value)
            if rule is not None:
                raise flags[name].refusal(f"{rule} for {self.kind}", value)
        for name in ("k", "dead_zone", "max_dial"):
            value = getattr(self, name)
            if self.no_spikes and value is not None:
                raise flags[name].refusal("excludes --no-spikes", value)

    @property
    def stored_weights(self) -> str:
        """The format of weights: int8 with spikes and float32 without, unless told."""
        return self.weights or ("float32" if self.no_spikes else "int8")

    @property
    def stored_cache(self) -> str:
        """The format of keys and values: bfloat16 with spikes and float32 without, unless told."""
        return self.window_cache or ("float32" if self.no_spikes else "bfloat16")

    @property
    def spikes(self) -> tuple[float, float] | None:
        """K and dead zone of every place, None without spikes."""
        if self.no_spikes:
            return None
        return MAX_K if self.k is None else self.k, self.dead_zone or 0.0

    @property
    def max_memory_bytes(self) -> int | None:
        """The bound on memory, None without one."""
        return None if self.max_memory is None else bytes_of(self.max_memory)

    def convert(self) -> None:
        """Write the package part by part."""
        from spiketrain.commands.convert.gguf import convert_gguf

        convert_gguf(self)

"""The options of checkpoints: runs, directories of ours, and what others publish."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from spiketrain.commands.convert.calibration_options import Calibrated
from spiketrain.commands.convert.flag import Flag, Option, flags_of
from spiketrain.commands.convert.options import Options
from spiketrain.commands.convert.rules import (
    bytes_of,
    name_and_value,
    one_of,
    value_by_name,
)
from spiketrain.commands.convert.shared_flags import (
    NEEDS_PUBLISHED,
    DryRun,
    FoldProjection,
    MaxMemory,
    Resume,
    WindowCache,
    WindowKeys,
)
from spiketrain.runtime.errors import SpiketrainError


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions(Options, ABC):
    """What all checkpoints have; reader: the name of their spiketrain.lm.reader.Reader."""

    reader: ClassVar[str]

    dry_run: DryRun = False

    @classmethod
    def refusal(cls, flag: Flag, value: Any, source: Path) -> Exception:
        """Also: a flag about others' checkpoints is answered as lm.checkpoint answers."""
        if flag.option.not_for is None:
            rule = f"{flag.spelling} says nothing about this kind of checkpoint, got {value!r}"
            return SpiketrainError(f"{source}: {rule}")
        return super().refusal(flag, value, source)

    def upstream_choices(self) -> Mapping[str, Any]:
        """The fields of spiketrain.lm.upstream_choices.UpstreamChoices that these options state."""
        return {}

    def convert(self) -> None:
        """Read the model, write it."""
        from spiketrain.commands.convert.checkpoint import convert_checkpoint

        convert_checkpoint(self)


@dataclass(frozen=True, kw_only=True)
class OurModel(Calibrated, CheckpointOptions, ABC):
    """A model of any family of ours: its family decides which of these options it has."""

    fold_projection: FoldProjection = False
    window_cache: WindowCache = None

    def family_choices(self) -> Mapping[Flag, Any]:
        """The options given that not every family has, see lm.reader.FamilyCheckpoints."""
        flags = flags_of(type(self))
        names = ("fold_projection", "target_sparsity", "window_cache")
        values = {flags[name]: getattr(self, name) for name in names}
        return {flag: value for flag, value in values.items() if value}

    def convert(self) -> None:
        """Read the model, change it as the options say, write it."""
        from spiketrain.commands.convert.checkpoint import convert_our_model

        convert_our_model(self)


@dataclass(frozen=True, kw_only=True)
class Run(OurModel):
    """The folder of a finished `spiketrain train`."""

    kind: ClassVar[str] = "runs"
    reader: ClassVar[str] = "run"


@dataclass(frozen=True, kw_only=True)
class Directory(OurModel):
    """A Hugging Face directory of one of our models."""

    kind: ClassVar[str] = "our directories"
    reader: ClassVar[str] = "directory"


@dataclass(frozen=True, kw_only=True)
class OfficialEgru(CheckpointOptions):
    """A file of the published EGRU code, with its config.yaml beside it."""

    kind: ClassVar[str] = "official EGRU files"
    reader: ClassVar[str] = "official-egru"

    fold_projection: FoldProjection = False

    def convert(self) -> None:
        """Read the model, fold its projection if that is wanted, write it."""
        from spiketrain.commands.convert.checkpoint import convert_official_egru

        convert_official_egru(self)


@dataclass(frozen=True, kw_only=True)
class OfficialSpikeGpt(CheckpointOptions):
    """A file of the published SpikeGPT or of RWKV-4: both have the same keys."""

    kind: ClassVar[str] = "official SpikeGPT and RWKV-4 files"
    reader: ClassVar[str] = "official-spikegpt"

    semantics: Annotated[
        str | None,
        Option(
            help="What the file is: spikegpt (default) or rwkv4.",
            rule=one_of("spikegpt", "rwkv4"),
        ),
    ] = None
    choose: Annotated[
        tuple[str, ...],
        Option(
            help="NAME=VALUE: a field of another revision. May be repeated.", rule=name_and_value
        ),
    ] = ()

    def upstream_choices(self) -> Mapping[str, Any]:
        """See spiketrain.lm.families.spikegpt.upstream."""
        return {"semantics": self.semantics, "choices": value_by_name(self.choose)}


@dataclass(frozen=True, kw_only=True)
class Rwkv4Directory(CheckpointOptions):
    """A Hugging Face directory of an RWKV-4."""

    kind: ClassVar[str] = "RWKV-4 directories"
    reader: ClassVar[str] = "rwkv4"

    rescaled: Annotated[
        bool,
        Option(
            spelling="--rescaled", help="The weights were saved after evaluation: undo its scaling."
        ),
    ] = False

    def upstream_choices(self) -> Mapping[str, Any]:
        """See spiketrain.lm.families.spikegpt.upstream."""
        return {"rescaled": self.rescaled}


@dataclass(frozen=True, kw_only=True)
class PublishedSpikingBrain(Calibrated, CheckpointOptions):
    """A published SpikingBrain directory, converted part by part: it need not fit memory."""

    kind: ClassVar[str] = "published SpikingBrain directories"
    reader: ClassVar[str] = "published-spikingbrain"

    window_keys: WindowKeys = None
    down_proj: Annotated[
        str | None,
        Option(
            help="What down projections read: published (default; no spikes) or spiked.",
            rule=one_of("published", "spiked"),
            not_for=NEEDS_PUBLISHED,
        ),
    ] = None
    window_cache: WindowCache = None
    max_memory: MaxMemory = None
    resume: Resume = False

    @classmethod
    def refusal(cls, flag: Flag, value: Any, source: Path) -> Exception:
        """A usage error for every flag."""
        return flag.refusal(flag.option.not_for or "is not for SpikingBrain", value)

    @property
    def max_memory_bytes(self) -> int | None:
        """The bound on memory, None without one."""
        return None if self.max_memory is None else bytes_of(self.max_memory)

    def convert(self) -> None:
        """Write the package part by part."""
        from spiketrain.commands.convert.published import convert_published

        convert_published(self)

"""The options of a model that a text is read with: dead zones are set on it, dials measured."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass

from spiketrain.commands.convert.flag import flags_of
from spiketrain.commands.convert.options import Options
from spiketrain.commands.convert.shared_flags import (
    SPARSITY_IS_FOR,
    Calib,
    InputSparsity,
    MaxDial,
)


@dataclass(frozen=True, kw_only=True)
class Calibrated(Options, ABC):
    """A range of dials, which needs no text to be stated, and dead zones, which need one."""

    calib: Calib = None
    target_sparsity: InputSparsity = None
    max_dial: MaxDial = None

    def check(self) -> None:
        """A text needs a use, and dead zones need a text."""
        super().check()
        if self.calib and (self.target_sparsity or self.max_dial):
            return
        flags = flags_of(type(self))
        for name, value in (("calib", self.calib), ("target_sparsity", self.target_sparsity)):
            if value is not None:
                raise flags[name].refusal(SPARSITY_IS_FOR, value)

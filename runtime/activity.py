"""The activity of a model since its counters were reset: plain numbers, per layer and in total."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LayerActivity:
    """Counters of one layer.

    neurons: units evaluated; events: non-zero outputs; silent_rows: weight rows skipped, for each
    product, sequence and token; weight_bytes_touched: bytes of weight rows read, a row shared by
    several sequences or tokens once, and of token table rows (filling the table is not counted);
    weight_bytes_dense: bytes that a dense pass would touch for each sequence and token;
    macs_dense and macs_effective likewise; acs_effective: additions without a multiplication, of
    spikes to a residual and of rows for spike counts of 1 or -1. EGRU events carry values, so none
    is a mere addition.
    """

    name: str
    neurons: int = 0
    events: int = 0
    silent_rows: int = 0
    weight_bytes_touched: int = 0
    weight_bytes_dense: int = 0
    macs_dense: int = 0
    macs_effective: int = 0
    acs_effective: int = 0

    @property
    def firing_rate(self) -> float:
        """Events per unit evaluated."""
        return self.events / self.neurons if self.neurons else 0.0

    @property
    def neuron_updates(self) -> int:
        """Every unit evaluated is updated."""
        return self.neurons


@dataclass(frozen=True, slots=True)
class Activity:
    """Counters of all layers over `tokens` tokens, and their totals.

    layers: those with units, first to last; readout: projection (if any) and head.
    """

    tokens: int
    layers: tuple[LayerActivity, ...]
    readout: tuple[LayerActivity, ...]

    @property
    def total(self) -> LayerActivity:
        """Sums over layers and readout."""
        return _sum("total", (*self.layers, *self.readout))

    @property
    def neurons(self) -> int:
        """Units evaluated."""
        return self.total.neurons

    @property
    def events(self) -> int:
        """Non-zero outputs."""
        return self.total.events

    @property
    def silent_rows(self) -> int:
        """Weight rows skipped."""
        return self.total.silent_rows

    @property
    def weight_bytes_touched(self) -> int:
        """Bytes of weights read."""
        return self.total.weight_bytes_touched

    @property
    def weight_bytes_dense(self) -> int:
        """Bytes of weights that dense passes would read."""
        return self.total.weight_bytes_dense

    @property
    def macs_dense(self) -> int:
        """Multiplications and additions of dense passes."""
        return self.total.macs_dense

    @property
    def macs_effective(self) -> int:
        """Multiplications and additions with non-zero inputs."""
        return self.total.macs_effective

    @property
    def acs_effective(self) -> int:
        """Additions that need no multiplication."""
        return self.total.acs_effective

    @property
    def neuron_updates(self) -> int:
        """Units updated."""
        return self.total.neuron_updates

    @property
    def firing_rate(self) -> float:
        """Events per unit evaluated."""
        return self.total.firing_rate

    @property
    def weight_bytes_touched_per_token(self) -> float:
        """Bytes of weights read per token."""
        return self.weight_bytes_touched / self.tokens if self.tokens else 0.0


def layer_activities(
    names: Iterable[str], columns: Iterable[str], counters: NDArray[np.int64]
) -> tuple[LayerActivity, ...]:
    """One LayerActivity for each row of `counters`, columns named as the fields they fill."""
    columns = tuple(columns)
    return tuple(
        LayerActivity(name, **dict(zip(columns, map(int, row), strict=True)))
        for name, row in zip(names, counters, strict=True)
    )


def _sum(name: str, parts: Iterable[LayerActivity]) -> LayerActivity:
    counts = [field.name for field in fields(LayerActivity) if field.name != "name"]
    parts = tuple(parts)
    return LayerActivity(
        name, **{count: sum(getattr(part, count) for part in parts) for count in counts}
    )

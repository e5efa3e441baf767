"""Energy of counted operations, as published for a 45 nm process; every figure an estimate.

Operations: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014,
doi 10.1109/ISSCC.2014.6757323, 45 nm, 0.9 V: picojoules of one operation, and of one access to a
memory of 64-bit words.

compute = MACs * e_mac + ACs * e_add
memory = weight bytes * e_dram + state bytes * e_sram, added to compute

The dense baseline has the same widths, all inputs counted as non-zero. Neuron updates, control and
the movement of events are left out on both sides. Nothing here is a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

from spiketrain.runtime.formats import FLOATS

SOURCE = "Horowitz, ISSCC 2014, 45 nm, 0.9 V"
ADD_PJ = {"int8": 0.03, "int16": 0.05, "int32": 0.1, "float16": 0.4, "float32": 0.9}
MULTIPLY_PJ = {"int8": 0.2, "int32": 3.1, "float16": 1.1, "float32": 3.7}
DRAM_PJ_PER_BYTE = (1300 / 8, 2600 / 8)
SRAM_1MB_PJ_PER_BYTE = 100 / 8


@dataclass(frozen=True, slots=True)
class Operation:
    """Picojoules of one multiplication with addition, and of one addition; how they come about."""

    mac_pj: float
    add_pj: float
    formula: str


def operation(weights: str, event_bits: int = 16) -> Operation:
    """The operation of a weight format: floats, or integers with events of so many bits.

    bfloat16 weights are widened as they are read: their products and sums are float32.
    The table has no product of 8 by 16 bits: one is counted as a product for each byte of the
    event, which is how the kernels form it. int4 weights count as int8.
    """
    if weights in FLOATS:
        multiply, add = MULTIPLY_PJ["float32"], ADD_PJ["float32"]
        return Operation(multiply + add, add, f"{multiply} (float32 mult) + {add} (float32 add)")
    products = -(-event_bits // 8)
    multiply, add = MULTIPLY_PJ["int8"], ADD_PJ["int32"]
    formula = f"{products} * {multiply} (int8 mult) + {add} (int32 add)"
    return Operation(products * multiply + add, add, formula)


@dataclass(frozen=True, slots=True)
class Energy:
    """Picojoules: arithmetic alone, and with memory at the low and the high end for DRAM."""

    compute_pj: float
    with_memory_low_pj: float
    with_memory_high_pj: float


def energy(
    of: Operation, macs: float, acs: float, weight_bytes: float, state_bytes: float
) -> Energy:
    """The estimate for counted operations and bytes."""
    compute = macs * of.mac_pj + acs * of.add_pj
    state = state_bytes * SRAM_1MB_PJ_PER_BYTE
    low, high = (compute + weight_bytes * each + state for each in DRAM_PJ_PER_BYTE)
    return Energy(compute, low, high)

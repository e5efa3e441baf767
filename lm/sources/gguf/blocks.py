"""Tensor types of GGUF: blocks of bytes -> integer codes with scales, or float32.

A block format cuts a row into blocks of 32 or 256 inputs.  A value is code x scale, or
code x scale + minimum, for groups of 16 or 32 inputs.  Products of code and scale are exact in
float32, so a value with a minimum rounds once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
_CHUNK = 1 << 20  # elements that are taken apart at once
_NAMES = {
    10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32",
    27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Codes:
    """Rows of a matrix as the file has them: value = code x scale + minimum of the code's group.

    codes: int8 (rows, inputs).  scales: float32 (rows, inputs / group), finite, of either sign or
    0.  minima: like scales, or None where the format has none.  group: 16 or 32 inputs.
    """

    codes: npt.NDArray[np.int8]
    scales: Float32
    minima: Float32 | None
    group: int

    def values(self) -> Float32:
        """The rows in float32, (rows, inputs)."""
        grouped = self.codes.reshape(*self.scales.shape, self.group)
        values = grouped.astype(np.float32)
        values *= self.scales[..., None]
        if self.minima is not None:
            values += self.minima[..., None]
        return values.reshape(self.codes.shape)


_Parts = tuple[npt.NDArray[np.int8], Float32, Float32 | None]


@dataclass(frozen=True, slots=True)
class Format:
    """A tensor type: `width` elements in `num_bytes` bytes.

    group: inputs that share a scale; None for floats.  halves: where the float16 numbers of a block
    stand.  split: blocks (N, num_bytes) -> codes (N, width), scales and minima (N, width / group).
    """

    name: str
    width: int
    num_bytes: int
    group: int | None = None
    halves: tuple[int, ...] = ()
    split: Callable[[Bytes], _Parts] | None = None
    floats: Callable[[Bytes], Float32] | None = None

    @property
    def has_minima(self) -> bool:
        """Whether a group has a minimum beside its scale."""
        return len(self.halves) == 2

    def finite(self, rows: Bytes) -> bool:
        """Whether every value in rows of bytes is finite."""
        if self.floats is not None:
            step = max(1, _CHUNK // rows.shape[1])
            parts = (self.floats(rows[i : i + step]) for i in range(0, len(rows), step))
            return all(bool(np.isfinite(part).all()) for part in parts)
        blocks = rows.reshape(-1, self.num_bytes)
        return all(bool(np.isfinite(_half(blocks, place)).all()) for place in self.halves)

    def codes(self, rows: Bytes) -> Codes | None:
        """Rows of bytes (R, B) as codes; None for a format of floats."""
        if self.split is None or self.group is None:
            return None
        codes, scales, minima = self.split(rows.reshape(-1, self.num_bytes))
        num_rows = len(rows)
        return Codes(
            codes.reshape(num_rows, -1),
            scales.reshape(num_rows, -1),
            None if minima is None else minima.reshape(num_rows, -1),
            self.group,
        )

    def values(self, rows: Bytes) -> Float32:
        """Rows of bytes (R, B) in float32, (R, elements of a row)."""
        if self.floats is not None:
            return self.floats(rows)
        inputs = rows.shape[1] // self.num_bytes * self.width
        values = np.empty((len(rows), inputs), np.float32)
        step = max(1, _CHUNK // inputs)
        for start in range(0, len(rows), step):
            codes = self.codes(rows[start : start + step])
            assert codes is not None
            values[start : start + step] = codes.values()
        return values


def type_name(kind: int) -> str:
    """The name of a tensor type that is not read, or its number."""
    return _NAMES.get(kind, str(kind))


def _half(blocks: Bytes, place: int) -> Float32:
    """The float16 at `place` of every block, (N, 1)."""
    return blocks[:, place : place + 2].copy().view("<f2").astype(np.float32)


def _nibbles(q: Bytes) -> Bytes:
    """16 bytes -> 32 elements of 4 bits: the low halves, then the high ones."""
    return np.concatenate((q & 15, q >> 4), axis=-1)


def _fifth_bits(h: Bytes) -> Bytes:
    """4 bytes -> 32 elements that are 16 or 0: bit j belongs to element j."""
    return np.unpackbits(h, axis=-1, bitorder="little") << np.uint8(4)


def _q4_0(blocks: Bytes) -> _Parts:
    return _nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8), _half(blocks, 0), None


def _q4_1(blocks: Bytes) -> _Parts:
    return _nibbles(blocks[:, 4:]).view(np.int8), _half(blocks, 0), _half(blocks, 2)


def _q5_0(blocks: Bytes) -> _Parts:
    codes = (_nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])).view(np.int8)
    return codes - np.int8(16), _half(blocks, 0), None


def _q5_1(blocks: Bytes) -> _Parts:
    codes = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return codes.view(np.int8), _half(blocks, 0), _half(blocks, 2)


def _q8_0(blocks: Bytes) -> _Parts:
    return blocks[:, 2:].copy().view(np.int8), _half(blocks, 0), None


def _six_bits(packed: Bytes) -> tuple[Float32, Float32]:
    """12 bytes -> scales and minima of eight sub-blocks, 6 bits each, (N, 8)."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = (first & 63, (third & 15) | (first >> 6) << 4)
    minima = (second & 63, (third >> 4) | (second >> 6) << 4)
    return (
        np.concatenate(scales, axis=1).astype(np.float32),
        np.concatenate(minima, axis=1).astype(np.float32),
    )


def _paired_nibbles(q: Bytes) -> Bytes:
    """128 bytes -> (N, 8, 32): 32 bytes hold sub-block 2c in low, 2c + 1 in high halves."""
    pairs = q.reshape(-1, 4, 32)
    return np.stack((pairs & 15, pairs >> 4), axis=2).reshape(-1, 8, 32)


def _k_parts(blocks: Bytes, codes: Bytes) -> _Parts:
    """Sub-blocks of 32 with scale d s and minimum -dmin m."""
    scales, minima = _six_bits(blocks[:, 4:16])
    signed = codes.reshape(-1, 256).view(np.int8)
    return signed, _half(blocks, 0) * scales, -(_half(blocks, 2) * minima)


def _q4_k(blocks: Bytes) -> _Parts:
    return _k_parts(blocks, _paired_nibbles(blocks[:, 16:]))


def _q5_k(blocks: Bytes) -> _Parts:
    shifts = np.arange(8, dtype=np.uint8)[:, None]
    high = ((blocks[:, None, 16:48] >> shifts) & np.uint8(1)) << np.uint8(4)  # (N, 8, 32)
    return _k_parts(blocks, _paired_nibbles(blocks[:, 48:]) | high)


def _q6_k(blocks: Bytes) -> _Parts:
    low = blocks[:, :128].reshape(-1, 2, 1, 64)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & 3  # (N, 2, 4, 32)
    codes = _nibbles(low).reshape(-1, 2, 128) | high.reshape(-1, 2, 128) << 4
    scales = blocks[:, 192:208].copy().view(np.int8).astype(np.float32)
    signed = codes.reshape(-1, 256).view(np.int8) - np.int8(32)
    return signed, _half(blocks, 208) * scales, None


def _f32(rows: Bytes) -> Float32:
    return rows.view("<f4").astype(np.float32)


def _f16(rows: Bytes) -> Float32:
    return rows.view("<f2").astype(np.float32)


def _bf16(rows: Bytes) -> Float32:
    return (rows.view("<u2").astype(np.uint32) << 16).view(np.float32)


FORMATS = {
    0: Format("F32", 1, 4, floats=_f32),
    1: Format("F16", 1, 2, floats=_f16),
    30: Format("BF16", 1, 2, floats=_bf16),
    2: Format("Q4_0", 32, 18, 32, (0,), _q4_0),
    3: Format("Q4_1", 32, 20, 32, (0, 2), _q4_1),
    6: Format("Q5_0", 32, 22, 32, (0,), _q5_0),
    7: Format("Q5_1", 32, 24, 32, (0, 2), _q5_1),
    8: Format("Q8_0", 32, 34, 32, (0,), _q8_0),
    12: Format("Q4_K", 256, 144, 32, (0, 2), _q4_k),
    13: Format("Q5_K", 256, 176, 32, (0, 2), _q5_k),
    14: Format("Q6_K", 256, 210, 16, (208,), _q6_k),
}

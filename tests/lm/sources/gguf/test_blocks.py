"""Block formats against plain loops over bytes, for any bytes."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrain.lm.sources.gguf.blocks import FORMATS

BY_NAME = {kind.name: kind for kind in FORMATS.values()}
QUANTISED = [name for name, kind in BY_NAME.items() if kind.group is not None]
Parts = tuple[list[int], list[np.float32], list[np.float32] | None]


def half(block: bytes, place: int) -> np.float32:
    return np.float32(struct.unpack_from("<e", block, place)[0])


def nibble(data: bytes, j: int) -> int:
    """Element j of 32: in the low half of byte j, or in the high half of byte j - 16."""
    return data[j] & 15 if j < 16 else data[j - 16] >> 4


def bit(data: bytes, j: int) -> int:
    return data[j // 8] >> (j % 8) & 1


def q4_0(block: bytes) -> Parts:
    return [nibble(block[2:], j) - 8 for j in range(32)], [half(block, 0)], None


def q4_1(block: bytes) -> Parts:
    return [nibble(block[4:], j) for j in range(32)], [half(block, 0)], [half(block, 2)]


def q5_0(block: bytes) -> Parts:
    codes = [nibble(block[6:], j) + 16 * bit(block[2:6], j) - 16 for j in range(32)]
    return codes, [half(block, 0)], None


def q5_1(block: bytes) -> Parts:
    codes = [nibble(block[8:], j) + 16 * bit(block[4:8], j) for j in range(32)]
    return codes, [half(block, 0)], [half(block, 2)]


def q8_0(block: bytes) -> Parts:
    return list(struct.unpack_from("<32b", block, 2)), [half(block, 0)], None


def six_bits(packed: bytes, b: int) -> tuple[int, int]:
    if b < 4:
        return packed[b] & 63, packed[b + 4] & 63
    scale = packed[b + 4] & 15 | (packed[b - 4] >> 6) << 4
    return scale, packed[b + 4] >> 4 | (packed[b] >> 6) << 4


def k_scales(block: bytes) -> tuple[list[np.float32], list[np.float32]]:
    pairs = [six_bits(block[4:16], b) for b in range(8)]
    scales = [half(block, 0) * np.float32(scale) for scale, _ in pairs]
    return scales, [-(half(block, 2) * np.float32(least)) for _, least in pairs]


def q4_k(block: bytes) -> Parts:
    codes = []
    for b in range(8):
        for j in range(32):
            byte = block[16 + 32 * (b // 2) + j]
            codes.append(byte >> 4 if b % 2 else byte & 15)
    return codes, *k_scales(block)


def q5_k(block: bytes) -> Parts:
    low, _, _ = q4_k(block[:16] + block[48:])
    codes = [q + 16 * (block[16 + i % 32] >> i // 32 & 1) for i, q in enumerate(low)]
    return codes, *k_scales(block)


def q6_k(block: bytes) -> Parts:
    codes = []
    for i in range(256):
        part, j = divmod(i, 128)
        byte = block[64 * part + j % 64]
        low = byte & 15 if j < 64 else byte >> 4
        high = block[128 + 32 * part + j % 32] >> 2 * (j // 32) & 3
        codes.append((low | high << 4) - 32)
    scales = struct.unpack_from("<16b", block, 192)
    return codes, [half(block, 208) * np.float32(scale) for scale in scales], None


TWINS: dict[str, Callable[[bytes], Parts]] = {
    "Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1, "Q8_0": q8_0, "Q4_K": q4_k,
    "Q5_K": q5_k, "Q6_K": q6_k,
}  # fmt: skip


def rows_of(name: str, data: bytes, rows: int) -> np.ndarray:
    """Bytes as rows whose float16 numbers are finite."""
    kind = BY_NAME[name]
    blocks = np.frombuffer(data, np.uint8).copy().reshape(-1, kind.num_bytes)
    for place in kind.halves:
        blocks[:, place + 1] &= 0b10111111  # an exponent without its top bit
    return blocks.reshape(rows, -1)


def scalar_values(parts: Parts, group: int) -> list[np.float32]:
    codes, scales, minima = parts
    values = []
    for i, code in enumerate(codes):
        value = np.float32(code) * scales[i // group]
        values.append(value if minima is None else value + minima[i // group])
    return values


@pytest.mark.parametrize("name", QUANTISED)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_bytes_give_the_codes_scales_and_values_of_plain_loops(name, data):
    kind = BY_NAME[name]
    size = 4 * kind.num_bytes  # two rows of two blocks
    rows = rows_of(name, data.draw(st.binary(min_size=size, max_size=size)), 2)
    codes = kind.codes(rows)
    blocks = rows.reshape(-1, kind.num_bytes)
    expected = [TWINS[name](block.tobytes()) for block in blocks]
    assert codes.codes.dtype == np.int8
    assert codes.codes.ravel().tolist() == [code for part in expected for code in part[0]]
    assert codes.scales.ravel().tolist() == [scale for part in expected for scale in part[1]]
    assert (codes.minima is None) == (expected[0][2] is None)
    if codes.minima is not None:
        assert codes.minima.ravel().tolist() == [least for part in expected for least in part[2]]
    values = np.array([scalar_values(part, kind.group) for part in expected], np.float32)
    assert codes.values().shape == (2, 2 * kind.width)
    assert codes.values().tobytes() == values.tobytes()
    assert kind.values(rows).tobytes() == values.tobytes()


def test_every_quantised_format_has_a_plain_twin():
    assert TWINS.keys() == set(QUANTISED)


@pytest.mark.parametrize("name", QUANTISED)
def test_rows_in_chunks_are_the_rows_at_once(name, monkeypatch):
    kind = BY_NAME[name]
    data = np.random.default_rng(0).bytes(7 * kind.num_bytes)
    rows = rows_of(name, data, 7)
    at_once = kind.values(rows)
    monkeypatch.setattr("spiketrain.lm.sources.gguf.blocks._CHUNK", 3 * kind.width)
    assert kind.values(rows).tobytes() == at_once.tobytes()


@pytest.mark.parametrize("name", QUANTISED)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_each_scale_and_minimum_that_is_not_finite_is_seen(name, bad):
    kind = BY_NAME[name]
    rows = rows_of(name, bytes(3 * kind.num_bytes), 3)
    assert kind.finite(rows)
    for place in kind.halves:
        damaged = rows.copy()
        damaged[1, place : place + 2] = np.frombuffer(np.float16(bad).tobytes(), np.uint8)
        assert not kind.finite(damaged)


@pytest.mark.parametrize(("name", "word"), [("F32", 0x3FC00000), ("F16", 0x3E00), ("BF16", 0x3FC0)])
def test_floats_are_read_as_they_are(name, word):
    kind = BY_NAME[name]
    rows = np.frombuffer(word.to_bytes(kind.num_bytes, "little") * 6, np.uint8).reshape(3, -1)
    assert kind.values(rows).tolist() == [[1.5, 1.5]] * 3
    assert kind.codes(rows) is None


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_a_float_that_is_not_finite_is_seen(name, monkeypatch):
    kind = BY_NAME[name]
    monkeypatch.setattr("spiketrain.lm.sources.gguf.blocks._CHUNK", 2)
    rows = np.zeros((5, 2 * kind.num_bytes), np.uint8)
    assert kind.finite(rows)
    rows[4, -2:] = (0x80, 0x7F) if name != "F16" else (0x00, 0x7C)
    assert not kind.finite(rows)


def test_a_real_block_of_each_nibble_order_is_read_from_the_description():
    """Byte j has element j in its low half and element j + 16 in its high half."""
    block = struct.pack("<e", 2.0) + bytes([0x98]) + bytes(15)
    values = BY_NAME["Q4_0"].values(np.frombuffer(block, np.uint8)[None])[0]
    assert values[0] == 0.0
    assert values[16] == 2.0
    assert values[1] == values[31] == -16.0

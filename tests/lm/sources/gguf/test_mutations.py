"""Damaged files: each is read or refused by the one kind of error, within bounded memory."""

import struct
import tracemalloc
from pathlib import Path

import pytest
from golden_gguf import broken_files, golden_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spiketrain.lm.sources.gguf import GgufError, open_gguf
from spiketrain.lm.sources.gguf.container import read_container

MIB = 1 << 20
EDGES = (0, 1, 2**16, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1)
BASES = {
    "byte-level": broken_files()["good"],
    "sentencepiece": golden_bytes("llama_spm_linear")[: 64 << 10],
    "rope factors": golden_bytes("llama_rope_freqs")[: 64 << 10],
}
flips = st.tuples(st.integers(0, 1 << 16), st.integers(0, 255))
counts = st.tuples(st.integers(0, 1 << 16), st.sampled_from(EDGES) | st.integers(0, 2**64 - 1))


def damaged(base: bytes, flipped: list, enlarged: list, length: float) -> bytes:
    """The base with bytes exchanged, numbers of eight bytes overwritten, and its end cut off."""
    data = bytearray(base)
    for place, byte in flipped:
        data[place % len(data)] = byte
    for place, number in enlarged:
        start = place % (len(data) - 8)
        struct.pack_into("<Q", data, start, number)
    return bytes(data[: int(length * len(data))])


def read_everything(path: Path) -> None:
    source = open_gguf(path)
    source.check_values()
    for name, values in source.tensors():
        assert values.shape == source.shapes[name]
    assert source.tokenizer_files()
    assert source.summary()


@pytest.mark.parametrize("base", BASES)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    flipped=st.lists(flips, max_size=3),
    enlarged=st.lists(counts, max_size=2),
    length=st.just(1.0) | st.floats(0.0, 1.0),
)
def test_a_damaged_file_is_read_or_refused_within_its_size(
    tmp_path, base, flipped, enlarged, length
):
    data = damaged(BASES[base], flipped, enlarged, length)
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    line = f"{path}: read"
    try:
        read_everything(path)
    except GgufError as error:
        line = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert peak < len(data) + 4 * MIB


@pytest.mark.parametrize("element", [0, 1, 5, 6, 7, 8, 10, 12])
def test_an_array_takes_no_more_than_its_bytes(tmp_path, element):
    """A key that nobody reads must not cost a multiple of the file."""
    size = {0: 1, 1: 1, 5: 4, 6: 4, 7: 1, 8: 9, 10: 8, 12: 8}[element]
    count = 4 * MIB // size
    body = (struct.pack("<Q", 1) + b"x") * count if element == 8 else bytes(size * count)
    head = struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k"
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + head + struct.pack("<IIQ", 9, element, count) + body)
    tracemalloc.start()
    try:
        read_container(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size + MIB

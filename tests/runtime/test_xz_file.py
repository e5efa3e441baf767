"""What an .xz file costs to read is in proportion to its size."""

import lzma
import tracemalloc

import pytest

from spiketrain.runtime import xz_file
from spiketrain.runtime.errors import DataError
from spiketrain.runtime.xz_file import open_xz


def unpacked(path, content):
    path.write_bytes(content)
    with path.open("rb") as file:
        return open_xz(path, file).read()


@pytest.mark.parametrize("size", [0, 1, 65_536, 300_000])
def test_what_was_packed_comes_out(tmp_path, size):
    text = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert unpacked(tmp_path / "t.xz", lzma.compress(text)) == text


@pytest.mark.parametrize("between", [b"", b"\0" * 4, b"\0" * 70_000])
def test_streams_one_after_another_are_one_text(tmp_path, between):
    content = lzma.compress(b"one ") + between + lzma.compress(b"two") + between
    assert unpacked(tmp_path / "t.xz", content) == b"one two"


@pytest.mark.parametrize("cut", [1, 30, -1])
def test_a_file_cut_short_is_refused(tmp_path, cut):
    whole = lzma.compress(bytes(range(256)))
    with pytest.raises(DataError, match=r"t\.xz: must be an intact \.xz file .* cut short"):
        unpacked(tmp_path / "t.xz", whole[:cut])


def test_what_follows_that_is_no_stream_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"must be an intact \.xz file"):
        unpacked(tmp_path / "t.xz", lzma.compress(b"text") + b"more")


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(xz_file, "FREE_BYTES", 1 << 20)
    bomb = lzma.compress(bytes(64 << 20))
    assert len(bomb) < 1 << 14
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"t\.xz: must unpack to at most \d+ bytes, 1048576 "):
            unpacked(tmp_path / "t.xz", bomb)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_dictionary_larger_than_any_text_needs_is_refused(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 64 << 20}]
    content = lzma.compress(b"text", filters=filters)
    assert unpacked(tmp_path / "t.xz", content) == b"text"  # as of xz -9
    flags = content.index(b"\x21\x01")  # the filter's id and size, then the dictionary's
    header = bytearray(content[12 : 12 + 4 * (content[12] + 1)])
    header[flags - 12 + 2] = 40  # 4 GiB
    header[-4:] = _crc(bytes(header[:-4]))
    hostile = content[:12] + bytes(header) + content[12 + len(header) :]
    with pytest.raises(DataError, match=r"takes at most 268435456 bytes to unpack, got Memory"):
        unpacked(tmp_path / "t.xz", hostile)


def _crc(data):
    import zlib

    return zlib.crc32(data).to_bytes(4, "little")

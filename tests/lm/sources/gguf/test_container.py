"""The container: what is read, what is refused, and how much memory a refusal takes."""

import os
import struct
import tracemalloc

import numpy as np
import pytest
from gguf_writer import GgufFile, Tensor, Typed, floats, tiny_gguf
from golden_gguf import broken_files, golden_file

from spiketrain.lm.sources.gguf import GgufError, open_gguf
from spiketrain.lm.sources.gguf.container import read_container
from spiketrain.runtime.errors import SpiketrainError

NAMED = {  # what the line of each broken file names
    "magic": "the file must begin with b'GGUF'",
    "version_1": "the version must be 2 or 3, got 1",
    "version_4": "the version must be 2 or 3, got 4",
    "big_endian": "must be little-endian, got a big-endian file",
    "cut_in_header": "the tensor count",
    "cut_in_data": "blk.0.attn_output.weight must end within",
    "key_count": "the key count",
    "tensor_count": "the tensor count",
    "string_length": "general.name must fit",
    "array_length": "the length of x.y",
    "nested_arrays": "the element type of x.y must not be an array",
    "value_type": "the value type of x.y must be 0 to 12, got 99",
    "duplicate_key": "llama.embedding_length must be there once",
    "duplicate_tensor": "output_norm.weight must be there once",
    "dimensions_overflow": "blk.0.ffn_up.weight must end within",
    "bytes_overflow": "blk.0.ffn_up.weight must end within",
    "offset_outside": "blk.0.ffn_up.weight must end within",
    "offset_wraps": "blk.0.ffn_up.weight must end within",
    "alignment_0": "general.alignment must be a power of two",
    "alignment_48": "general.alignment must be a power of two",
    "row_not_whole_blocks": "blk.0.ffn_up.weight must have rows of whole blocks of 32",
    "tensor_type": "the type of blk.0.ffn_up.weight must be one of F32",
    "shape": "blk.0.attn_k.weight must have the shape (16, 32), got (8, 32)",
    "tensor_missing": "blk.0.ffn_down.weight must be in the file",
    "tensor_unknown": "blk.0.attn_output.bias must be a tensor of a llama",
    "heads_0": "llama.attention.head_count must be a whole number from 1",
    "layers": "llama.block_count must be a whole number from 1 to 11, got 2147483648",
    "float_as_int": "llama.embedding_length must be a whole number from 1 to 2147483647, got 32.0",
    "scale_infinite": "blk.0.ffn_up.weight must be finite",
    "eos_outside": "tokenizer.ggml.eos_token_id must be a whole number from 0 to 263, got 9999",
    "tokens_short": "tokenizer.ggml.tokens must have as many texts as the embedding has rows, 264",
    "token_twice": "tokenizer.ggml.tokens must hold each text once",
    "merge_unknown": "tokenizer.ggml.merges must be two tokens whose join is a token",
    "pre_tokenizer": "tokenizer.ggml.pre must be one of gpt-2",
    "architecture": "general.architecture must be one of llama, qwen2, qwen3, got 'mamba'",
}
MIB = 1 << 20
NORM = "model.norm.weight"


def refusal(path) -> str:
    """The one line that says why the file at `path` is refused."""
    with pytest.raises(SpiketrainError) as caught:
        open_gguf(path).check_values()
    assert isinstance(caught.value, GgufError)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line.removeprefix(f"{path}: ")


def test_every_broken_file_has_an_expected_refusal():
    assert broken_files().keys() - {"good"} == NAMED.keys()
    assert len(NAMED) == 35


@pytest.mark.parametrize("name", NAMED)
def test_a_broken_file_is_refused_in_a_line_that_names_the_part(tmp_path, name):
    path = golden_file(tmp_path, name)
    tracemalloc.start()
    try:
        line = refusal(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert NAMED[name] in line
    assert peak < path.stat().st_size + 2 * MIB


def test_the_file_with_nothing_wrong_is_read(tmp_path):
    source = open_gguf(golden_file(tmp_path, "good"))
    source.check_values()
    assert source.config["model_type"] == "llama"


@pytest.mark.parametrize("version", [2, 3])
def test_versions_2_and_3_have_one_layout(tmp_path, version):
    file = tiny_gguf()
    file.version = version
    source = open_gguf(file.write(tmp_path / "a.gguf"))
    assert source.read("model.norm.weight").shape == (32,)


def test_a_file_of_several_parts_is_refused_by_their_number(tmp_path):
    path = tiny_gguf(**{"split.count": Typed(2, 3)}).write(tmp_path / "a.gguf")
    assert refusal(path).startswith("split.count must be 1")
    assert refusal(path).endswith("got 3")
    open_gguf(tiny_gguf(**{"split.count": Typed(2, 1)}).write(path))


@pytest.mark.parametrize("alignment", [1, 8, 32, 4096])
def test_tensors_are_placed_by_the_alignment_of_the_file(tmp_path, alignment):
    file = tiny_gguf(**{"general.alignment": alignment})
    expected = open_gguf(tiny_gguf().write(tmp_path / "a.gguf")).read(NORM)
    file.alignment = alignment
    source = open_gguf(file.write(tmp_path / "b.gguf"))
    assert np.array_equal(source.read(NORM), expected)


def test_an_alignment_above_64_kib_is_refused(tmp_path):
    path = tiny_gguf(**{"general.alignment": 1 << 17}).write(tmp_path / "a.gguf")
    assert "general.alignment must be a power of two from 1 to 65536, got 131072" in refusal(path)


def test_gaps_between_tensors_and_bytes_after_them_are_allowed(tmp_path):
    file = tiny_gguf()
    expected = open_gguf(file.write(tmp_path / "a.gguf")).read(NORM)
    last = file.tensors["output_norm.weight"]
    end = sum(len(tensor.data) for tensor in list(file.tensors.values())[:-1])
    file.tensors["output_norm.weight"] = Tensor(last.sizes, last.kind, last.data, end + 64)
    data = file.to_bytes()
    moved = data[: -len(last.data)] + bytes(64) + last.data + b"more"
    path = tmp_path / "b.gguf"
    path.write_bytes(moved)
    assert np.array_equal(open_gguf(path).read(NORM), expected)


def _with(name: str, **changes) -> GgufFile:
    file = tiny_gguf()
    tensor = file.tensors[name]
    values = {"sizes": tensor.sizes, "kind": tensor.kind, "data": tensor.data, **changes}
    file.tensors[name] = Tensor(**values)
    return file


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"offset": 4}, "the offset of blk.0.ffn_up.weight must be a multiple of the alignment 32"),
        ({"offset": 0}, "must begin after the end of"),
        ({"sizes": (32, 0)}, "the shape of blk.0.ffn_up.weight must have sizes of at least 1"),
        ({"sizes": ()}, "the dimensions of blk.0.ffn_up.weight must be 1 to 4, got 0"),
        ({"sizes": (1,) * 5}, "the dimensions of blk.0.ffn_up.weight must be 1 to 4, got 5"),
        ({"kind": 10}, "the type of blk.0.ffn_up.weight must be one of"),
        ({"sizes": (32, 2, 32)}, "blk.0.ffn_up.weight must have the shape (64, 32)"),
        ({"offset": 2**64 - 32}, "blk.0.ffn_up.weight must end within"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused_by_name(tmp_path, changes, line):
    path = _with("blk.0.ffn_up.weight", **changes).write(tmp_path / "a.gguf")
    assert line in refusal(path)


def test_a_tensor_type_that_is_known_but_not_read_is_named(tmp_path):
    path = _with("blk.0.ffn_up.weight", kind=10).write(tmp_path / "a.gguf")
    assert refusal(path).endswith("got Q2_K")


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (b"", 1, "the name of key 15 must have at least one character"),
        (b"\xff", 1, "the name of key 15 must be UTF-8"),
        (b"x" * 2000, 1, "the name of key 15 must have at most 1024 bytes, got 2000"),
        (b"x", Typed(7, 2), "x must be 0 or 1, as a bool is, got 2"),
        (b"general.name", b"\xff\xfe", "general.name must be UTF-8, got byte 0 that is not"),
        (b"two\nlines", Typed(7, 2), "'two\\nlines' must be 0 or 1"),
    ],
)
def test_a_key_that_cannot_be_is_refused(tmp_path, key, value, line):
    file = tiny_gguf()
    file.extra_keys.append((key, value))
    assert line in refusal(file.write(tmp_path / "a.gguf"))


def test_a_tensor_without_a_name_is_refused(tmp_path):
    file = tiny_gguf()
    file.tensors[""] = floats(np.ones(32))
    assert "must have at least one character" in refusal(file.write(tmp_path / "a.gguf"))


@pytest.mark.parametrize("length", range(0, 400, 7))
def test_a_file_that_ends_early_is_refused(tmp_path, length):
    path = tmp_path / "a.gguf"
    path.write_bytes(tiny_gguf().to_bytes()[:length])
    assert refusal(path)


def test_counts_in_the_bounds_of_a_file_are_bounded_by_constants(tmp_path):
    path = tmp_path / "a.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, 1 << 17, 0)
    with path.open("wb") as stream:
        stream.write(head)
        stream.truncate(8 * MIB)
    assert "the tensor count must be at most 65536, got 131072" in refusal(path)


def test_other_things_than_files_are_refused(tmp_path):
    assert refusal(tmp_path).startswith("the path must be a file")
    missing = tmp_path / "missing.gguf"
    assert refusal(missing) == "the path must be a readable file, got No such file or directory"
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe").startswith("the path must be a file")


def test_a_link_to_a_file_is_read(tmp_path):
    golden_file(tmp_path, "good")
    (tmp_path / "snapshot").mkdir()
    link = tmp_path / "snapshot" / "model.gguf"
    link.symlink_to("../good.gguf")
    assert open_gguf(link).config["model_type"] == "llama"


def test_a_file_that_shrinks_after_it_was_opened_is_refused(tmp_path):
    path = golden_file(tmp_path, "good")
    source = open_gguf(path)
    os.truncate(path, path.stat().st_size - 4096)
    with pytest.raises(GgufError, match="unchanged file, got a file that has changed"):
        source.check_values()


def test_a_file_that_is_replaced_after_it_was_opened_is_refused(tmp_path):
    path = golden_file(tmp_path, "good")
    source = open_gguf(path)
    (tmp_path / "other").write_bytes(path.read_bytes())
    os.replace(tmp_path / "other", path)
    with pytest.raises(GgufError, match="unchanged file"):
        source.read(NORM)


def test_a_file_that_is_removed_after_it_was_opened_is_refused(tmp_path):
    path = golden_file(tmp_path, "good")
    source = open_gguf(path)
    path.unlink()
    with pytest.raises(GgufError, match="readable file"):
        source.read(NORM)


def test_a_float32_reads_as_the_shortest_decimal_that_rounds_to_it(tmp_path):
    container = read_container(tiny_gguf().write(tmp_path / "a.gguf"))
    key = "llama.attention.layer_norm_rms_epsilon"
    assert container.metadata.number(key) == 1e-5

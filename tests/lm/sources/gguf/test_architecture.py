"""Keys and tensors -> the config of the same network, or a refusal by name."""

import math

import numpy as np
import pytest
from gguf_writer import (
    F16_TENSOR,
    GROUPS,
    HEADS,
    HIDDEN,
    GgufFile,
    Tensor,
    Typed,
    floats,
    tiny_gguf,
)

from spiketrain.lm.sources.gguf import GgufError, open_gguf
from spiketrain.runtime.families.spikingbrain.rotary import frequencies

WIDTH = HIDDEN // HEADS
LINEAR = {"rope_type": "linear", "factor": 4.0}


def opened(tmp_path, file: GgufFile):
    return open_gguf(file.write(tmp_path / "a.gguf"))


def refusal(tmp_path, file: GgufFile) -> str:
    with pytest.raises(GgufError) as caught:
        opened(tmp_path, file)
    return str(caught.value).removeprefix(f"{tmp_path / 'a.gguf'}: ")


def rope(tmp_path, **keys) -> dict:
    file = tiny_gguf(**{f"llama.rope.{name}": value for name, value in keys.items()})
    return opened(tmp_path, file).config["rope_parameters"]


def renamed(kind: str) -> GgufFile:
    """The tiny file with the keys of another architecture."""
    file = tiny_gguf()
    keys = {name.replace("llama.", f"{kind}."): value for name, value in file.keys.items()}
    file.keys = {**keys, "general.architecture": kind}
    return file


def test_sizes_that_the_file_leaves_out_have_the_defaults_of_llama_cpp(tmp_path):
    file = tiny_gguf(**{"llama.attention.head_count_kv": None})
    width = HIDDEN
    for name in ("blk.0.attn_k.weight", "blk.0.attn_v.weight"):
        file.tensors[name] = floats(np.ones((width, HIDDEN)))
    config = opened(tmp_path, file).config
    assert config["num_key_value_heads"] == config["num_attention_heads"] == HEADS
    assert config["head_dim"] == WIDTH
    assert config["rope_parameters"] == {"rope_theta": 10_000.0, "rope_type": "default"}


def test_a_head_dim_of_its_own_is_read(tmp_path):
    keys = {"llama.attention.key_length": 16, "llama.attention.value_length": 16}
    file = tiny_gguf(**keys, **{"llama.rope.dimension_count": 16})
    for name, rows in (("q", HEADS * 16), ("k", GROUPS * 16), ("v", GROUPS * 16)):
        file.tensors[f"blk.0.attn_{name}.weight"] = floats(np.ones((rows, HIDDEN)))
    file.tensors["blk.0.attn_output.weight"] = floats(np.ones((HIDDEN, HEADS * 16)))
    assert opened(tmp_path, file).config["head_dim"] == 16


def test_a_head_of_its_own_unties_the_embedding(tmp_path):
    file = tiny_gguf()
    assert opened(tmp_path, file).config["tie_word_embeddings"] is True
    file.tensors["output.weight"] = floats(np.zeros((258, HIDDEN)), F16_TENSOR)
    source = opened(tmp_path, file)
    assert source.config["tie_word_embeddings"] is False
    assert source.formats["lm_head.weight"] == "F16"
    assert list(source.shapes)[-1] == "lm_head.weight"


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("llama.expert_count", 8, "llama.expert_count must be 0, since a mixture"),
        ("llama.attention.causal", False, "llama.attention.causal must be true, got False"),
        ("llama.logit_scale", 0.5, "llama.logit_scale must be 0 or 1 or missing, got 0.5"),
        ("llama.embedding_scale", 12.0, "llama.embedding_scale must be 0 or 1 or missing"),
        ("llama.residual_scale", 0.2, "llama.residual_scale must be 0 or 1 or missing"),
        ("llama.attention.scale", 0.1, "llama.attention.scale must be 0 or missing"),
        ("llama.attention.clamp_kqv", 8.0, "llama.attention.clamp_kqv must be 0 or missing"),
        ("llama.attention.sliding_window", 64, "llama.attention.sliding_window must be 0 or at"),
        ("llama.attention.head_count", [4, 4], "llama.attention.head_count must be a whole number"),
        ("llama.attention.head_count_kv", 3, "llama.attention.head_count_kv must divide the 4"),
        ("llama.attention.head_count", 6, "llama.attention.head_count must divide"),
        ("llama.attention.value_length", 4, "llama.attention.value_length must be the 8 channels"),
        ("llama.rope.dimension_count", 4, "llama.rope.dimension_count must be the 8 channels"),
        ("llama.vocab_size", 300, "llama.vocab_size must be the 258 rows of token_embd.weight"),
        ("llama.embedding_length", -32, "llama.embedding_length must be a whole number from 1"),
        ("llama.embedding_length", "32", "llama.embedding_length must be a whole number from 1"),
        ("llama.context_length", None, "llama.context_length must be in the file"),
        ("llama.context_length", 1 << 28, "llama.context_length must be a whole number from 1"),
        ("llama.context_length", 0, "llama.context_length must be a whole number from 1"),
        ("llama.block_count", 2, "blk.1.attn_norm.weight must be in the file"),
        ("llama.rope.scaling.type", "yarn", "llama.rope.scaling.type must be none or linear"),
        ("llama.rope.scaling.type", "longrope", "llama.rope.scaling.type must be none or linear"),
        ("llama.rope.scaling.factor", -2.0, "llama.rope.scaling.factor must be a factor"),
        ("llama.rope.freq_base", 0.0, "llama.rope.freq_base must be from 1 to 1e+15, got 0.0"),
        ("llama.rope.freq_base", math.inf, "llama.rope.freq_base must be a finite number"),
        ("general.architecture", "gemma3", "general.architecture must be one of llama, qwen2"),
    ],
)
def test_a_network_that_is_not_read_is_refused_by_its_key(tmp_path, key, value, line):
    if value == -32:
        value = Typed(5, value)
    assert line in refusal(tmp_path, tiny_gguf(**{key: value}))


def test_an_epsilon_of_zero_is_refused(tmp_path):
    key = "llama.attention.layer_norm_rms_epsilon"
    assert refusal(tmp_path, tiny_gguf(**{key: 0.0})) == f"{key} must be above 0, got 0.0"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.attention.sliding_window", 128),
        ("llama.attention.sliding_window", 0),
        ("llama.expert_count", 0),
        ("llama.logit_scale", 1.0),
        ("llama.attention.causal", True),
        ("llama.rope.scaling.type", "none"),
        ("llama.context_length", Typed(10, 128)),
    ],
)
def test_a_key_that_changes_nothing_is_read(tmp_path, key, value):
    source = opened(tmp_path, tiny_gguf(**{key: value}))
    assert source.config["max_position_embeddings"] == 128
    assert source.notes == ()


def test_a_key_that_plays_no_part_is_told(tmp_path):
    source = opened(tmp_path, tiny_gguf(**{"llama.new_trick": 1.0}))
    assert source.notes == (
        "The key llama.new_trick is not read. The model may compute something else than its "
        "source.",
    )


def test_linear_scaling_is_read_from_new_and_old_keys(tmp_path):
    expected = {"rope_theta": 10_000.0, **LINEAR}
    assert rope(tmp_path, **{"scaling.type": "linear", "scaling.factor": 4.0}) == expected
    assert rope(tmp_path, **{"scaling.factor": 4.0}) == expected
    assert rope(tmp_path, scale_linear=4.0) == expected
    assert rope(tmp_path, **{"scaling.type": "none", "scaling.factor": 4.0})["rope_type"] == (
        "default"
    )


def llama3_factors(scaling: dict, theta: float, half: int) -> np.ndarray:
    """The factors of llama.cpp's converter, float32."""
    factors = []
    for i in range(half):
        wavelength = 2 * math.pi * theta ** (i / half)
        old = scaling["original_max_position_embeddings"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        if wavelength < old / high:
            factors.append(1.0)
        elif wavelength > old / low:
            factors.append(scaling["factor"])
        else:
            smooth = (old / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return np.array(factors, np.float32)


def file_of_factors(factors: np.ndarray, theta: float, name: str = "rope_freqs.weight") -> GgufFile:
    """One head of 2 len(factors) channels."""
    width = 2 * len(factors)
    file = tiny_gguf(
        **{
            "llama.attention.head_count": 1,
            "llama.attention.head_count_kv": 1,
            "llama.attention.key_length": width,
            "llama.attention.value_length": width,
            "llama.rope.freq_base": theta,
        }
    )
    for part in ("q", "k", "v"):
        file.tensors[f"blk.0.attn_{part}.weight"] = floats(np.ones((width, HIDDEN)))
    file.tensors["blk.0.attn_output.weight"] = floats(np.ones((HIDDEN, width)))
    file.tensors[name] = floats(factors)
    return file


@pytest.mark.parametrize(
    ("factor", "low", "high", "old", "half"),
    [
        (8.0, 1.0, 4.0, 8192, 64),  # Llama 3.1
        (32.0, 1.0, 4.0, 8192, 32),  # Llama 3.2 1B
        (8.0, 1.0, 4.0, 8192, 32),
        (16.0, 1.0, 3.5, 4096, 64),
        (4.0, 1.0, 2.5, 1000, 64),
    ],
)
@pytest.mark.parametrize("name", ["rope_freqs.weight", "blk.0.rope_freqs.weight"])
def test_factors_of_pairs_become_the_scaling_that_they_came_from(
    tmp_path, factor, low, high, old, half, name
):
    scaling = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": old,
    }
    factors = llama3_factors(scaling, 500_000.0, half)
    read = opened(tmp_path, file_of_factors(factors, 500_000.0, name)).config["rope_parameters"]
    assert read == {"rope_theta": 500_000.0, **scaling}


def test_only_the_ratios_of_a_scaling_matter(tmp_path):
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 2.0,
        "high_freq_factor": 8.0,
        "original_max_position_embeddings": 16384,
    }
    factors = llama3_factors(scaling, 500_000.0, 64)
    read = opened(tmp_path, file_of_factors(factors, 500_000.0)).config["rope_parameters"]
    assert read["original_max_position_embeddings"] == 8192
    slowed = frequencies(500_000.0, 64, read)
    assert frequencies(500_000.0, 64) / slowed == pytest.approx(factors, rel=1e-5)


def test_factors_that_are_all_1_are_no_scaling(tmp_path):
    file = file_of_factors(np.ones(32), 10_000.0)
    assert opened(tmp_path, file).config["rope_parameters"]["rope_type"] == "default"


@pytest.mark.parametrize(
    "factors",
    [
        np.linspace(1.0, 8.0, 32),
        np.full(32, 2.0),
        np.r_[np.ones(31), 0.5],
        np.r_[np.ones(31), 1e30],
        np.r_[2.0, np.ones(31)],
    ],
)
def test_factors_of_another_scaling_are_refused(tmp_path, factors):
    line = refusal(tmp_path, file_of_factors(factors, 500_000.0))
    assert line.startswith("rope_freqs.weight must be the factors of llama3 scaling")


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_factors_that_are_no_factors_are_refused(tmp_path, bad):
    line = refusal(tmp_path, file_of_factors(np.r_[np.ones(31), bad], 500_000.0))
    assert line.startswith("rope_freqs.weight must be finite and above 0")


def test_factors_beside_linear_scaling_are_refused(tmp_path):
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    file = file_of_factors(llama3_factors(scaling, 500_000.0, 32), 500_000.0)
    file.keys["llama.rope.scaling.factor"] = 2.0
    assert "rope_freqs.weight must be missing beside" in refusal(tmp_path, file)


def test_factors_of_another_length_are_refused(tmp_path):
    file = file_of_factors(np.ones(32), 10_000.0)
    file.tensors["rope_freqs.weight"] = floats(np.ones(16))
    assert "rope_freqs.weight must have 32 elements in F32" in refusal(tmp_path, file)


def test_qwen2_needs_its_biases_and_qwen3_its_norms(tmp_path):
    assert "blk.0.attn_q.bias must be in the file" in refusal(tmp_path, renamed("qwen2"))
    assert "blk.0.attn_q_norm.weight must be in the file" in refusal(tmp_path, renamed("qwen3"))


def test_factors_have_no_place_in_qwen2(tmp_path):
    file = renamed("qwen2")
    for name, rows in (("q", HIDDEN), ("k", GROUPS * WIDTH), ("v", GROUPS * WIDTH)):
        file.tensors[f"blk.0.attn_{name}.bias"] = floats(np.ones(rows))
    assert opened(tmp_path, file).config["model_type"] == "qwen2"
    file.tensors["rope_freqs.weight"] = floats(np.ones(WIDTH // 2))
    assert "rope_freqs.weight must be a tensor of a qwen2" in refusal(tmp_path, file)


def test_rows_of_q_and_k_are_put_back_in_llama_files_alone(tmp_path):
    llama, qwen = tiny_gguf(), renamed("qwen2")
    rows = np.arange(HIDDEN, dtype=np.float32)[:, None] + np.zeros((1, HIDDEN), np.float32)
    for file in (llama, qwen):
        file.tensors["blk.0.attn_q.weight"] = floats(rows)
    for name, count in (("q", HIDDEN), ("k", GROUPS * WIDTH), ("v", GROUPS * WIDTH)):
        qwen.tensors[f"blk.0.attn_{name}.bias"] = floats(np.arange(count))
    name = "model.layers.0.self_attn.q_proj.weight"
    half = WIDTH // 2
    head = [*(2 * i for i in range(half)), *(2 * i + 1 for i in range(half))]
    expected = [WIDTH * h + i for h in range(HEADS) for i in head]
    assert opened(tmp_path, llama).read(name)[:, 0].tolist() == expected
    source = opened(tmp_path, qwen)
    assert source.read(name)[:, 0].tolist() == list(range(HIDDEN))
    bias = name.replace("weight", "bias")
    assert source.read(bias, 3, 6).tolist() == [3.0, 4.0, 5.0]


def test_a_vector_in_blocks_is_refused(tmp_path):
    file = tiny_gguf()
    file.tensors["output_norm.weight"] = Tensor((HIDDEN,), 8, bytes(34))
    assert refusal(tmp_path, file) == "output_norm.weight must be of type F32, F16, BF16, got Q8_0"


def test_blocks_of_another_version_are_refused(tmp_path):
    key = "general.quantization_version"
    file = tiny_gguf(**{key: 1})
    opened(tmp_path, file)  # floats have no version
    down = file.tensors["blk.0.ffn_down.weight"]
    file.tensors["blk.0.ffn_down.weight"] = Tensor(down.sizes, 8, bytes(HIDDEN * 2 * 34))
    assert refusal(tmp_path, file) == f"{key} must be 2 in a file with quantised tensors, got 1"
    file.keys[key] = 2
    assert opened(tmp_path, file).quantization["Q8_0"] == HIDDEN * 64


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_refused_by_its_tensor(tmp_path, bad):
    file = tiny_gguf()
    values = np.ones((64, HIDDEN))
    values[63, 5] = bad
    file.tensors["blk.0.ffn_up.weight"] = floats(values)
    source = opened(tmp_path, file)
    source.read("model.layers.0.mlp.up_proj.weight", 0, 63)
    for read in (source.check_values, lambda: source.read("model.layers.0.mlp.up_proj.weight")):
        with pytest.raises(GgufError, match=r"blk\.0\.ffn_up\.weight must be finite"):
            read()


def test_provenance_is_text_in_one_line(tmp_path):
    keys = {
        "general.name": "A model\nof two lines",
        "general.license": "apache-2.0",
        "general.quantized_by": "somebody",
        "general.source.url": "https://example.org/a",
        "general.base_model.count": 1,
        "general.base_model.0.name": "base",
        "general.tags": ["a", "b"],
    }
    source = opened(tmp_path, tiny_gguf(**keys))
    assert source.provenance == {
        "name": "A model of two lines",
        "license": "apache-2.0",
        "quantized_by": "somebody",
        "source.url": "https://example.org/a",
        "base_model.count": "1",
        "base_model.0.name": "base",
    }
    assert "license: apache-2.0" in source.summary()
    assert "general.name must be a text" in refusal(tmp_path, tiny_gguf(**{"general.name": 3}))

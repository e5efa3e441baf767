"""SpikingBrain to the runtime's tensors: what is stored stands for the model's weights."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain.lm.checkpoint import UpstreamChoices, read_checkpoint  # noqa: E402
from spiketrain.lm.families.spikingbrain import Config, Exporter, Model, to_runtime  # noqa: E402
from spiketrain.lm.shards import Held, Shards  # noqa: E402
from spiketrain.lm.streaming import peak_memory, plan  # noqa: E402
from spiketrain.runtime.errors import SpiketrainError  # noqa: E402

DATA = Path(__file__).parent.parent / "data" / "spikingbrain"
UP = "layers.1.mlp.up_proj"


def official(name="w8_g32", **meaning):
    return read_checkpoint(DATA / name, UpstreamChoices(**meaning)).model


def halves(packed, outputs):
    """Codes (I, O) in [-8, 7] of two a byte, the lower output in the low nibble."""
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(len(packed), -1)
    return codes[:, :outputs].astype(np.float32) - 8


def dense(tensors, name):
    """The weights (I, O) that the stored tensors of a matrix stand for."""
    stored, scale = tensors[f"{name}.weight"], tensors.get(f"{name}.scale")
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if stored.dtype == np.float32:
        return stored
    if stored.dtype == np.int8:
        codes = stored.astype(np.float32)
        if f"{name}.extra" in tensors:
            rows = np.repeat(np.arange(len(stored)), np.diff(tensors[f"{name}.extra_row"]))
            codes[rows, tensors[f"{name}.extra_column"]] += tensors[f"{name}.extra"]
    else:
        outputs = scale.shape[-1]
        codes = halves(stored, outputs)
        if f"{name}.multiplier" in tensors:
            codes *= np.repeat(tensors[f"{name}.multiplier"], 128, 1)[:, :outputs]
    if scale.ndim == 2:
        scale = np.repeat(scale, -(-len(codes) // len(scale)), 0)[: len(codes)]
    return codes * scale


def matrices(model):
    """Name in the package -> the weight (I, O) that the model's products use."""
    found = {"lm_head": model.lm_head.weight.detach().t().numpy()}
    for name, module in model.model.named_modules():
        if name.endswith("_proj") and hasattr(module, "rounded"):
            found[name] = module.rounded().detach().t().numpy()
    return found


@pytest.mark.parametrize("name", ["fp", "w8_g32"])
@pytest.mark.parametrize(
    ("weights", "loss"), [("float32", 0), ("bfloat16", 0.004), ("int8", 0.008), ("int4", 0.12)]
)
def test_stored_matrices_are_close_to_the_models(name, weights, loss):
    model = official(name, down_proj="spiked")
    config, tensors = to_runtime(model, weights)
    for matrix, wanted in matrices(model).items():
        off = np.linalg.norm(dense(tensors, matrix) - wanted) / np.linalg.norm(wanted)
        assert off <= loss + 1e-6, matrix
    assert config["spiketrain"]["events"] == (
        "counts" if name == "w8_g32" else "int8" if weights.startswith("int") else "float32"
    )


def test_published_codes_and_scales_are_kept_whatever_their_size():
    model = official()
    with torch.no_grad():
        weight = model.model.layers[1].mlp.up_proj.weight
        weight[3, 5] += 9.0
        weight[7, 40] -= 9.0
        weight[9, 40] += 9.0
    config, tensors = to_runtime(model, "int8")
    assert config["spiketrain"]["weights"]["body"] == "int8-gi32"
    assert config["spiketrain"]["weights"]["down"] == "float32"
    assert config["spiketrain"]["fidelity"] == "exact"
    wanted = matrices(model)
    for matrix, weight in wanted.items():
        assert np.array_equal(dense(tensors, matrix), weight), matrix
    assert config["corrections"][UP] == len(tensors[f"{UP}.extra"]) >= 3
    assert np.abs(tensors[f"{UP}.weight"]).max() == 127
    row = slice(*tensors[f"{UP}.extra_row"][40:42])
    assert set(tensors[f"{UP}.extra_column"][row]) >= {7, 9}
    without = [m for m in wanted if m != "lm_head" and m not in config["corrections"]]
    assert without
    assert not any(f"{m}.extra" in tensors for m in without)


@pytest.mark.parametrize("scale", [1e-6, 1e-30])
def test_a_code_far_beyond_int8_is_refused(scale):
    model = official()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight_quantizer.scales[3, 1] = scale
    rule = rf"{UP}\.weight must have codes within \+-32894, got [1-9]"
    with pytest.raises(SpiketrainError, match=rule):
        to_runtime(model, "int8")


@pytest.mark.parametrize("scale", [0.0, -0.5])
@pytest.mark.parametrize("weights", ["int8", "int4", "float32"])
def test_scales_that_are_not_above_zero_are_refused_by_name(scale, weights):
    model = official()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight_quantizer.scales[3, 1] = scale
    with pytest.raises(SpiketrainError, match=rf"{UP}.*scales must be above 0, got {scale}"):
        to_runtime(model, weights)


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize(
    "name", ["embeddings.weight", "layers.2.mlp.down_proj.weight", "layers.2.attn.q_proj.bias"]
)
def test_a_value_that_is_not_finite_is_refused_by_name_and_place(name, weights):
    model = official("fp")
    value = model.get_parameter(f"model.{name}")
    with torch.no_grad():
        value[-1] = torch.nan
    place = r"\(\d+(, 0|,)\)"
    with pytest.raises(SpiketrainError, match=rf"model\.{name} at {place} must be finite, got nan"):
        to_runtime(model, weights)


@pytest.mark.parametrize("weights", ["float32", "int8", "int4"])
def test_blocks_do_not_change_what_is_stored(weights):
    model = official("fp")
    config, whole = to_runtime(model, weights)
    parts = Exporter(model.config, Shards(DATA / "fp"), weights)
    parts.block_bytes = 1  # 128 outputs at once, of 199 in the head
    found = {}
    for part in parts.parts:
        found |= parts.tensors(part)
    assert found.keys() == whole.keys()
    assert all(np.array_equal(found[name], value) for name, value in whole.items())
    assert parts.package_config() == config


def test_parts_are_as_large_as_planned():
    formats = [("fp", weights) for weights in ("float32", "bfloat16", "int8", "int4")]
    for name, weights in (*formats, ("w8_g32", "int8")):
        model = official(name)
        exporter = Exporter(model.config, Held(model.state_dict()), weights)
        for part in exporter.parts:
            size = sum(x.nbytes for x in exporter.tensors(part).values())
            assert exporter.part_bytes(part) == size, (weights, part)


def test_too_little_memory_is_refused_before_any_work():
    model = official("fp")
    exporter = Exporter(model.config, Held(model.state_dict()), "int4")
    before = exporter.block_bytes
    assert plan(exporter, None)["head"] > 0
    assert exporter.block_bytes == before
    with pytest.raises(SpiketrainError, match=r"--max-memory must be at least .*M for"):
        plan(exporter, 100 << 20)
    plan(exporter, peak_memory() + (200 << 20))
    assert exporter.block_bytes < before


@pytest.mark.parametrize(
    ("what", "value", "rule"),
    [
        ("k", 5e-4, r"\[0.001, 16\], got 0.0005"),
        ("k", 16.5, r"\[0.001, 16\], got 16.5"),
        ("dead_zone", -0.5, r"\[0, 16\], got -0.5"),
        ("dead_zone", 17.0, r"\[0, 16\], got 17"),
    ],
)
def test_a_dial_that_the_runtime_would_not_take_is_refused_by_name(what, value, rule):
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 8}
    model = Model(Config(**sizes, num_hidden_layers=2, spikes=True))
    place = model.model.layers[1].mlp.down_spikes
    with torch.no_grad():
        getattr(place, what).fill_(value)
    name = rf"model\.layers\.1\.mlp\.down_spikes\.{what}"
    with pytest.raises(SpiketrainError, match=f"{name} must be in {rule}"):
        to_runtime(model, "float32")


def test_dials_come_along_and_a_dead_zone_is_approximate():
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 8}
    model = Model(Config(**sizes, num_hidden_layers=2, spikes=True))
    config, tensors = to_runtime(model, "float32")
    assert config["spiketrain"]["fidelity"] == "exact"
    assert tensors["layers.1.mlp.down_spikes"].tolist() == [3.0, 0.0]
    with torch.no_grad():
        model.model.layers[1].mlp.down_spikes.dead_zone.fill_(1.5)
        model.model.layers[1].mlp.down_spikes.k.fill_(2.0)
    config, tensors = to_runtime(model, "int4", "int8")
    assert tensors["layers.1.mlp.down_spikes"].tolist() == [2.0, 1.5]
    assert config["spiketrain"]["fidelity"] == "approximate"
    assert config["spiketrain"]["weights"] == {
        "embedding": "int8", "body": "int4-go", "down": "int4-go", "head": "int8",
    }  # fmt: skip

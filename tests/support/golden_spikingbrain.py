"""Packages of the official tiny SpikingBrain checkpoints, made with NumPy alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from spiketrain.runtime.package import write_package
from spiketrain.runtime.tensor_file import map_tensors

GOLDEN = Path(__file__).parent.parent / "data" / "spikingbrain"
_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "norm_eps",
    "sliding_window",
    "rope_theta",
    "max_position_embeddings",
    "attn_layers",
)


def golden_package(path: Path, name: str, down_proj: str = "published", **fields: Any) -> Path:
    """The checkpoint `name` (fp, w8_g32) as a package; fields are added to its config."""
    source = GOLDEN / name
    given = json.loads((source / "config.json").read_text())
    keys = map_tensors(source, "model.safetensors")
    spikes = name.startswith("w8")
    config: dict[str, Any] = {
        "model_type": "spikingbrain",
        "architectures": ["SpikingBrainForCausalLM"],
    }
    config |= {key: given[key] for key in _FIELDS} | fields
    group = given.get("quant_weight_group_size")
    body = f"int8-gi{group}" if spikes else "float32"
    down = body if spikes and down_proj == "spiked" else "float32"
    if spikes:
        config |= {"gate": "merged", "spikes": True, "attention_spikes": True}
        config |= {"window_cache": "int8", "down_proj": down_proj, "corrections": {}}
    tensors = _tensors(config, keys, down)
    config["spiketrain"] = {
        "format_version": 1,
        "weights": {"embedding": "float32", "body": body, "down": down, "head": "float32"},
        "events": "counts" if spikes else "float32",
        "fidelity": "exact",
    }
    write_package(path, config, tensors)
    return path


def _tensors(config: dict[str, Any], keys: dict[str, Any], down: str) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for key, value in keys.items():
        name = key.removeprefix("model.").removesuffix(".weight")
        if key.endswith(".scales"):
            continue
        if not key.endswith(".weight") or value.ndim == 1 or name == "embeddings":
            found[key.removeprefix("model.")] = np.array(value)
            continue
        scales = keys.get(key.removesuffix("weight") + "weight_quantizer.scales")
        if scales is None or (name.endswith("down_proj") and down == "float32"):
            found[f"{name}.weight"] = np.ascontiguousarray(value.T)
        else:
            _add_codes(config, found, name, value, scales[:, :, 0])
    for layer in range(config["num_hidden_layers"] if config.get("spikes") else 0):
        for place in ("attn.spikes", "attn.o_spikes", "mlp.spikes", "mlp.down_spikes"):
            if place != "mlp.down_spikes" or config["down_proj"] == "spiked":
                found[f"layers.{layer}.{place}"] = np.array([3.0, 0.0], np.float32)
    return found


def _add_codes(
    config: dict[str, Any],
    found: dict[str, np.ndarray],
    name: str,
    weight: np.ndarray,
    scales: np.ndarray,
) -> None:
    """Published codes, round(W / scale), those outside int8 with corrections."""
    outputs, groups = scales.shape
    codes = np.rint(weight.reshape(outputs, groups, -1) / scales[:, :, None])
    codes = codes.reshape(outputs, -1).T.astype(np.int64)
    kept = codes.clip(-127, 127)
    found[f"{name}.weight"] = np.ascontiguousarray(kept.astype(np.int8))
    found[f"{name}.scale"] = np.ascontiguousarray(scales.T)
    rows, columns = np.nonzero(codes != kept)
    if len(rows):
        config["corrections"][name] = len(rows)
        counts = np.bincount(rows, minlength=len(codes))
        found[f"{name}.extra_row"] = np.concatenate([[0], counts.cumsum()]).astype(np.int32)
        found[f"{name}.extra_column"] = columns.astype(np.int32)
        found[f"{name}.extra"] = (codes - kept)[rows, columns].astype(np.int16)

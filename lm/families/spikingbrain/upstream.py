"""The published Hugging Face directories `hf_7B_model` and `W8ASpike` -> config and tensors.

They differ from what they say in places; each is a field of the config, with upstream's choice as
the default, and is told to who imports them.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spiketrain.lm.families.spikingbrain.config import Config
from spiketrain.lm.families.spikingbrain.model import Model
from spiketrain.lm.families.spikingbrain.settings import check_settings
from spiketrain.lm.imported import Imported
from spiketrain.lm.keys import check_keys
from spiketrain.lm.shards import Shards

MODEL_TYPE = "gla_swa"
INT8 = 127
_KEPT = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "intermediate_size", "norm_eps", "sliding_window", "attn_layers",
    "rope_theta", "max_position_embeddings", "gate_logit_normalizer", "bos_token_id",
    "eos_token_id",
)  # fmt: skip
_NEEDED = (  # whose upstream defaults are those of one model
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "sliding_window",
)  # fmt: skip
_RANK = "gate_low_rank_dim"  # gate_rank here
_FIXED: dict[str, tuple[Any, ...]] = {  # fields that have to have one of these values
    "hidden_act": ("swish", "silu"),
    "use_short_conv": (False,),
    "elementwise_affine": (True,),
    "tie_word_embeddings": (False,),
    "enable_spike": (False,),
    "rope_scaling": (None,),
}
_SCALES = ".weight_quantizer.scales"


def upstream_config(
    settings: Mapping[str, Any],
    shapes: Mapping[str, Any],
    window_keys: int | None = None,
    down_proj: str | None = None,
) -> tuple[Config, tuple[str, ...]]:
    """Config of a published directory, and what was decided about it.

    settings: its config.json; shapes: name -> what has a .shape.  window_keys: keys that a query
    sees, sliding_window + 1 unless told; down_proj: "published" (default) or "spiked".  Raises
    ValueError listing every missing, unknown or misshapen key, or naming the field that cannot be.
    """
    for name, allowed in _FIXED.items():
        if settings.get(name, allowed[0]) not in allowed:
            raise ValueError(f"config.json: {name} must be {allowed[0]!r}, got {settings[name]!r}")
    check_settings(settings, _NEEDED, {"gate_rank": _RANK})
    spiking = any(name.endswith(_SCALES) for name in shapes)
    fields = {name: settings[name] for name in _KEPT if settings.get(name) is not None}
    if settings.get(_RANK) is not None:
        fields["gate_rank"] = settings[_RANK]
    fields |= {"window_keys": window_keys, "down_proj": down_proj or "published"}
    if spiking:
        fields |= {
            "gate": "merged",
            "spikes": True,
            "attention_spikes": True,
            "quant_weight_group_size": _group(shapes),
        }
    config = Config(**fields)
    expected = expected_shapes(config)
    unused = _unused_scales(config, shapes) if spiking else {}
    check_keys(shapes, expected | unused, "W8ASpike" if spiking else "hf_7B_model")
    return config, _decisions(config, window_keys, down_proj, settings)


def expected_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors that a published directory of this config has."""
    with torch.device("meta"):
        state = Model(config).state_dict()
    return {name: tuple(x.shape) for name, x in state.items() if not _is_dial(name)}


def from_upstream(
    shards: Shards,
    settings: Mapping[str, Any],
    window_keys: int | None = None,
    down_proj: str | None = None,
) -> Imported:
    """The whole model of a published directory in float32; see `upstream_config`."""
    config, decisions = upstream_config(settings, shards, window_keys, down_proj)
    model = load_published(config, shards)
    outside, total = codes_outside_int8(model)
    if total:
        decisions += (f"{outside} of {total} weight codes are outside int8 and kept as they are",)
    return Imported(model, decisions)


def load_published(config: Config, shards: Shards) -> Model:
    """The model of checked shards in float32; k and dead zones, not there, are the config's."""
    model = Model(config)
    tensors: dict[str, Tensor] = {name: shards.read(name) for name in expected_shapes(config)}
    model.load_state_dict(tensors, strict=False)
    return model.eval()


def codes_outside_int8(model: Model) -> tuple[int, int]:
    """How many weight codes round to more than +-127, and how many codes there are."""
    outside = total = 0
    for module in model.modules():
        if hasattr(module, "weight_quantizer"):
            codes = module.codes()
            outside += int((codes.abs() > INT8).sum())
            total += codes.numel()
    return outside, total


def _group(shapes: Mapping[str, Any]) -> int:
    """Inputs of a group: the code upstream ignores what config.json says of it."""
    prefix = "model.layers.0.attn.q_proj"
    weight, scales = (shapes.get(f"{prefix}{end}") for end in (".weight", _SCALES))
    if weight is None or scales is None or len(scales.shape) != 3 or len(weight.shape) != 2:
        raise ValueError(
            f"{prefix}: must have a weight (O, I) and {_SCALES[1:]} (O, I / group, 1), got "
            f"{[tuple(x.shape) if x is not None else None for x in (weight, scales)]}"
        )
    groups = scales.shape[1]
    if groups < 1 or weight.shape[1] % groups:
        raise ValueError(
            f"{prefix}{_SCALES} must divide the {weight.shape[1]} inputs into groups, got {groups}"
        )
    return int(weight.shape[1] // groups)


def _unused_scales(config: Config, shapes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Scales of down projections that the published code never reads."""
    if config.down_proj == "spiked" or config.quant_weight_group_size is None:
        return {}
    groups = config.intermediate_size // config.quant_weight_group_size
    names = [f"model.layers.{i}.mlp.down_proj{_SCALES}" for i in range(config.num_hidden_layers)]
    return {name: (config.hidden_size, groups, 1) for name in names if name in shapes}


def _is_dial(name: str) -> bool:
    return name.endswith(("spikes.k", "spikes.dead_zone"))


def _decisions(
    config: Config, window_keys: int | None, down_proj: str | None, settings: Mapping[str, Any]
) -> tuple[str, ...]:
    group = config.quant_weight_group_size
    decisions = [
        f"W8ASpike, int8 weights in groups of {group}, spike counts at k {config.spike_k:g}"
        if group
        else "hf_7B_model, float weights, no spikes",
        f"window_keys {config.window_keys}: "
        + (
            "chosen by --window-keys"
            if window_keys
            else "sliding_window + 1, as in training and prefill; cached decoding upstream sees one"
            " less"
        ),
    ]
    stated = settings.get("quant_weight_group_size")
    if group and stated not in (None, group):
        decisions.append(f"config.json says groups of {stated}: the code reads the scales' shape")
    if group or down_proj:
        why = {
            None: "the code bypasses spikes and quantisation, the report does not: --down-proj",
            "published": "chosen by --down-proj",
            "spiked": "chosen by --down-proj, as in the report",
        }[down_proj]
        decisions.append(f"down_proj {config.down_proj}: {why}")
    return tuple(decisions)

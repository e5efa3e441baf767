"""Rules of a SpikingBrain config: every field's range, and which formats go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spiketrain.runtime.dial import most_dial
from spiketrain.runtime.families.spikingbrain.layout import FLOATS, group_of
from spiketrain.runtime.families.spikingbrain.rotary import check_scaling
from spiketrain.runtime.families.spikingbrain.window import CACHES

MAX_VOCAB_SIZE = 1 << 24
MAX_LAYERS = 256
MAX_EXPERTS = 1024
MAX_HEAD_DIM = 1024
MAX_POSITIONS = 1 << 24
# Sums of int8 * int8 over this many inputs stay below 2**31: 131072 * 127 * 127 < 2**31.
MAX_WIDTH = 1 << 17

SIZES = {
    "vocab_size": MAX_VOCAB_SIZE,
    "hidden_size": MAX_WIDTH,
    "num_hidden_layers": MAX_LAYERS,
    "num_attention_heads": MAX_WIDTH,
    "num_key_value_heads": MAX_WIDTH,
    "intermediate_size": MAX_WIDTH,
    "head_dim": MAX_HEAD_DIM,
    "sliding_window": MAX_POSITIONS,
    "window_keys": MAX_POSITIONS,
    "max_position_embeddings": MAX_POSITIONS,
    "gate_rank": MAX_WIDTH,
    "gate_logit_normalizer": MAX_WIDTH,
    "moe_intermediate_size": MAX_WIDTH,
}
NUMBERS = {"norm_eps": (1e-12, 1.0), "rope_theta": (1.0, 1e12)}
_COUNTS = {"num_sink_tokens": 1 << 16, "num_experts": MAX_EXPERTS, "num_shared_experts": 64}
_CHOICES = {
    "gate": ("low_rank", "merged", "tied"),
    "feature_map": ("relu", "sigmoid"),
    "down_proj": ("published", "spiked"),
    "window_cache": tuple(CACHES),
}
_DEFAULTS: dict[str, Any] = {
    "norm_eps": 1e-6,
    "full_attn_layers": (),
    "parallel": False,
    "rope_theta": 1e6,
    "rotary_scaling": None,
    "max_position_embeddings": 131072,
    "qk_norm": False,
    "gate": "low_rank",
    "gate_rank": 16,
    "gate_logit_normalizer": 16,
    "feature_map": "relu",
    "num_sink_tokens": 0,
    "num_experts": 0,
    "num_shared_experts": 1,
    "dense_layers": (),
    "spikes": False,
    "attention_spikes": False,
    "down_proj": "spiked",
    "window_cache": "float32",
    "corrections": {},
}
_CLASSES = ("embedding", "body", "down", "head")
_FORMAT_FIELDS = (*_CLASSES, "max_dial")  # told by the spiketrain object
# Said by other tensors or by formats: kept for people.
_REMARKS = ("quant_weight_group_size", "spike_k", "dead_zone")
_OTHER_KEYS = ("model_type", "architectures", "spiketrain", "tie_word_embeddings", *_REMARKS)


def from_config(cls: Any, names: tuple[str, ...], config: Mapping[str, Any]) -> Any:
    """An object of `cls` from config.json: unknown and missing keys are errors."""
    if config.get("model_type") != "spikingbrain":
        raise ValueError(
            f"model_type must be 'spikingbrain', got {config.get('model_type')!r:.200}"
        )
    known = [name for name in names if name not in _FORMAT_FIELDS]
    for key in sorted(set(config) - set(known) - set(_OTHER_KEYS)):
        raise ValueError(f"{key!s:.200} is unknown")
    if config.get("tie_word_embeddings", False) is not False:
        raise ValueError("tie_word_embeddings must be false: the head is a tensor of its own")
    values = {**_DEFAULTS, **{key: config[key] for key in known if key in config}}
    _complete(values)
    for key in known:
        if key not in values:
            raise ValueError(f"{key} is missing")
    for key in ("attn_layers", "full_attn_layers", "dense_layers"):
        if not isinstance(values[key], (list, tuple)):
            raise ValueError(f"{key} must be a list of layers, got {values[key]!r:.200}")
        values[key] = tuple(values[key])
    ours = config["spiketrain"]
    if set(ours["weights"]) != set(_CLASSES):
        raise ValueError(
            f"spiketrain.weights must have a format for each of {_CLASSES}, "
            f"got {ours['weights']!r:.200}"
        )
    spec = cls(**values, **ours["weights"], max_dial=most_dial(ours))
    if ours["events"] != events_of(spec):
        raise ValueError(
            f"spiketrain.events must be {events_of(spec)!r} here, got {ours['events']!r:.200}"
        )
    return spec


def events_of(spec: Any) -> str:
    """Form of what the matrices of the blocks read."""
    if spec.spikes:
        return "counts"
    return "float32" if spec.body in FLOATS else "int8"


def _complete(values: dict[str, Any]) -> None:
    """Defaults that depend on other fields, where these are there."""
    width, heads = values.get("hidden_size"), values.get("num_attention_heads")
    if "head_dim" not in values and type(width) is int and type(heads) is int and heads > 0:
        values["head_dim"] = width // heads
    if "window_keys" not in values and type(values.get("sliding_window")) is int:
        values["window_keys"] = values["sliding_window"] + 1
    if "num_key_value_heads" not in values and heads is not None:
        values["num_key_value_heads"] = heads
    layers = values.get("num_hidden_layers")
    if "attn_layers" not in values and type(layers) is int and layers <= MAX_LAYERS:
        values["attn_layers"] = tuple(range(1, layers, 2))
    if "moe_intermediate_size" not in values and "intermediate_size" in values:
        values["moe_intermediate_size"] = values["intermediate_size"]


def check_fields(spec: Any) -> None:
    """ValueError unless every field is of its kind and in its range."""
    for name, most in SIZES.items():
        check_whole(name, getattr(spec, name), 1, most)
    for name, most in _COUNTS.items():
        check_whole(name, getattr(spec, name), 0, most)
    for name in ("parallel", "qk_norm", "spikes", "attention_spikes"):
        if not isinstance(getattr(spec, name), bool):
            raise ValueError(f"{name} must be true or false, got {getattr(spec, name)!r:.200}")
    for name, allowed in _CHOICES.items():
        if getattr(spec, name) not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {getattr(spec, name)!r:.200}")
    for name, (low, high) in NUMBERS.items():
        check_number(name, getattr(spec, name), low, high)
    check_scaling(spec.rotary_scaling)
    if spec.head_dim % 2:
        raise ValueError(f"head_dim must be even, got {spec.head_dim}")
    check_whole("query width", spec.num_attention_heads * spec.head_dim, 1, MAX_WIDTH)
    if spec.num_attention_heads % spec.num_key_value_heads:
        raise ValueError(
            f"num_attention_heads must be a multiple of num_key_value_heads "
            f"{spec.num_key_value_heads}, got {spec.num_attention_heads}"
        )
    _check_layers(spec)
    _check_corrections(spec.corrections)


def _check_layers(spec: Any) -> None:
    for name in ("attn_layers", "full_attn_layers", "dense_layers"):
        layers = getattr(spec, name)
        for layer in layers:
            check_whole(name, layer, 0, spec.num_hidden_layers - 1)
        if len(set(layers)) < len(layers):
            raise ValueError(f"{name} must be different layers, got {layers!r:.200}")
    if not spec.parallel and set(spec.full_attn_layers) - set(spec.attn_layers):
        raise ValueError(
            f"full_attn_layers must be among attn_layers, got {spec.full_attn_layers!r:.200}"
        )


def _check_corrections(corrections: Any) -> None:
    if not isinstance(corrections, Mapping):
        raise ValueError(f"corrections must be an object, got {corrections!r:.200}")
    for name, count in corrections.items():
        check_whole(f"corrections of {name!s:.200}", count, 1, (1 << 31) - 1)


def check_formats(spec: Any) -> None:
    """ValueError unless the weight formats go together."""
    counted = spec.body == "int8" or spec.body == "int4-go" or group_of(spec.body) > 0
    good = counted if spec.spikes else spec.body in ("int8", "int4-gi")
    if spec.body not in FLOATS and not good:
        rule = "int8, int8-gi<group> or int4-go" if spec.spikes else "int8 or int4-gi"
        raise ValueError(
            f"spiketrain.weights.body must be float32, bfloat16, {rule} here, "
            f"got {spec.body!r:.200}"
        )
    published = spec.spikes and spec.down_proj == "published"
    allowed = FLOATS if published else (spec.body,)
    if spec.down not in allowed:
        raise ValueError(
            f"spiketrain.weights.down must be one of {allowed} here, got {spec.down!r:.200}"
        )
    for name, formats in (
        ("head", (*FLOATS, "int8", "int4-gi")),
        ("embedding", (*FLOATS, "int8")),
    ):
        if getattr(spec, name) not in formats:
            raise ValueError(
                f"spiketrain.weights.{name} must be one of {formats}, "
                f"got {getattr(spec, name)!r:.200}"
            )
    if spec.attention_spikes and spec.window_cache != "int8":
        raise ValueError(
            f"window_cache must be 'int8' with attention_spikes, got {spec.window_cache!r}"
        )


def check_whole(name: str, value: Any, least: int, most: int) -> None:
    """ValueError unless value is a whole number in [least, most]."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number in [{least}, {most}], got {value!r:.200}")


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """ValueError unless value is a number in [low, high]."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise ValueError(f"{name} must be a number in [{low:g}, {high:g}], got {value!r:.200}")

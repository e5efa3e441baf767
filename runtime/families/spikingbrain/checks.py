"""Rules of a SpikingBrain config beyond a field's own: which values and formats go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spiketrain.runtime.fields import Whole
from spiketrain.runtime.formats import FLOATS, group_of

# Sums of int8 * int8 over this many inputs stay below 2**31: 131072 * 127 * 127 < 2**31.
MAX_WIDTH = 1 << 17

_LAYERS = ("attn_layers", "full_attn_layers", "dense_layers")


def check_relations(config: Any) -> None:
    """ValueError unless the fields, each good by itself, go together."""
    if config.head_dim % 2:
        raise ValueError(f"head_dim must be even, got {config.head_dim}")
    Whole(1, MAX_WIDTH)("query width", config.num_attention_heads * config.head_dim)
    if config.num_attention_heads % config.num_key_value_heads:
        raise ValueError(
            f"num_attention_heads must be a multiple of num_key_value_heads "
            f"{config.num_key_value_heads}, got {config.num_attention_heads}"
        )
    for name in _LAYERS:
        _check_layers(name, getattr(config, name), config.num_hidden_layers)
    if not config.parallel and set(config.full_attn_layers) - set(config.attn_layers):
        raise ValueError(
            f"full_attn_layers must be among attn_layers {list(config.attn_layers)}, "
            f"got {list(config.full_attn_layers)!r:.200}"
        )


def _check_layers(name: str, layers: Any, count: int) -> None:
    good = all(type(layer) is int and 0 <= layer < count for layer in layers)
    if not good or len(set(layers)) < len(layers):
        raise ValueError(
            f"{name} must be different layers in [0, {count}), got {list(layers)!r:.200}"
        )


def check_corrections(name: str, corrections: Any) -> None:
    """ValueError unless this is an object with a count for each of some matrices."""
    if not isinstance(corrections, Mapping):
        raise ValueError(f"{name} must be an object, got {corrections!r:.200}")
    for matrix, count in corrections.items():
        Whole(1, (1 << 31) - 1)(f"{name} of {matrix!s:.200}", count)


def check_untied(name: str, value: Any) -> None:
    """ValueError unless the value is false."""
    if value is not False:
        raise ValueError(
            f"{name} must be false: the head is a tensor of its own, got {value!r:.200}"
        )


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
    for name, value, formats in (
        ("head", spec.head, (*FLOATS, "int8", "int4-gi")),
        ("embedding", spec.embedding, (*FLOATS, "int8")),
    ):
        if value not in formats:
            raise ValueError(
                f"spiketrain.weights.{name} must be one of {formats}, got {value!r:.200}"
            )
    if spec.attention_spikes and spec.window_cache != "int8":
        raise ValueError(
            f"window_cache must be 'int8' with attention_spikes, got {spec.window_cache!r}"
        )

"""config.json of a Llama, Qwen2 or Qwen3 -> the Config of the same network here."""

from collections.abc import Mapping
from typing import Any

from spiketrain.lm.conversion.rope_settings import rope_settings
from spiketrain.lm.families.spikingbrain import Config
from spiketrain.lm.families.spikingbrain.settings import check_settings

MODEL_TYPES = ("llama", "qwen2", "qwen3")
_NEEDED = (  # the defaults of each family are those of one model
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings",
)  # fmt: skip
_FIXED: dict[str, Any] = {  # fields that have to have this value, which is their default
    "hidden_act": "silu",
    "use_sliding_window": False,
    "mlp_bias": False,
    "attention_bias": False,  # one of o_proj as well; Qwen2 has others and does not read this
}


def transformer_config(settings: Mapping[str, Any], context: int | None = None) -> Config:
    """The config of the same network here; settings: config.json of a Hugging Face directory.

    context: tokens that attention sees, max_position_embeddings unless told.  Raises ValueError
    naming the field that cannot be.
    """
    kind = settings.get("model_type")
    if kind not in MODEL_TYPES:
        raise ValueError(f"config.json: model_type must be one of {MODEL_TYPES}, got {kind!r}")
    for name, rule in _FIXED.items():
        value = settings.get(name)
        if value not in (None, rule) and (kind, name) != ("qwen2", "attention_bias"):
            raise ValueError(f"config.json: {name} must be {rule!r}, got {value!r:.200}")
    rope = rope_settings(settings)
    flat = {**settings, **rope, "rms_norm_eps": settings.get("rms_norm_eps", 1e-6)}
    check_settings(flat, (*_NEEDED, "rms_norm_eps"), {"norm_eps": "rms_norm_eps"})
    tied = settings.get("tie_word_embeddings") or False
    if not isinstance(tied, bool):
        raise ValueError(f"config.json: tie_word_embeddings must be true or false, got {tied!r}")
    most = context or settings["max_position_embeddings"]
    optional = ("num_key_value_heads", "head_dim")
    return Config(
        **{name: settings[name] for name in _NEEDED if name != "max_position_embeddings"},
        **{name: settings[name] for name in optional if settings.get(name) is not None},
        max_position_embeddings=most,
        norm_eps=flat["rms_norm_eps"],
        rope_theta=flat.get("rope_theta", 10_000.0),
        rotary_scaling=rope["rotary_scaling"],
        tie_word_embeddings=tied,
        qk_norm=kind == "qwen3",
        attn_layers=range(settings["num_hidden_layers"]),
        sliding_window=max(1, most - 1),
        window_keys=most,
        carry="zero",
    )

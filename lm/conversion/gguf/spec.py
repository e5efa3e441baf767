"""Fields of a GGUF file's network -> the Spec of its package: window attention in every layer."""

from collections.abc import Mapping
from typing import Any

from spiketrain.lm.conversion.rope_settings import rope_settings
from spiketrain.runtime.dial import NO_DIAL
from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.families.spikingbrain.spec import Spec

WEIGHTS = ("float32", "bfloat16", "int8")
_SAME = (  # fields that have one name in a config.json and in a Spec
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "intermediate_size", "max_position_embeddings",
)  # fmt: skip


def gguf_spec(
    settings: Mapping[str, Any],
    *,
    weights: str,
    head: str | None = None,
    spikes: bool = False,
    window_keys: int | None = None,
    window_cache: str = "float32",
    max_dial: float | None = None,
) -> Spec:
    """The package of the network that `settings`, a GGUF source's config, describes.

    weights, head: of WEIGHTS; the head's is the same unless told.  window_keys: keys that a query
    sees, its own included; all of the context unless told.  Raises SpiketrainError naming field,
    rule and value.
    """
    context = settings["max_position_embeddings"]
    visible = context if window_keys is None else window_keys
    if visible > context:
        raise SpiketrainError(
            f"--window-keys must be at most the {context} tokens of the context, got {visible}"
        )
    try:
        rope = rope_settings(settings)
        return Spec(
            **{name: settings[name] for name in _SAME},
            norm_eps=settings["rms_norm_eps"],
            rope_theta=float(rope.get("rope_theta", 10_000.0)),
            rotary_scaling=rope["rotary_scaling"],
            qk_norm=settings["model_type"] == "qwen3",
            attn_layers=tuple(range(settings["num_hidden_layers"])),
            sliding_window=max(1, visible - 1),
            window_keys=visible,
            moe_intermediate_size=settings["intermediate_size"],
            spikes=spikes,
            window_cache=window_cache,
            max_dial=NO_DIAL if max_dial is None else max_dial,
            embedding=weights,
            body=weights,
            down=weights,
            head=weights if head is None else head,
        )
    except ValueError as error:
        raise SpiketrainError(str(error)) from None

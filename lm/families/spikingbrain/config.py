"""Config of a SpikingBrain language model: a Hugging Face config whose fields are checked at birth.

Upstream's names where upstream has them (arXiv 2509.05276, `hf_7B_model`).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedConfig as HFConfig

import spiketrain.lm.statement
from spiketrain.lm.statement import Statement
from spiketrain.runtime.families.spikingbrain.checks import check_relations
from spiketrain.runtime.families.spikingbrain.layers import Layers
from spiketrain.runtime.families.spikingbrain.spec import Spec
from spiketrain.runtime.fields import Maybe, Whole, choice, flag, number, stated

_LAYERS = ("attn_layers", "full_attn_layers", "dense_layers")


@dataclass(kw_only=True)
class Training(spiketrain.lm.statement.Training):
    """Fields that a package does not have; see Config."""

    spike_k: float = number(0.0, without_low=True, default=3.0)
    dead_zone: float = number(0.0, default=0.0)
    train_spikes: bool = flag(False)
    quant_weight_group_size: int | None = stated(Maybe(Whole(1)), None)
    initializer_range: float = number(0.0, without_low=True, default=0.02)
    carry: str = choice("state", "zero", default="state")


class Config(Layers, HFConfig):
    """Hyper-parameters of a SpikingBrain language model; every field is checked at birth.

    The fields of a package, with their ranges and defaults, are those of
    `spiketrain.runtime.families.spikingbrain.Spec`:

    head_dim: channels of a head; None is hidden_size / num_attention_heads.
    attn_layers: layers with window attention, None is the odd ones; the others have gated linear
    attention.  parallel: every layer has both, on the same q, k, v (the 76B's hybrid), and
    attn_layers says nothing.  full_attn_layers: window layers whose queries see
    max_position_embeddings keys.  rotary_scaling: slower rotation, runtime's rotary.check_scaling.
    sliding_window: w; window_keys: keys a query sees, itself included, None is w + 1, as upstream
    in training and prefill (its cached decoding sees w).
    gate: decay per key channel from two matrices of rank gate_rank ("low_rank"), from one
    ("merged", W8ASpike) or 1 - k ("tied", the 76B); gate_logit_normalizer divides the logarithm of
    the first two.  feature_map: what makes q and k of linear attention non-negative.
    qk_norm: RMS norm of each head's q and k, as in Qwen3.  num_sink_tokens: learned keys and values
    of each window layer that every query sees.
    num_experts: routed experts (top 1) of a layer's MLP, 0 for none; dense_layers have none;
    moe_intermediate_size: their width; num_shared_experts: how many everyone passes.
    spikes: matrices of the blocks read spike counts round(x / V), V = mean|x| / k of that token.
    attention_spikes: q of window attention too, its k and v in int8 (W8ASpike).
    down_proj: "published" bypasses spikes and quantisation there, "spiked" does not (the report).

    Training adds:

    spike_k, dead_zone: start of k, and |x| / V below which there is no spike (0: rounding alone),
    of each place.
    quant_weight_group_size: inputs that share an int8 scale of a weight, None for float weights.
    train_spikes: whether k is trained.  carry: what crosses a chunk border in training and
    evaluation, "state" or "zero".
    """

    model_type = Spec.model_type
    statement: ClassVar[Statement] = Statement(
        Spec,
        Training,
        start={
            "vocab_size": 4096,
            "hidden_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 704,
            "sliding_window": 64,
        },
        export=("tie_word_embeddings", "window_cache", "corrections"),
    )

    def __init__(self, **told: Any) -> None:
        tied = told.pop("tie_word_embeddings", False)
        layers = {name: sorted(told[name]) for name in _LAYERS if told.get(name) is not None}
        others = self.statement.fill(self, {**told, **layers})
        self.rope_theta: float = float(self.rope_theta)
        check_relations(self)
        if self.gate == "tied" and self.feature_map != "sigmoid":
            raise ValueError(
                f"feature_map must be 'sigmoid' with a tied gate, got {self.feature_map!r}"
            )
        super().__init__(tie_word_embeddings=tied, **others)
        self.tie_word_embeddings = tied

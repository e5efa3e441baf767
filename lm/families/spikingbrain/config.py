"""Config of a SpikingBrain language model: a Hugging Face config whose fields are checked at birth.

Upstream's names where upstream has them (arXiv 2509.05276, `hf_7B_model`).
"""

import math
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig as HFConfig

from spiketrain.runtime.families.spikingbrain.rotary import check_scaling

GATES = ("low_rank", "merged", "tied")
FEATURE_MAPS = ("relu", "sigmoid")
_SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "intermediate_size", "sliding_window", "window_keys",
    "max_position_embeddings", "gate_rank", "gate_logit_normalizer",
)  # fmt: skip


class Config(HFConfig):
    """Hyper-parameters of a SpikingBrain language model; every field is checked at birth.

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
    spike_k, dead_zone: start of k, and |x| / V below which there is no spike (0: rounding alone),
    of each place.  attention_spikes: q of window attention too, its k and v in int8 (W8ASpike).
    down_proj: "published" bypasses spikes and quantisation there, "spiked" does not (the report).
    quant_weight_group_size: inputs that share an int8 scale of a weight, None for float weights.
    train_spikes: whether k is trained.  carry: what crosses a chunk border in training and
    evaluation, "state" or "zero".
    """

    model_type = "spikingbrain"

    def __init__(
        self,
        vocab_size: int = 4096,
        hidden_size: int = 256,
        num_hidden_layers: int = 4,
        num_attention_heads: int = 4,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        intermediate_size: int = 704,
        norm_eps: float = 1e-6,
        sliding_window: int = 64,
        window_keys: int | None = None,
        attn_layers: Sequence[int] | None = None,
        full_attn_layers: Sequence[int] = (),
        parallel: bool = False,
        rope_theta: float = 1e6,
        rotary_scaling: dict[str, Any] | None = None,
        max_position_embeddings: int = 131072,
        qk_norm: bool = False,
        gate: str = "low_rank",
        gate_rank: int = 16,
        gate_logit_normalizer: int = 16,
        feature_map: str = "relu",
        num_sink_tokens: int = 0,
        num_experts: int = 0,
        num_shared_experts: int = 1,
        moe_intermediate_size: int | None = None,
        dense_layers: Sequence[int] = (),
        spikes: bool = False,
        spike_k: float = 3.0,
        dead_zone: float = 0.0,
        train_spikes: bool = False,
        attention_spikes: bool = False,
        down_proj: str = "spiked",
        quant_weight_group_size: int | None = None,
        initializer_range: float = 0.02,
        carry: str = "state",
        compute_dtype: str = "float32",
        **kwargs,
    ) -> None:
        heads = num_attention_heads
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = heads
        self.num_key_value_heads = heads if num_key_value_heads is None else num_key_value_heads
        self.head_dim = hidden_size // max(heads, 1) if head_dim is None else head_dim
        self.intermediate_size = intermediate_size
        self.norm_eps = norm_eps
        self.sliding_window = sliding_window
        self.window_keys = sliding_window + 1 if window_keys is None else window_keys
        odd = range(1, num_hidden_layers, 2)
        self.attn_layers = sorted(odd if attn_layers is None else attn_layers)
        self.full_attn_layers = sorted(full_attn_layers)
        self.parallel = parallel
        self.rope_theta = float(rope_theta)
        self.rotary_scaling = rotary_scaling
        self.max_position_embeddings = max_position_embeddings
        self.qk_norm = qk_norm
        self.gate = gate
        self.gate_rank = gate_rank
        self.gate_logit_normalizer = gate_logit_normalizer
        self.feature_map = feature_map
        self.num_sink_tokens = num_sink_tokens
        self.num_experts = num_experts
        self.num_shared_experts = num_shared_experts
        self.moe_intermediate_size = (
            intermediate_size if moe_intermediate_size is None else moe_intermediate_size
        )
        self.dense_layers = sorted(dense_layers)
        self.spikes = spikes
        self.spike_k = spike_k
        self.dead_zone = dead_zone
        self.train_spikes = train_spikes
        self.attention_spikes = attention_spikes
        self.down_proj = down_proj
        self.quant_weight_group_size = quant_weight_group_size
        self.initializer_range = initializer_range
        self.carry = carry
        self.compute_dtype = compute_dtype
        self._check()
        tied = kwargs.pop("tie_word_embeddings", False)
        super().__init__(tie_word_embeddings=tied, **kwargs)
        self.tie_word_embeddings = tied

    def _check(self) -> None:
        for name in (*_SIZES, "moe_intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("norm_eps", "rope_theta", "spike_k", "initializer_range"):
            value = getattr(self, name)
            if not (value > 0.0 and math.isfinite(value)):
                raise ValueError(f"{name} must be finite and above 0, got {value}")
        for name in ("dead_zone", "num_sink_tokens", "num_experts", "num_shared_experts"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads must be a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}, got {self.num_attention_heads}"
            )
        check_scaling(self.rotary_scaling)
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, got {self.head_dim}")
        for name in ("attn_layers", "full_attn_layers", "dense_layers"):
            self._check_layers(name, getattr(self, name))
        if not self.parallel and set(self.full_attn_layers) - set(self.attn_layers):
            raise ValueError(
                f"full_attn_layers must be among attn_layers {self.attn_layers}, "
                f"got {self.full_attn_layers}"
            )
        group = self.quant_weight_group_size
        if group is not None and group < 1:
            raise ValueError(f"quant_weight_group_size must be at least 1 or None, got {group}")
        if self.gate == "tied" and self.feature_map != "sigmoid":
            raise ValueError(
                f"feature_map must be 'sigmoid' with a tied gate, got {self.feature_map!r}"
            )
        for name, allowed in (
            ("gate", GATES),
            ("feature_map", FEATURE_MAPS),
            ("down_proj", ("published", "spiked")),
            ("carry", ("state", "zero")),
            ("compute_dtype", ("float32", "bfloat16", "float64")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")

    def _check_layers(self, name: str, layers: Sequence[int]) -> None:
        good = all(isinstance(i, int) and 0 <= i < self.num_hidden_layers for i in layers)
        if not good or len(set(layers)) < len(layers):
            raise ValueError(
                f"{name} must be different layers in [0, {self.num_hidden_layers}), got {layers}"
            )

    def has_window(self, layer: int) -> bool:
        """Whether this layer has window attention."""
        return self.parallel or layer in self.attn_layers

    def has_state(self, layer: int) -> bool:
        """Whether this layer has gated linear attention."""
        return self.parallel or layer not in self.attn_layers

    def visible_keys(self, layer: int) -> int:
        """Keys that a query of this window layer sees, itself included."""
        full = layer in self.full_attn_layers
        return self.max_position_embeddings if full else self.window_keys

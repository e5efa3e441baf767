"""The SpikingBrain network: embedding, blocks of attention and SwiGLU, head (arXiv 2509.05276).

Parameters bear the published names.  Torch's own operations, or on a GPU what gpu_kernels.py finds.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from spiketrain.lm.families.spikingbrain.attention import Attention, Parts
from spiketrain.lm.families.spikingbrain.config import Config
from spiketrain.lm.families.spikingbrain.feed_forward import MLP, Experts
from spiketrain.lm.families.spikingbrain.neurons import Linear, RMSNorm, Spikes
from spiketrain.lm.kernels.cross_entropy import linear_cross_entropy
from spiketrain.lm.language_model import LanguageModel, State


class Block(nn.Module):
    """RMSNorm, attention, RMSNorm, SwiGLU, both added to the residual."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.norm_eps
        self.attn_norm = RMSNorm(size, eps)
        self.attn = Attention(config, layer)
        self.mlp_norm = RMSNorm(size, eps)
        self.mlp = Experts(config) if config.has_experts(layer) else MLP(config)

    def forward(
        self,
        x: Tensor,
        state: Parts,
        dtype: torch.dtype,
        events: list[Tensor],
        costs: list[Tensor] | None,
    ) -> tuple[Tensor, Parts]:
        """Residual x (B, T, D) -> the same, next state; products in `dtype`."""
        branch, state = self.attn(self.attn_norm(x).to(dtype), state, events, costs)
        x = x + branch
        return x + self.mlp(self.mlp_norm(x).to(dtype), events, costs), state


class Decoder(nn.Module):
    """Embedding, blocks and the last norm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)


class Model(LanguageModel):
    """SpikingBrain language model; state of a layer: see Attention, (B, width) each.

    Events: what the matrices of each block read, in the order attention's projections, its output,
    the MLP's gate and up, and its down projection where that is spiked.
    """

    config_class = Config
    base_model_prefix = "model"
    _tied_weights_keys = {"lm_head.weight": "model.embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        spread = self.config.initializer_range
        if isinstance(module, (Linear, nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=spread)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, Linear):
                module.reset_scales()
        elif isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, Spikes):
            module.reset_parameters()
        elif isinstance(module, Attention):
            module.reset_gate()
            if hasattr(module, "sinks"):
                nn.init.normal_(module.sinks, std=spread)

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token embedding."""
        return self.model.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding."""
        self.model.embeddings = value

    def get_output_embeddings(self) -> nn.Linear:
        """Return the head."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replace the head."""
        self.lm_head = value

    @property
    def event_sizes(self) -> tuple[int, ...]:
        """Widths of the events."""
        cfg, widths = self.config, []
        if not cfg.spikes:
            return ()
        for layer in range(cfg.num_hidden_layers):
            widths += [cfg.hidden_size, cfg.num_attention_heads * cfg.head_dim, cfg.hidden_size]
            widths += [cfg.inner(layer)] if cfg.down_proj == "spiked" else []
        return tuple(widths)

    def initial_state(self, batch: int) -> State:
        """Zeros, and no tokens."""
        like = self.model.norm.weight
        return tuple(layer.attn.initial_state(batch, like) for layer in self.model.layers)

    def carried(self, state: State) -> State:
        """What the next chunk starts from: detached, or the initial state if `carry` is "zero"."""
        if self.config.carry == "zero":
            return self.initial_state(state[0][0].shape[0])
        return tuple(tuple(part.detach() for part in layer) for layer in state)

    def features(
        self, input_ids: Tensor, state: State | None = None, event_costs: list[Tensor] | None = None
    ) -> tuple[Tensor, State, list[Tensor]]:
        """input_ids (B, T) -> features (T, B, D) for the head, state, events (T, B, width)."""
        state = self.initial_state(input_ids.shape[0]) if state is None else state
        dtype = self._dtype_of_products(self.lm_head.weight.dtype)
        costs = list(event_costs) if event_costs else None
        x = self.model.embeddings(input_ids)
        after: list[Parts] = []
        events: list[Tensor] = []
        for block, layer in zip(self.model.layers, state, strict=True):
            x, layer = block(x, layer, dtype, events, costs)
            after.append(layer)
        x = self.model.norm(x).to(dtype).transpose(0, 1)
        return x, tuple(after), [read.transpose(0, 1) for read in events]

    def logits(self, features: Tensor) -> Tensor:
        """Features (T, B, D) -> logits (T, B, V) in the dtype of the weights."""
        weight = self.lm_head.weight
        return F.linear(features, weight.to(features.dtype)).to(weight.dtype)

    def mean_nll(self, features: Tensor, targets: Tensor) -> Tensor:
        """Mean loss in nats of features (T, B, D) against targets (B, T); keeps no logits."""
        rows, weight = features.flatten(0, 1), self.lm_head.weight
        return linear_cross_entropy(rows, weight, None, targets.t().flatten())

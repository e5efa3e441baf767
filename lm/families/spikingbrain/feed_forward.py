"""The feed-forward part of a block: SwiGLU, alone or as shared and routed experts."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from spiketrain.lm.families.spikingbrain.config import Config
from spiketrain.lm.families.spikingbrain.neurons import Linear, Spikes

Events = list[Tensor]


class Expert(nn.Module):
    """down(silu(gate x) up x): what is spiked comes in spiked."""

    def __init__(self, config: Config, inner: int) -> None:
        super().__init__()
        size, group = config.hidden_size, config.quant_weight_group_size
        self.gate_proj = Linear(size, inner, False, group)
        self.up_proj = Linear(size, inner, False, group)
        down = group if config.down_proj == "spiked" else None
        self.down_proj = Linear(inner, size, False, down)

    def inner(self, x: Tensor) -> Tensor:
        """X (..., D) -> (..., inner)."""
        return F.silu(self.gate_proj(x)) * self.up_proj(x)


class MLP(Expert):
    """SwiGLU with its two places of spikes; down_proj's are there if the config says so."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.intermediate_size)
        self.spikes = Spikes(config)
        self.down_spikes = Spikes(config, config.down_proj == "spiked")

    def forward(self, x: Tensor, events: Events, costs: Events | None) -> Tensor:
        """Normalised x (B, T, D) -> (B, T, D); see Attention for events and costs."""
        inner = self.inner(self.spikes(x, events, costs))
        return self.down_proj(self.down_spikes(inner, events, costs))


class Experts(nn.Module):
    """Shared experts, and of the routed ones the likeliest, times its probability.

    The router reads x itself.  Spikes before the down projections have one k for all experts.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        inner = config.moe_intermediate_size
        self.router = Linear(config.hidden_size, config.num_experts)
        self.experts = nn.ModuleList(Expert(config, inner) for _ in range(config.num_experts))
        self.shared = nn.ModuleList(Expert(config, inner) for _ in range(config.num_shared_experts))
        self.spikes = Spikes(config)
        self.down_spikes = Spikes(config, config.down_proj == "spiked")

    def forward(self, x: Tensor, events: Events, costs: Events | None) -> Tensor:
        """Normalised x (B, T, D) -> (B, T, D); the events of a token's inner units are its own."""
        wide = torch.promote_types(x.dtype, torch.float32)
        share, chosen = torch.softmax(self.router(x).to(wide), -1).max(-1)  # (B, T)
        read = self.spikes(x, events, costs)
        inner = x.new_zeros(*x.shape[:2], self.experts[0].down_proj.weight.shape[1])
        for index in chosen.unique().tolist():
            inner[chosen == index] = self.experts[index].inner(read[chosen == index])
        inner = self.down_spikes(inner, events, costs)
        out = torch.zeros_like(x)
        for index in chosen.unique().tolist():
            out[chosen == index] = self.experts[index].down_proj(inner[chosen == index])
        out = out * share.unsqueeze(-1).to(out.dtype)
        for expert in self.shared:
            out = out + expert.down_proj(self.down_spikes(expert.inner(read), [], None))
        return out

"""The attention of a block: gated linear, window, or both on the same q, k and v."""

import math

import torch
from torch import Tensor, nn

from spiketrain.lm.families.spikingbrain.config import Config
from spiketrain.lm.families.spikingbrain.linear_attention import scan
from spiketrain.lm.families.spikingbrain.neurons import (
    ATTENTION_K,
    Linear,
    RMSNorm,
    Spikes,
    spiked,
    symmetric_int8,
)
from spiketrain.lm.families.spikingbrain.window_attention import attend, rotate
from spiketrain.runtime.families.spikingbrain.rotary import frequencies

Parts = tuple[Tensor, ...]
Events = list[Tensor]
GATE_GAIN = 2**-2.5


class Attention(nn.Module):
    """Grouped-query attention of one layer; head h reads key/value head h // (H / K).

    Linear attention has no positions, non-negative q and k and a norm of each head's output.  With
    both kinds, each head's outputs are normalised and their mean is taken (the 76B's hybrid; its
    code is not published, nor how branches are combined).
    """

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.config = config
        self.linear, self.window = config.has_state(layer), config.has_window(layer)
        self.visible = config.visible_keys(layer)
        self.heads, self.shared = config.num_attention_heads, config.num_key_value_heads
        self.width = config.head_dim
        group, size = config.quant_weight_group_size, config.hidden_size
        narrow, wide = self.shared * self.width, self.heads * self.width
        self.spikes = Spikes(config)
        self.q_proj = Linear(size, wide, True, group)
        self.k_proj = Linear(size, narrow, True, group)
        self.v_proj = Linear(size, narrow, True, group)
        self.o_spikes = Spikes(config)
        self.o_proj = Linear(wide, size, False, group)
        if config.qk_norm:
            self.q_norm = RMSNorm(self.width, config.norm_eps)
            self.k_norm = RMSNorm(self.width, config.norm_eps)
        if self.linear:
            if config.gate == "low_rank":
                rank = config.gate_rank
                self.gk_proj = nn.Sequential(Linear(size, rank), Linear(rank, narrow, True))
            elif config.gate == "merged":
                self.gk_proj = Linear(size, narrow, True, group)
            self.g_norm = RMSNorm(self.width, config.norm_eps)
        if self.window and self.linear:
            self.w_norm = RMSNorm(self.width, config.norm_eps)
        if self.window and config.num_sink_tokens:
            sinks = torch.empty(2, config.num_sink_tokens, self.shared, self.width)
            self.sinks = nn.Parameter(sinks)

    def initial_state(self, batch: int, like: Tensor) -> Parts:
        """Zeros: linear attention's state, and the window's keys, values and tokens so far."""
        parts = []
        if self.linear:
            parts.append(like.new_zeros(batch, self.shared * self.width**2))
        if self.window:
            kept = (self.visible - 1) * self.shared * self.width
            tokens = torch.zeros(batch, 1, dtype=torch.int64, device=like.device)
            parts += [like.new_zeros(batch, kept), like.new_zeros(batch, kept), tokens]
        return tuple(parts)

    def forward(
        self, x: Tensor, state: Parts, events: Events, costs: Events | None = None
    ) -> tuple[Tensor, Parts]:
        """Normalised x (B, T, D), state (initial_state's parts) -> (B, T, D), next state.

        What matrices read is appended to events; the price of theirs is taken of costs.
        """
        read = self.spikes(x, events, costs)
        q, k, v = (
            proj(read).unflatten(-1, (-1, self.width)).to(_wide(x))  # (B, T, heads, d)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        after: Parts = ()
        if self.linear:
            out, after = self._scan(q, k, v, read, state[:1])
        if self.window:
            seen, parts = self._look(q, k, v, x.dtype, state[-3:])
            out = (out + self.w_norm(seen)) / 2 if self.linear else seen
            after += parts
        out = self.o_spikes(out.flatten(2).to(x.dtype), events, costs)
        return self.o_proj(out), after

    def _scan(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor, state: Parts):
        """Linear attention of q (B, T, H, d) and k, v (B, T, K, d); x: what projections read."""
        positive = torch.relu if self.config.feature_map == "relu" else torch.sigmoid
        before = k
        q, k = positive(q) / math.sqrt(self.width), positive(k)
        if self.config.gate == "tied":
            g = nn.functional.logsigmoid(-before)  # log(1 - sigmoid(k))
        else:
            g = self.gk_proj(x).unflatten(-1, (-1, self.width)).to(k.dtype)
            g = nn.functional.logsigmoid(g) / self.config.gate_logit_normalizer
        q = q.unflatten(2, (self.shared, -1))  # (B, T, K, G, d)
        s = state[0].unflatten(1, (self.shared, self.width, self.width))
        out, s = scan(q, k, v, g, s)
        return self.g_norm(out).flatten(2, 3), (s.flatten(1),)

    def _look(self, q: Tensor, k: Tensor, v: Tensor, dtype: torch.dtype, state: Parts):
        """Window attention of q (B, T, H, d) and k, v (B, T, K, d); dtype: that of products."""
        keys, values, tokens = state
        steps, most = q.shape[1], self.visible - 1
        positions = tokens + torch.arange(steps, device=q.device)
        rotary = self.config.rope_theta, self.width // 2, self.config.rotary_scaling
        rates = torch.from_numpy(frequencies(*rotary)).to(q.device)
        q, k = rotate(q, positions, rates), rotate(k, positions, rates)
        keys, values = (
            torch.cat([old.unflatten(1, (most, self.shared, self.width)), new], 1)
            for old, new in ((keys, k), (values, v))
        )
        after = (
            keys[:, steps:].flatten(1),
            values[:, steps:].flatten(1),
            tokens + steps,
        )
        filled = min(most, int(tokens.max()))  # older places are empty in every lane
        keys, values = keys[:, most - filled :], values[:, most - filled :]
        if self.config.attention_spikes:
            q = spiked(q, ATTENTION_K)
            keys, values = symmetric_int8(keys), symmetric_int8(values)
        before = tokens[:, 0].clamp(max=most)
        sinks = getattr(self, "sinks", None)
        out = attend(q, keys, values, before, self.visible, sinks, dtype)
        return out, after

    @property
    def gates(self) -> list[Linear]:
        """The matrices that make the decay."""
        if not hasattr(self, "gk_proj"):
            return []
        return list(self.gk_proj) if self.config.gate == "low_rank" else [self.gk_proj]

    @torch.no_grad()
    def reset_gate(self) -> None:
        """The published start: Xavier times 2^-2.5 and no bias, decays near exp(-ln 2 / 16)."""
        for part in self.gates:
            nn.init.xavier_uniform_(part.weight, gain=GATE_GAIN)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
            part.reset_scales()


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)

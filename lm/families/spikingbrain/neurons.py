"""Spike counts with an adaptive threshold, and the quantised weights that read them.

    V = clip(mean|x| / k, 1e-5, 1e4) of a token's vector x,  s = round(x / V),  s V is what is read

s is 0 where |x| < dead_zone V; counts are never clipped (arXiv 2509.05276, W8ASpike).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from spiketrain.lm.families.spikingbrain.config import Config
from spiketrain.lm.spikes import any_spike, priced
from spiketrain.runtime.dial import NO_DIAL

MIN_V, MAX_V = 1e-5, 1e4
ATTENTION_K = 3.0  # of the q of window attention


def counts_and_threshold(
    x: Tensor, k: Tensor | float, dead_zone: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Counts s, whole numbers in x's dtype and shape (..., C), and thresholds V (..., 1).

    Half to even; V in float32, or float64 for such an x.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    v = (wide.abs().mean(-1, keepdim=True) / k).clamp(MIN_V, MAX_V)
    z = wide / v
    return torch.where(z.abs() < dead_zone, torch.zeros_like(z), torch.round(z)).to(x.dtype), v


def spiked(
    x: Tensor, k: Tensor | float, dead_zone: Tensor | float = 0.0, cost: Tensor | None = None
) -> Tensor:
    """S V of x (..., C), straight-through: dx passes as it is, and V = mean|x| / k moves k alone.

    cost (C,): price of an event (s not 0), which enters its gradient through a triangle around the
    first spike.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = wide.detach().abs().mean(-1, keepdim=True)
    v = (mean / k).clamp(MIN_V, MAX_V)
    z = wide / v
    with torch.no_grad():
        s = torch.where(z.abs() < dead_zone, torch.zeros_like(z), torch.round(z))
        gap = s - z
    values = wide + gap * v  # s V, up to rounding
    values = values + (s * v - values).detach()  # s V itself
    if cost is not None:
        first = max(0.5, float(dead_zone))
        values = priced(values, any_spike(z.abs() / first), cost)
    return values.to(x.dtype)


def symmetric_int8(x: Tensor) -> Tensor:
    """X (..., C) rounded to 8 bits of its last axis: scale clip(max|x| / 127, 1e-5, 1e4)."""
    scale = (x.abs().amax(-1, keepdim=True) / 127.0).clamp(MIN_V, MAX_V)
    rounded = torch.round(x / scale).clamp(-128, 127) * scale
    return x + (rounded - x).detach()


class Spikes(nn.Module):
    """What a matrix reads: spike counts times their threshold, or the input itself.

    k and dead_zone (1,) are there where the config has spikes; a reader of the published W8ASpike
    gives them the config's values.
    """

    def __init__(self, config: Config, fires: bool = True) -> None:
        super().__init__()
        self.fires = config.spikes and fires
        self.start = (config.spike_k, config.dead_zone)
        if self.fires:
            self.dial = NO_DIAL
            self.k = nn.Parameter(torch.empty(1), requires_grad=config.train_spikes)
            self.dead_zone = nn.Parameter(torch.empty(1), requires_grad=False)
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """The config's start."""
        if self.fires:
            nn.init.constant_(self.k, self.start[0])
            nn.init.constant_(self.dead_zone, self.start[1])

    def forward(self, x: Tensor, events: list[Tensor], costs: list[Tensor] | None) -> Tensor:
        """X (B, T, C) -> what is read, same shape; appended to events, its price taken of costs."""
        if not self.fires:
            return x
        zone = self.dead_zone
        if self.dial != NO_DIAL:
            zone = self.dial * zone.clamp(min=0.5)  # rounding leaves nothing of half a threshold
        read = spiked(x, self.k, zone, costs.pop(0) if costs else None)
        events.append(read)
        return read


class Scales(nn.Module):
    """Scales (O, ceil(I / group), 1) of int8 weight codes, under their published name."""

    def __init__(self, inputs: int, outputs: int, group: int) -> None:
        super().__init__()
        self.scales = nn.Parameter(torch.ones(outputs, inputs // group, 1), requires_grad=False)


class Linear(nn.Module):
    """Weight (O, I), rounded to whole scales at every pass where it has any: round(W / s) s + b.

    Codes are not clipped: published weights have some outside int8.
    """

    def __init__(
        self, inputs: int, outputs: int, bias: bool = False, group: int | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        if group is not None:
            if inputs % group:
                raise ValueError(
                    f"quant_weight_group_size must divide the inputs {inputs}, got {group}"
                )
            self.weight_quantizer = Scales(inputs, outputs, group)

    @torch.no_grad()
    def reset_scales(self) -> None:
        """Scales of this weight, if it has any: the largest of a group becomes 127."""
        if hasattr(self, "weight_quantizer"):
            scales = self.weight_quantizer.scales
            most = self.weight.unflatten(1, (scales.shape[1], -1)).abs().amax(-1, keepdim=True)
            scales.copy_(torch.where(most > 0, most / 127.0, torch.ones_like(most)))

    def codes(self) -> Tensor:
        """Whole numbers (O, I / group, group) of a quantised weight."""
        scales = self.weight_quantizer.scales
        return torch.round(self.weight.unflatten(1, (scales.shape[1], -1)) / scales)

    def rounded(self) -> Tensor:
        """The weight (O, I) that products use; its gradient is the weight's."""
        if not hasattr(self, "weight_quantizer"):
            return self.weight
        whole = (self.codes() * self.weight_quantizer.scales).flatten(1)
        return self.weight + (whole - self.weight).detach()

    def forward(self, x: Tensor) -> Tensor:
        """X (..., I) -> (..., O) in the dtype of x."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.rounded().to(x.dtype), bias)


class RMSNorm(nn.Module):
    """g x / sqrt(mean(x^2) + eps) over the last axis, at least in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        """X (..., C) -> the same shape, in float32 or float64."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps))

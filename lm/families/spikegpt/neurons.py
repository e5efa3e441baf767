"""The two kinds of neurons: LIF units on the residual, spike counts before projections."""

import torch
from torch import Tensor, nn

from spiketrain.lm.families.spikegpt.config import Config
from spiketrain.lm.kernels.lif import lif
from spiketrain.lm.kernels.spike_counts import spike_counts
from spiketrain.runtime.dial import NO_DIAL

MIN_THRESHOLD = 1e-3
MIN_THRESHOLD_SCALE = 0.05
MAX_COUNTS = 32_000  # of one input, which is |x| / (scale mean|x|) <= width / scale; int16 in use


class LIF(nn.Module):
    """Leaky integrate-and-fire units over tokens, hard reset: threshold and input scale (C,)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.start, self.tau = config.lif_threshold, config.lif_tau
        size, trained = config.hidden_size, config.train_neurons
        self.threshold = nn.Parameter(torch.empty(size), requires_grad=trained)
        self.scale = nn.Parameter(torch.empty(size), requires_grad=trained)

    def reset_parameters(self) -> None:
        """The published neuron: one threshold for all, input as it is."""
        nn.init.constant_(self.threshold, self.start)
        nn.init.ones_(self.scale)

    def forward(self, x: Tensor, membrane: Tensor, cost: Tensor | None) -> tuple[Tensor, Tensor]:
        """X (T, B, C), membrane (B, C) -> spikes 0 or 1 (T, B, C), next membrane."""
        if self.training and self.threshold.requires_grad:
            with torch.no_grad():
                self.threshold.clamp_(min=MIN_THRESHOLD)
        return lif(x, membrane, self.scale, self.threshold, cost, tau=self.tau)


class Spikes(nn.Module):
    """Signed spike counts; the trained scalar is a token's threshold over its mean|x|."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.start = config.threshold_scale
        self.dial = NO_DIAL
        self.threshold_scale = nn.Parameter(torch.empty(1))

    def reset_parameters(self) -> None:
        """The config's start."""
        nn.init.constant_(self.threshold_scale, self.start)

    def forward(self, x: Tensor, cost: Tensor | None) -> Tensor:
        """X (T, B, C) -> counts times threshold, same shape: 0 where |x| is below threshold."""
        if self.training:
            with torch.no_grad():
                least = max(MIN_THRESHOLD_SCALE, x.shape[-1] / MAX_COUNTS)
                self.threshold_scale.clamp_(min=least)
        read = spike_counts(x, self.threshold_scale, cost)
        if self.dial == NO_DIAL:
            return read
        size = x.abs().to(self.threshold_scale.dtype)
        unit = self.threshold_scale * size.mean(-1, keepdim=True)
        return torch.where(size / unit < self.dial, torch.zeros_like(read), read)

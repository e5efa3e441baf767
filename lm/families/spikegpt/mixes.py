"""RWKV-4's two mixes: over time and over channels.  Time-major, x (T, B, C); no state is kept."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from spiketrain.lm.families.spikegpt.config import Config
from spiketrain.lm.families.spikegpt.neurons import Spikes
from spiketrain.lm.kernels.relu2 import relu2
from spiketrain.lm.kernels.token_mix import token_mix
from spiketrain.lm.kernels.wkv import gated_wkv

_MATRICES = {"k": "key", "v": "value", "r": "receptance"}
Parts = tuple[Tensor, ...]


class _Mix(nn.Module):
    """What both share: token shift, spikes before projections where there are any, their start."""

    mixed: tuple[str, ...]  # the projections of the shifted input
    starts_at_zero: tuple[str, ...]  # matrices, with initialization "rwkv"

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.layer, self.layers, self.size = layer, config.num_hidden_layers, config.hidden_size
        self.initialization = config.initialization
        self.driven = config.neuron_position == "projections"
        names = ["time_mix"] if self.driven else [f"time_mix_{name}" for name in self.mixed]
        for name in names:  # one for each projection, or one for all that read the same spikes
            self.register_parameter(name, nn.Parameter(torch.empty(1, 1, self.size)))
        if self.driven:
            self.spikes = Spikes(config)

    def _project(
        self, y: Tensor, before: Tensor, dtype: torch.dtype, costs: list[Tensor] | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The projections of the shifted y (T, B, C), in the order of `mixed`, and events."""
        matrices = [getattr(self, _MATRICES[name]) for name in self.mixed]
        if self.driven:
            (x,) = token_mix(y, before, self.time_mix.flatten(0, 1), dtype)
            x = self.spikes(x, costs[0] if costs else None)
            return [product(x, matrix) for matrix in matrices], [x]
        mu = torch.cat([getattr(self, f"time_mix_{name}").flatten(0, 1) for name in self.mixed])
        inputs = token_mix(y, before, mu, dtype)
        return [product(x, matrix) for x, matrix in zip(inputs, matrices, strict=True)], []

    def _reset(self, mixtures: dict[str, Tensor]) -> None:
        """Mixtures by their last letter, matrices as `initialization` says."""
        for name, parameter in self.named_parameters(recurse=False):
            if name.startswith("time_mix"):
                parameter.copy_(mixtures.get(name[-1], mixtures["k"]))
        for name, module in self.named_children():
            if isinstance(module, nn.Linear):
                reset_matrix(module.weight, self.initialization, name in self.starts_at_zero)


class TimeMix(_Mix):
    """RWKV-4's attention: output(sigmoid(r) wkv(k, v)); four C x C matrices."""

    mixed = ("k", "v", "r")
    starts_at_zero = ("key", "receptance", "output")

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        self.time_decay = nn.Parameter(torch.empty(self.size))
        self.time_first = nn.Parameter(torch.empty(self.size))
        for name in ("key", "value", "receptance", "output"):
            setattr(self, name, nn.Linear(self.size, self.size, bias=False))
        if self.driven:
            self.output_spikes = Spikes(config)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """RWKV-4's start of decay, bonus and mixtures, by depth and channel."""
        channel = torch.arange(self.size, dtype=torch.float64)
        depth = self.layer / max(1, self.layers - 1)
        place = channel / max(1, self.size - 1)
        self.time_decay.copy_(-5.0 + 8.0 * place ** (0.7 + 1.3 * depth))
        self.time_first.copy_(math.log(0.3) + 0.5 * ((channel + 1) % 3 - 1))
        share = (channel / self.size) ** (1.0 - self.layer / self.layers)
        self._reset({"k": share, "v": share + 0.3 * depth, "r": share.sqrt()})

    def forward(
        self, y: Tensor, state: Parts, dtype: torch.dtype, costs: list[Tensor] | None
    ) -> tuple[Tensor, Parts, list[Tensor]]:
        """Y (T, B, C), state (y before, p, q, o) -> (T, B, C) in dtype, next state, events."""
        before, p, q, o = state
        (k, v, r), events = self._project(y, before, dtype, costs)
        out, sums = gated_wkv(k, v, r, -torch.exp(self.time_decay), self.time_first, (p, q, o))
        if self.driven:
            out = self.output_spikes(out, costs[1] if costs else None)
            events.append(out)
        return product(out, self.output), (y[-1], *sums), events


class ChannelMix(_Mix):
    """RWKV-4's feed-forward: sigmoid(r) value(relu(k)^2); F x C, C x C and C x F matrices."""

    mixed = ("k", "r")
    starts_at_zero = ("value", "receptance")

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        inner = config.intermediate_size
        self.key = nn.Linear(self.size, inner, bias=False)
        self.receptance = nn.Linear(self.size, self.size, bias=False)
        self.value = nn.Linear(inner, self.size, bias=False)
        if self.driven:
            self.value_spikes = Spikes(config)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """RWKV-4's start of the mixtures."""
        share = torch.arange(self.size, dtype=torch.float64) / self.size
        self._reset({"k": share ** (1.0 - self.layer / self.layers)})

    def forward(
        self, y: Tensor, state: Parts, dtype: torch.dtype, costs: list[Tensor] | None
    ) -> tuple[Tensor, Parts, list[Tensor]]:
        """Y (T, B, C), state (y before, and what stays) -> (T, B, C) in dtype, state, events."""
        before, *untouched = state
        (k, r), events = self._project(y, before, dtype, costs)
        inner = relu2(k)
        if self.driven:
            inner = self.value_spikes(inner, costs[1] if costs else None)
            events.append(inner)
        return torch.sigmoid(r) * product(inner, self.value), (y[-1], *untouched), events


def product(x: Tensor, matrix: nn.Linear) -> Tensor:
    """X (..., I) @ weight^T in the dtype of x."""
    return F.linear(x, matrix.weight.to(x.dtype))


def reset_matrix(
    weight: Tensor, initialization: str, zero: bool = False, gain: float = 1.0
) -> None:
    """Fresh weights (O, I): torch's own, or RWKV's orthogonal ones, or zero where it has that."""
    if initialization == "standard":
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5.0))
    elif zero:
        nn.init.zeros_(weight)
    else:
        nn.init.orthogonal_(weight, gain * max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5)

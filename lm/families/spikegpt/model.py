"""The SpikeGPT network: binary embedding, RWKV-4 blocks with neurons, head (arXiv 2302.13939).

The equations are those of the published training code; its inference script computes something
else (thresholds against rescaled weights, an embedding that is not binary), which `rescale` and
`binary_embedding` can repeat.  Parameters bear the published names.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from spiketrain.lm.families.spikegpt.config import Config
from spiketrain.lm.families.spikegpt.mixes import ChannelMix, Parts, TimeMix, product, reset_matrix
from spiketrain.lm.families.spikegpt.neurons import LIF, Spikes
from spiketrain.lm.kernels.cross_entropy import linear_cross_entropy
from spiketrain.lm.kernels.wkv import NOTHING_YET
from spiketrain.lm.language_model import LanguageModel, State
from spiketrain.lm.spikes import heaviside_atan

RWKV_EMBEDDING = 1e-4  # half-width of fresh embeddings with initialization "rwkv"
RWKV_HEAD_GAIN = 0.5


class Block(nn.Module):
    """LayerNorm, mix, neurons, twice; block 0 normalises the embedding first."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        size, eps, every = config.hidden_size, config.layer_norm_eps, config.rescale
        self.fires = config.neuron_position == "residual"
        self.shrink = 0.5 ** (layer // every) if every else 1.0
        self.halves = bool(every) and (layer + 1) % every == 0
        self.dropout = config.dropout
        if layer == 0:
            self.ln0 = nn.LayerNorm(size, eps)
        self.ln1 = nn.LayerNorm(size, eps)
        self.ln2 = nn.LayerNorm(size, eps)
        self.first = "ffnPre" if layer == 0 and config.pre_ffn else "att"
        kind = ChannelMix if self.first == "ffnPre" else TimeMix
        self.add_module(self.first, kind(config, layer))
        self.ffn = ChannelMix(config, layer)
        if self.fires:
            self.lif1, self.lif2 = LIF(config), LIF(config)

    def forward(
        self, x: Tensor, state: Parts, dtype: torch.dtype, costs: list[Tensor] | None
    ) -> tuple[Tensor, Parts, list[Tensor]]:
        """Residual x (T, B, C) -> the same, next state, events (T, B, width).

        state: shift of the first mix and of the second, p, q, o, then membranes if there are any,
        (B, C) each.  costs: price of an event for each tensor of events.
        """
        shift, ffn_shift, p, q, o, *membranes = state
        half = len(costs) // 2 if costs else 0
        first, second = (costs[:half], costs[half:]) if costs else (None, None)
        mix: Any = getattr(self, self.first)
        branch, (shift, p, q, o), events = mix(self.ln1(x), (shift, p, q, o), dtype, first)
        if self.fires:
            branch, membranes[0] = self.lif1(self._shrunk(branch), membranes[0], _only(first))
            events = [branch]
        x = x + (branch if self.fires else self._shrunk(branch))
        branch, (ffn_shift,), more = self.ffn(self.ln2(x), (ffn_shift,), dtype, second)
        if self.fires:
            branch, membranes[1] = self.lif2(self._shrunk(branch), membranes[1], _only(second))
            more = [branch]
        x = x + (branch if self.fires else self._shrunk(branch))
        x = x * 0.5 if self.halves else x
        x = F.dropout(x, self.dropout, self.training)
        return x, (shift, ffn_shift, p, q, o, *membranes), events + more

    def _shrunk(self, branch: Tensor) -> Tensor:
        return branch if self.shrink == 1.0 else branch * self.shrink


def _only(costs: list[Tensor] | None) -> Tensor | None:
    return costs[0] if costs else None


class Model(LanguageModel):
    """SpikeGPT language model; state: see Block, all (B, C) and float32, or of the weights' dtype.

    Events: spikes of the two LIF layers of each block; or, with spikes before projections, of the
    inputs of r|k|v, output, k|r and value of each block, and of the head; or none.
    """

    config_class = Config
    base_model_prefix = "spikegpt"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.emb = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.ln_out = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.neuron_position == "projections":
            self.head_spikes = Spikes(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        start = self.config.initialization
        if isinstance(module, LIF | Spikes | TimeMix | ChannelMix):
            module.reset_parameters()
        elif module is self.head:
            reset_matrix(self.head.weight, start, gain=RWKV_HEAD_GAIN)
        elif module is self.emb and start == "standard":
            nn.init.normal_(self.emb.weight)
        elif module is self.emb:
            nn.init.uniform_(self.emb.weight, -RWKV_EMBEDDING, RWKV_EMBEDDING)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token embedding."""
        return self.emb

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding."""
        self.emb = value

    def get_output_embeddings(self) -> nn.Linear:
        """Return the head."""
        return self.head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replace the head."""
        self.head = value

    @property
    def event_sizes(self) -> tuple[int, ...]:
        """Widths of the events."""
        cfg = self.config
        if cfg.neuron_position == "residual":
            return (cfg.hidden_size,) * (2 * cfg.num_hidden_layers)
        if cfg.neuron_position == "none":
            return ()
        widths = []
        for layer in range(cfg.num_hidden_layers):
            inner = cfg.intermediate_size if layer == 0 and cfg.pre_ffn else cfg.hidden_size
            widths += [cfg.hidden_size, inner, cfg.hidden_size, cfg.intermediate_size]
        return (*widths, cfg.hidden_size)

    def initial_state(self, batch: int) -> State:
        """Zeros, and the exponent of an empty sum."""
        real = self.emb.weight.dtype
        zero = torch.zeros(batch, self.config.hidden_size, dtype=real, device=self.device)
        membranes = (zero, zero) if self.config.neuron_position == "residual" else ()
        layer = (zero, zero, zero, zero, torch.full_like(zero, NOTHING_YET), *membranes)
        return (layer,) * self.config.num_hidden_layers

    def carried(self, state: State) -> State:
        """What the next chunk starts from: detached, or the initial state if `carry` is "zero"."""
        if self.config.carry == "zero":
            return self.initial_state(state[0][0].shape[0])
        return tuple(tuple(part.detach() for part in layer) for layer in state)

    def features(
        self, input_ids: Tensor, state: State | None = None, event_costs: list[Tensor] | None = None
    ) -> tuple[Tensor, State, list[Tensor]]:
        """input_ids (B, T) -> features (T, B, C) for the head, state, events (T, B, width)."""
        state = self.initial_state(input_ids.shape[0]) if state is None else state
        dtype = self._dtype_of_products(self.emb.weight.dtype)
        costs = event_costs or []
        each = len(costs) // len(self.blocks)
        x = F.embedding(input_ids.t(), self.emb.weight)  # (T, B, C)
        x = heaviside_atan(x) if self.config.binary_embedding else x
        x = self.blocks[0].ln0(x)
        after, events = [], []
        for i, (block, layer) in enumerate(zip(self.blocks, state, strict=True)):
            x, layer, fired = block(x, layer, dtype, costs[i * each : (i + 1) * each])
            after.append(layer)
            events += fired
        x = self.ln_out(x).to(dtype)
        if self.config.neuron_position == "projections":
            x = self.head_spikes(x, costs[-1] if costs else None)
            events.append(x)
        return x, tuple(after), events

    def logits(self, features: Tensor) -> Tensor:
        """Features (T, B, C) -> logits (T, B, V) in the dtype of the weights."""
        return product(features, self.head).to(self.head.weight.dtype)

    def mean_nll(self, features: Tensor, targets: Tensor) -> Tensor:
        """Mean loss in nats of features (T, B, C) against targets (B, T); keeps no logits."""
        wrap = self.config.l2_wrap if self.training else 0.0
        rows, weight = features.flatten(0, 1), self.head.weight
        return linear_cross_entropy(rows, weight, None, targets.t().flatten(), wrap)

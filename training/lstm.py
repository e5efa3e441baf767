"""The dense yardstick: an LSTM language model of equal parameters, trained by the same loop.

The same interface as `spiketrain.lm.families.egru.Model` where the loop uses it.  Products in
bfloat16 if asked, cells in float32, a hand-written backward through time: as fair and as fast as
the EGRU's.
"""

from itertools import pairwise

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from spiketrain.lm.kernels.cross_entropy import linear_cross_entropy

EMBEDDING_STD = 0.1
OUTPUT_RMS = 0.2


class Config(BaseModel):
    """Sizes as for EGRU: hidden_sizes ends with embedding_size unless `projection`; tied head."""

    model_config = ConfigDict(extra="forbid")
    model_type: str = "lstm"
    vocab_size: int = Field(ge=1)
    embedding_size: int = Field(ge=1)
    hidden_sizes: tuple[int, ...] = Field(min_length=1)
    projection: bool = False
    initial_preactivation: float = Field(0.5, gt=0)  # as for EGRU
    compute_dtype: str = "float32"


class _Scan(torch.autograd.Function):
    """Gates i | f | o | g; xk (T, B, 4H) = x K + b, h and c (B, H), weight R (H, 4H)."""

    @staticmethod
    def forward(ctx, xk, h0, c0, weight):
        steps, batch, width = xk.shape
        hidden = width // 4
        matrix = weight.to(xk.dtype)
        gates = torch.empty(steps, batch, width, device=xk.device)
        cells = torch.empty(steps + 1, batch, hidden, device=xk.device)
        h = torch.empty(steps + 1, batch, hidden, dtype=xk.dtype, device=xk.device)
        h[0], cells[0] = h0, c0
        for t in range(steps):
            pre = torch.addmm(xk[t], h[t], matrix)
            ifo = torch.sigmoid(pre[:, : 3 * hidden].float())
            g = torch.tanh(pre[:, 3 * hidden :].float())
            i, f, o = ifo.chunk(3, -1)
            torch.addcmul(f * cells[t], i, g, out=cells[t + 1])
            h[t + 1] = o * torch.tanh(cells[t + 1])
            gates[t, :, : 3 * hidden], gates[t, :, 3 * hidden :] = ifo, g
        ctx.save_for_backward(h, cells, gates, matrix)
        ctx.dtype = weight.dtype
        return h[1:], cells[-1]

    @staticmethod
    def backward(ctx, dh_out, dc):
        h, cells, gates, matrix = ctx.saved_tensors
        steps = gates.shape[0]
        dpre = torch.empty_like(gates, dtype=h.dtype)
        transposed = matrix.t().contiguous()
        back = torch.zeros_like(h[0])
        for t in reversed(range(steps)):
            i, f, o, g = gates[t].chunk(4, -1)
            squashed = torch.tanh(cells[t + 1])
            dh = dh_out[t].float() + back.float()
            dc = torch.addcmul(dc, dh * o, 1.0 - squashed * squashed)
            slopes = (dc * g * i * (1 - i), dc * cells[t] * f * (1 - f),
                      dh * squashed * o * (1 - o), dc * i * (1 - g * g))  # fmt: skip
            dpre[t] = torch.cat(slopes, -1)
            dc = dc * f
            back = dpre[t] @ transposed
        dweight = h[:-1].flatten(0, 1).t() @ dpre.flatten(0, 1)
        return dpre, back, dc, dweight.to(ctx.dtype)


class Layer(nn.Module):
    """kernel (I, 4H), recurrent_kernel (H, 4H), bias (4H,): forget gate starts at 1."""

    def __init__(self, inputs: int, hidden: int, input_rms: float, spread: float) -> None:
        super().__init__()
        self.kernel = nn.Parameter(
            torch.randn(inputs, 4 * hidden) * spread / (input_rms * inputs**0.5)
        )
        self.recurrent_kernel = nn.Parameter(
            torch.randn(hidden, 4 * hidden) * 0.5 * spread / (OUTPUT_RMS * hidden**0.5)
        )
        self.bias = nn.Parameter(torch.zeros(4 * hidden))
        with torch.no_grad():
            self.bias[hidden : 2 * hidden] = 1.0

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]):
        """X (T, B, I), state (cell, output) -> outputs (T, B, H), next state."""
        cell, h = state
        xk = torch.addmm(self.bias.to(x.dtype), x.flatten(0, 1), self.kernel.to(x.dtype))
        out, cell = _Scan.apply(xk.unflatten(0, x.shape[:2]), h, cell, self.recurrent_kernel)
        return out, (cell, out[-1])


class Model(nn.Module):
    """Embedding, stacked LSTM layers, projection if asked, tied head with bias."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        sizes = [config.embedding_size, *config.hidden_sizes]
        if sizes[-1] != sizes[0] and not config.projection:
            raise ValueError(f"hidden_sizes must end with {sizes[0]}, got {sizes[-1]}")
        self.embeddings = nn.Embedding(config.vocab_size, sizes[0])
        nn.init.normal_(self.embeddings.weight, std=EMBEDDING_STD)
        self.layers = nn.ModuleList(
            Layer(a, b, OUTPUT_RMS if index else EMBEDDING_STD, config.initial_preactivation)
            for index, (a, b) in enumerate(pairwise(sizes))
        )
        self.projection = None
        if config.projection:
            self.projection = nn.Linear(sizes[-1], sizes[0])
            nn.init.normal_(self.projection.weight, std=EMBEDDING_STD)
            nn.init.zeros_(self.projection.bias)
        self.head_bias = nn.Parameter(torch.zeros(config.vocab_size))

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.config.compute_dtype)
        return dtype

    @property
    def event_sizes(self) -> tuple[int, ...]:
        """Units of each layer."""
        return self.config.hidden_sizes

    def initial_state(self, batch: int):
        """Zero cells and outputs, (B, H) each, one pair a layer."""
        device = self.embeddings.weight.device
        return tuple(
            (
                torch.zeros(batch, size, device=device),
                torch.zeros(batch, size, dtype=self._dtype, device=device),
            )
            for size in self.config.hidden_sizes
        )

    def carried(self, state):
        """The state without its history."""
        return tuple((cell.detach(), h.detach()) for cell, h in state)

    def features(self, input_ids: Tensor, state=None, event_costs=None):
        """input_ids (B, T) -> features (T, B, e), state, outputs (T, B, H) per layer."""
        state = self.initial_state(input_ids.shape[0]) if state is None else state
        x = F.embedding(input_ids.t(), self.embeddings.weight).to(self._dtype)
        after, outputs = [], []
        for layer, pair in zip(self.layers, state, strict=True):
            x, pair = layer(x, pair)
            after.append(pair)
            outputs.append(x)
        if self.projection is not None:
            weight, bias = self.projection.weight.to(x.dtype), self.projection.bias.to(x.dtype)
            x = F.linear(x, weight, bias)
        return x, tuple(after), outputs

    def logits(self, features: Tensor) -> Tensor:
        """Features (T, B, e) -> float32 logits (T, B, V)."""
        weight, bias = self.embeddings.weight.to(features.dtype), self.head_bias.to(features.dtype)
        return F.linear(features, weight, bias).float()

    def mean_nll(self, features: Tensor, targets: Tensor) -> Tensor:
        """Mean loss in nats of features (T, B, e) against targets (B, T)."""
        return linear_cross_entropy(
            features.flatten(0, 1), self.embeddings.weight, self.head_bias, targets.t().flatten()
        )

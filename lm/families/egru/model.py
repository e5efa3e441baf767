"""The EGRU network: embedding, stacked recurrent layers, head; the state goes in and comes out.

A unit keeps a private cell c and sends y = c~ to others only when c~ passes its threshold.  The
equations, the gate order z | r | g and the (input, output) orientation of kernels are those of
EvNN, the published code, so its checkpoints load without transposes.
"""

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from spiketrain.lm.families.egru.config import Config
from spiketrain.lm.kernels.cross_entropy import linear_cross_entropy
from spiketrain.lm.kernels.egru import scan, scan_reference
from spiketrain.lm.language_model import LanguageModel, State
from spiketrain.lm.spikes import PUBLISHED_FLOOR

EMBEDDING_STD = 0.1  # of fresh embeddings
EVENT_RMS = 0.2  # root mean square of event values expected of a fresh layer


class Layer(nn.Module):
    """One layer: kernel (I, 3H), recurrent_kernel (H, 3H), two biases (3H,), threshold (H,)."""

    def __init__(self, inputs: int, hidden: int, config: Config) -> None:
        super().__init__()
        self.config = config
        self.kernel = nn.Parameter(torch.empty(inputs, 3 * hidden))
        self.recurrent_kernel = nn.Parameter(torch.empty(hidden, 3 * hidden))
        self.bias = nn.Parameter(torch.empty(3 * hidden))
        self.recurrent_bias = nn.Parameter(torch.empty(3 * hidden))
        self.threshold = nn.Parameter(torch.empty(hidden), requires_grad=config.train_thresholds)

    @torch.no_grad()
    def reset_parameters(self, input_rms: float = EVENT_RMS) -> None:
        """Fresh weights; input_rms is the root mean square expected of this layer's input."""
        spread = self.config.initial_preactivation
        if spread is None:
            nn.init.xavier_normal_(self.kernel)
            nn.init.xavier_normal_(self.recurrent_kernel)
        else:
            inputs, hidden = self.kernel.shape[0], self.recurrent_kernel.shape[0]
            nn.init.normal_(self.kernel, std=spread / (input_rms * inputs**0.5))
            nn.init.normal_(self.recurrent_kernel, std=0.5 * spread / (EVENT_RMS * hidden**0.5))
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.recurrent_bias)
        self.bias[: self.threshold.shape[0]] = self.config.initial_update_bias
        mean = self.config.threshold_mean
        self.threshold.copy_(
            torch.distributions.Beta(3 * mean / (1 - mean), 3.0).sample(self.threshold.shape)
        )

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], event_cost: Tensor | None = None):
        """X (T, B, I), state (cell, y) of (B, H) each -> events (T, B, H), next state."""
        cfg = self.config
        if self.training:
            with torch.no_grad():
                self.threshold.clamp_(0.0, 1.0)
        cell, y = state
        recurrent = F.dropout(self.recurrent_kernel, cfg.dropout_connect, self.training)
        xk = torch.addmm(self.bias.to(x.dtype), x.flatten(0, 1), self.kernel.to(x.dtype))
        xk = xk.unflatten(0, x.shape[:2])  # (T, B, 3H)
        surrogate: dict[str, Any] = {
            "damp": cfg.pseudo_derivative_damp,
            "support": cfg.pseudo_derivative_support,
            "floor": PUBLISHED_FLOOR if (least := cfg.pseudo_derivative_floor) is None else least,
        }
        args = (xk, y, cell, recurrent, self.recurrent_bias, self.threshold)
        if cfg.zoneout:
            surrogate |= {"zoneout": cfg.zoneout, "training": self.training}
            out, cell = scan_reference(*args, **surrogate)
        else:
            out, cell = scan(*args, event_cost, **surrogate)
        return out, (cell, out[-1])


class Model(LanguageModel):
    """EGRU language model; the state is (cell, output) of each layer."""

    config_class = Config
    base_model_prefix = "egru"
    graded_events = True
    _tied_weights_keys: ClassVar = {"head.weight": "embeddings.weight"}

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        sizes = [config.embedding_size, *config.hidden_sizes]
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.layers = nn.ModuleList(
            Layer(inputs, hidden, config) for inputs, hidden in pairwise(sizes)
        )
        self.projection = nn.Linear(sizes[-1], config.embedding_size) if config.projection else None
        features = config.embedding_size if config.projection else sizes[-1]
        self.head = nn.Linear(features, config.vocab_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Layer):
            first = module is self.layers[0]
            module.reset_parameters(EMBEDDING_STD if first else EVENT_RMS)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=EMBEDDING_STD)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=EMBEDDING_STD)
            nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token embedding."""
        return self.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding."""
        self.embeddings = value

    def get_output_embeddings(self) -> nn.Linear:
        """Return the head."""
        return self.head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replace the head."""
        self.head = value

    def initial_state(self, batch: int) -> State:
        """Zero cells and outputs, (B, H) each, one pair a layer."""
        real = self.layers[0].bias.dtype
        return tuple(
            (
                torch.zeros(batch, hidden, dtype=real, device=self.device),
                torch.zeros(batch, hidden, dtype=self._compute_dtype, device=self.device),
            )
            for hidden in self.config.hidden_sizes
        )

    def carried(self, state: State) -> State:
        """What the next chunk starts from: detached, the cell zeroed if `carry` is "output"."""
        keep = self.config.carry == "state"
        return tuple(
            (cell.detach() if keep else torch.zeros_like(cell), y.detach()) for cell, y in state
        )

    @property
    def _compute_dtype(self) -> torch.dtype:
        return self._dtype_of_products(self.layers[0].kernel.dtype)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Cell and output of each layer."""
        layers = range(len(self.layers))
        return tuple(f"{part}.{layer}" for layer in layers for part in ("cell", "output"))

    @property
    def event_sizes(self) -> tuple[int, ...]:
        """Units of each layer."""
        return tuple(self.config.hidden_sizes)

    def features(
        self, input_ids: Tensor, state: State | None = None, event_costs: list[Tensor] | None = None
    ) -> tuple[Tensor, State, list[Tensor]]:
        """input_ids (B, T) -> features (T, B, e) for the head, state, events (T, B, H) a layer."""
        state = self.initial_state(input_ids.shape[0]) if state is None else state
        x = self._embed(input_ids.t()).to(self._compute_dtype)  # (T, B, e)
        after, events = [], []
        for index, layer in enumerate(self.layers):
            if index:
                x = self._locked_dropout(x, self.config.dropout_forward)
            x, pair = layer(x, state[index], event_costs[index] if event_costs else None)
            after.append(pair)
            events.append(x)
        if self.projection is not None:
            weight, bias = self.projection.weight.to(x.dtype), self.projection.bias.to(x.dtype)
            x = F.linear(x, weight, bias)
        return self._locked_dropout(x, self.config.dropout_decoder), tuple(after), events

    def mean_nll(self, features: Tensor, targets: Tensor) -> Tensor:
        """Mean loss in nats of features (T, B, e) against targets (B, T); keeps no logits."""
        return linear_cross_entropy(
            features.flatten(0, 1), self.head.weight, self.head.bias, targets.t().flatten()
        )

    def logits(self, features: Tensor) -> Tensor:
        """Features (T, B, e) -> logits (T, B, V) in the dtype of the weights."""
        weight, bias = self.head.weight.to(features.dtype), self.head.bias.to(features.dtype)
        return F.linear(features, weight, bias).to(self.layers[0].bias.dtype)

    def _embed(self, ids: Tensor) -> Tensor:
        weight = self.embeddings.weight
        if self.training and self.config.dropout_words:
            keep = torch.full_like(weight[:, :1], 1.0 - self.config.dropout_words)
            weight = weight * torch.bernoulli(keep) / keep
        return self._locked_dropout(F.embedding(ids, weight), self.config.dropout_embedding)

    def _locked_dropout(self, x: Tensor, p: float) -> Tensor:
        """Dropout of x (T, B, F) with one mask for the whole batch, or for all time."""
        if not (self.training and p):
            return x
        T, B, width = x.shape
        shape = (T, 1, width) if self.config.dropout_shared == "batch" else (1, B, width)
        return x * torch.bernoulli(x.new_full(shape, 1.0 - p)) / (1.0 - p)
